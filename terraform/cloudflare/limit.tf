# Cloudflare allows a zone so many records, and a plan says nothing about it: it would fail half done.

data "cloudflare_dns_records" "zone" {
  for_each = var.zones

  zone_id   = each.value.id
  max_items = each.value.record_limit

  lifecycle {
    # Here because all that is made comes after this, and would only tell of an invalid index.
    precondition {
      condition     = length(local.strays) == 0
      error_message = "What is to be in ${join(" or ", local.strays)} is in no zone that is listed: those are ${join(", ", keys(var.zones))}."
    }
  }
}

locals {
  # Zones that relays name, and nobody lists.
  strays = setsubtract(
    flatten([for relay in values(var.relays) : [compact([relay.zone]), values(relay.domains)]]),
    keys(var.zones),
  )

  # What each zone is to have of ours, as "type name".
  ours = {
    for zone in keys(var.zones) : zone => concat(
      [for relay in values(var.relays) : "${strcontains(relay.address, ":") ? "AAAA" : "A"} ${relay.hostname} ${relay.address}" if relay.zone == zone],
      [for each in values(local.exchangers) : "MX ${each.domain} ${each.hostname}" if each.zone == zone],
    )
  }

  # What it has of others.
  others = {
    for zone, records in data.cloudflare_dns_records.zone : zone => [
      for each in records.result : each.id
      if !contains(local.ours[zone], "${each.type} ${each.name} ${each.content}")
    ]
  }

  room = {
    for zone, facts in var.zones :
    zone => length(local.ours[zone]) + length(local.others[zone]) <= facts.record_limit
  }
}
