# The address that DNS will name and that the primary lets in: it stays when the machine is replaced.

locals {
  # Named here because Terraform reads what refers to a machine directly only after all machines: to
  # replace one would then show a change of the others' addresses, too.
  private_ips = { for name, machine in oci_core_instance.relay : name => machine.private_ip }
}

# Oracle hands an address to a private address, not to a machine. Which one a new machine has is only
# known once it is there, so this is read after it.
data "oci_core_private_ips" "relay" {
  for_each = local.machines

  subnet_id  = oci_core_subnet.relays.id
  ip_address = local.private_ips[each.key]
}

resource "oci_core_public_ip" "relay" {
  for_each = var.relays

  compartment_id = var.compartment
  lifetime       = "RESERVED"
  display_name   = each.value.hostname
  private_ip_id  = each.value.user_data == null ? null : data.oci_core_private_ips.relay[each.key].private_ips[0].id

  lifecycle {
    # A given-up address is somebody else's next. DNS, the primary and the tunnel would still trust
    # it. docs/deploy.md says how to leave.
    prevent_destroy = true
  }
}
