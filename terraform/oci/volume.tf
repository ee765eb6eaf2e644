# The volume with the queue. It outlives the machine, so a rebuild in an outage loses no mail.

resource "oci_core_volume" "queue" {
  for_each = local.volumes

  compartment_id      = var.compartment
  availability_domain = local.availability_domain
  display_name        = "${each.value.hostname} queue"
  # Without a size it would have 1 TB, and a price.
  size_in_gbs = each.value.volume_gb
  # "Balanced", which is part of what is free.
  vpus_per_gb = 10

  lifecycle {
    # On it is mail that exists nowhere else. docs/deploy.md says how to leave.
    prevent_destroy = true

    # It stays where it was made, also when the limits that told the place have changed: to follow
    # them would be to destroy it.
    ignore_changes = [availability_domain]

    precondition {
      condition     = local.availability_domain != ""
      error_message = "Oracle gives this tenancy no ${var.shape} in ${var.region}. Is that its home region? Otherwise name an availability_domain."
    }

    precondition {
      condition     = var.may_cost || local.total_gb <= local.free_gb
      error_message = "All disks and volumes together have ${local.total_gb} GB, and ${local.free_gb} GB are free. If it may cost money, say may_cost = true."
    }
  }
}

# The machine is up some minutes before this is done; its first boot waits for the volume. No device
# is named: the relay knows its volume by its label, and a new one by being the only blank one.
resource "oci_core_volume_attachment" "queue" {
  for_each = { for name, volume in oci_core_volume.queue : name => volume.id if contains(keys(local.machines), name) }

  attachment_type = "paravirtualized"
  instance_id     = oci_core_instance.relay[each.key].id
  volume_id       = each.value
}
