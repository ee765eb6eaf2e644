locals {
  # The relays whose reserved address is another than the one they were built with.
  strangers = [
    for name, relay in var.relays : name
    if relay.address != null && relay.address != oci_core_public_ip.relay[name].ip_address
  ]
}

output "addresses" {
  description = "The reserved address of each relay: what address in [relay.NAME] must say."
  value       = { for name, reserved in oci_core_public_ip.relay : name => reserved.ip_address }

  # A relay that takes itself for another host would loop, and DNS would name that host.
  precondition {
    condition     = length(local.strangers) == 0
    error_message = "The reserved address is another than the one in backup-mx.toml, of: ${join(", ", local.strangers)}. Write the one that `terraform output addresses` shows into [relay.NAME], and run `backup-mx build` again."
  }
}

output "consoles" {
  description = "What to run to reach each machine's serial console, where console_key opens it."
  value       = { for name, console in oci_core_instance_console_connection.relay : name => console.connection_string }
}
