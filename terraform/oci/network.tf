# One small network with a way to the Internet, and what may come in.

resource "oci_core_vcn" "relays" {
  compartment_id = var.compartment
  cidr_blocks    = [var.network]
  display_name   = "backup-mx"
}

resource "oci_core_internet_gateway" "relays" {
  compartment_id = var.compartment
  vcn_id         = oci_core_vcn.relays.id
  display_name   = "backup-mx"
}

# The network's own route table and rules are taken over rather than joined by further ones: Oracle's
# default rules open SSH to everybody, and what one list opens no other can shut.
resource "oci_core_default_route_table" "relays" {
  manage_default_resource_id = oci_core_vcn.relays.default_route_table_id

  route_rules {
    destination       = "0.0.0.0/0"
    destination_type  = "CIDR_BLOCK"
    network_entity_id = oci_core_internet_gateway.relays.id
  }
}

locals {
  anybody = ["0.0.0.0/0"]
  tcp     = "6"
  icmp    = "1"

  # Who may connect where. The relay's own firewall says the same once more.
  openings = concat(
    [
      { port = 25, from = local.anybody, what = "mail" },
      { port = 80, from = var.acme ? local.anybody : [], what = "the certificate authority, while it looks" },
      { port = 443, from = var.mta_sts ? local.anybody : [], what = "senders, for the MTA-STS policy" },
      { port = 9725, from = var.metrics_from, what = "metrics" },
      { port = 8025, from = var.dashboard_from, what = "the dashboard" },
    ],
    [
      # 22 as well: it is where a machine listens until somebody has moved its sshd.
      for port in distinct(concat([22], [for relay in values(var.relays) : relay.ssh_port])) :
      { port = port, from = var.ssh_from, what = "SSH" }
    ],
  )
  rules = flatten([
    for opening in local.openings :
    [for source in opening.from : { port = opening.port, source = source, what = opening.what }]
  ])
}

resource "oci_core_default_security_list" "relays" {
  manage_default_resource_id = oci_core_vcn.relays.default_security_list_id

  dynamic "ingress_security_rules" {
    for_each = local.rules
    content {
      protocol    = local.tcp
      source      = ingress_security_rules.value.source
      description = ingress_security_rules.value.what

      tcp_options {
        min = ingress_security_rules.value.port
        max = ingress_security_rules.value.port
      }
    }
  }

  # "Too large, and may not be split" (RFC 1191): without it, large messages hang on some paths.
  ingress_security_rules {
    protocol    = local.icmp
    source      = "0.0.0.0/0"
    description = "path MTU"

    icmp_options {
      type = 3
      code = 4
    }
  }

  egress_security_rules {
    protocol    = "all"
    destination = "0.0.0.0/0"
    description = "the primary, DNS, packages; Oracle itself shuts port 25"
  }
}

# It names no availability domain, so it spans all of them.
resource "oci_core_subnet" "relays" {
  compartment_id = var.compartment
  vcn_id         = oci_core_vcn.relays.id
  cidr_block     = var.network
  display_name   = "backup-mx"

  # Written out because a subnet that forbids them would leave the relays without their addresses.
  prohibit_public_ip_on_vnic = false
}
