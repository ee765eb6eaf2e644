# The machines. Each is made anew on purpose only:
#   terraform apply -replace='oci_core_instance.relay["mx2"]'

resource "oci_core_instance" "relay" {
  for_each = local.machines

  compartment_id = var.compartment
  display_name   = each.value.hostname
  shape          = var.shape

  # A volume can only be attached where it is, so the machine goes to its volume.
  availability_domain = each.value.volume_gb == null ? local.availability_domain : oci_core_volume.queue[each.key].availability_domain

  # What must last is on the volume, so the machine's own disk may die with it.
  preserve_boot_volume = false

  source_details {
    source_type             = "image"
    source_id               = data.oci_core_images.ubuntu.images[0].id
    boot_volume_size_in_gbs = var.boot_volume_gb
  }

  create_vnic_details {
    subnet_id = oci_core_subnet.relays.id
    # A reserved address can only be given to a machine that has no other one (address.tf).
    assign_public_ip = false
  }

  # user_data installs the keys as well. Here they stand for the day on which it does not work. With
  # secrets_in_user_data it holds one: no plan shows it, but Terraform's state has it.
  metadata = {
    ssh_authorized_keys = join("\n", var.ssh_keys)
    user_data           = sensitive(filebase64("${path.root}/${each.value.user_data}"))
  }

  # The second version of the metadata service asks for a header that no mistaken fetch would send.
  instance_options {
    are_legacy_imds_endpoints_disabled = true
  }

  # After a failure of the hardware Oracle starts it elsewhere, with its disk and its volume.
  availability_config {
    recovery_action = "RESTORE_INSTANCE"
  }

  # Monitoring is what tells whether Oracle would call the machine idle and stop it. Management would
  # let whoever has the account run commands on it as root.
  agent_config {
    is_management_disabled = true
    is_monitoring_disabled = false
  }

  lifecycle {
    # None of these can change while a machine lives, so a change would make it anew unasked, maybe
    # in the middle of an outage: a new image comes out every few weeks, and user-data follows each
    # change of backup-mx.toml (`backup-mx deploy` brings those). Limits, and so the place that is
    # found, may move as well. A machine that is replaced takes the newest of all three.
    ignore_changes = [
      availability_domain,
      metadata,
      source_details[0].source_id,
    ]

    # Not where the variable is checked: before Terraform 1.9 a check there knows the variable alone.
    precondition {
      condition     = fileexists("${path.root}/${each.value.user_data}")
      error_message = "The user-data of ${each.key} is not there: `backup-mx build` writes ${each.value.user_data}."
    }

    precondition {
      condition     = local.availability_domain != ""
      error_message = "Oracle gives this tenancy no ${var.shape} in ${var.region}. Is that its home region? Otherwise name an availability_domain."
    }

    precondition {
      condition     = var.availability_domain != null ? true : length(var.relays) <= lookup(local.places, local.found, 0)
      error_message = "There are ${length(var.relays)} relays, but Oracle gives this tenancy only ${lookup(local.places, local.found, 0)} of ${var.shape} in ${var.region}."
    }

    precondition {
      condition     = var.may_cost || (var.shape == local.free_shape && length(var.relays) <= local.free_count)
      error_message = "Oracle gives ${local.free_count} machines of ${local.free_shape} for free, and this is more. If it may cost money, say may_cost = true."
    }

    precondition {
      condition     = length(data.oci_core_images.ubuntu.images) > 0
      error_message = "Oracle lists no image of Ubuntu 24.04 for ${var.shape} in ${var.region}."
    }

    # Oracle counts both, user_data as base64, and refuses 32,001 bytes only when the machine starts.
    precondition {
      condition     = try(length(filebase64("${path.root}/${each.value.user_data}")), 0) + length(join("\n", var.ssh_keys)) <= 32000
      error_message = "The user-data of ${each.key} and the SSH keys are larger than the 32,000 bytes that Oracle takes."
    }
  }
}
