# The serial console, for the day on which nothing else leads in. It is shut unless it has a key.

resource "oci_core_instance_console_connection" "relay" {
  for_each = { for name, machine in oci_core_instance.relay : name => machine.id if var.console_key != null }

  instance_id = each.value
  public_key  = var.console_key
}
