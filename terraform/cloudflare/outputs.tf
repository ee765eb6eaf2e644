output "records" {
  description = "What is published, as a zone file has it."
  value = concat(
    [for each in cloudflare_dns_record.address : "${each.name} ${each.type} ${each.content}"],
    [for each in cloudflare_dns_record.exchanger : "${each.name} MX ${each.priority} ${each.content}"],
  )
}
