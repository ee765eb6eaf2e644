# Without evidence, or room, nothing is made or changed. What stands already needs neither: stale
# evidence of one relay must not keep another one from being withdrawn.
#
# A relay goes in two applies, with the TTL between them: first its domains, so its MX records
# (`publish = "address"` in backup-mx.toml), then itself. In one, senders that remember the MX record
# would look for a name that is gone.

locals {
  # A domain may have several relays, and a relay several domains.
  exchangers = merge([
    for name, relay in var.relays : {
      for domain, zone in relay.domains : "${name} ${domain}" => {
        relay      = name
        domain     = domain
        zone       = zone
        hostname   = relay.hostname
        preference = relay.preference
      }
    }
  ]...)

  # Whether a record stands as it is wanted. A precondition is not told what the plan would change, so
  # this goes by Cloudflare's own list.
  stands = {
    address = {
      for name, relay in var.relays : name => anytrue([
        for each in data.cloudflare_dns_records.zone[relay.zone].result :
        contains(["A", "AAAA"], each.type) && each.name == relay.hostname && each.content == relay.address && each.proxied != true
      ]) if relay.zone != null
    }
    exchanger = {
      for key, wanted in local.exchangers : key => anytrue([
        for each in data.cloudflare_dns_records.zone[wanted.zone].result :
        each.type == "MX" && each.name == wanted.domain && each.content == wanted.hostname && each.priority == wanted.preference
      ])
    }
  }

  # Five minutes: so long does a withdrawn record still draw mail.
  ttl = 300
}

resource "cloudflare_dns_record" "address" {
  for_each = { for name, relay in var.relays : name => relay if relay.zone != null }

  zone_id = var.zones[each.value.zone].id
  name    = each.value.hostname
  type    = strcontains(each.value.address, ":") ? "AAAA" : "A"
  content = each.value.address
  ttl     = local.ttl
  comment = "backup-mx: the relay ${each.key}"
  # Cloudflare's proxy takes HTTP only: mail would end there.
  proxied = false

  lifecycle {
    precondition {
      condition     = local.stands.address[each.key] || local.lacking[each.key].A == ""
      error_message = "The address of ${each.key} is not published without evidence that it works: ${local.lacking[each.key].A}."
    }

    # Not known before it is applied.
    precondition {
      condition     = local.stands.address[each.key] || timecmp(timestamp(), local.until[each.key].A) < 0
      error_message = "The evidence that the address of ${each.key} works is stale since ${local.until[each.key].A}, after this plan was made: backup-mx gate run, then plan again."
    }

    precondition {
      condition     = local.stands.address[each.key] || local.room[each.value.zone]
      error_message = "The zone ${each.value.zone} would have more records than Cloudflare allows it: ${var.zones[each.value.zone].record_limit}."
    }
  }
}

resource "cloudflare_dns_record" "exchanger" {
  for_each = local.exchangers

  zone_id  = var.zones[each.value.zone].id
  name     = each.value.domain
  type     = "MX"
  content  = each.value.hostname
  priority = each.value.preference
  ttl      = local.ttl
  comment  = "backup-mx: the relay ${each.value.relay}"

  # A name that does not resolve yet would be a mail exchanger that bounces mail with some senders.
  depends_on = [cloudflare_dns_record.address]

  lifecycle {
    precondition {
      condition     = local.stands.exchanger[each.key] || local.lacking[each.value.relay].MX == ""
      error_message = "${each.value.relay} does not become a mail exchanger of ${each.value.domain} without evidence that it is one: ${local.lacking[each.value.relay].MX}."
    }

    precondition {
      condition     = local.stands.exchanger[each.key] || timecmp(timestamp(), local.until[each.value.relay].MX) < 0
      error_message = "The evidence that ${each.value.relay} is a mail exchanger of ${each.value.domain} is stale since ${local.until[each.value.relay].MX}, after this plan was made: backup-mx gate run, then plan again."
    }

    precondition {
      condition     = local.stands.exchanger[each.key] || local.room[each.value.zone]
      error_message = "The zone ${each.value.zone} would have more records than Cloudflare allows it: ${var.zones[each.value.zone].record_limit}."
    }
  }
}
