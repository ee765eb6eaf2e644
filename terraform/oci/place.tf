# Where a machine can stand, and what it starts from: asked of Oracle, never written down here.

# Oracle gives the free shape in one availability domain only, which differs between tenancies. The
# limits tell which: all are asked for, since that of the free shape has two names. They are the
# tenancy's, whichever the compartment.
data "oci_limits_limit_values" "shape" {
  compartment_id = var.tenancy
  service_name   = "compute"
  scope_type     = "AD"
}

# The three newest images of each release are listed.
data "oci_core_images" "ubuntu" {
  compartment_id           = var.tenancy
  operating_system         = "Canonical Ubuntu"
  operating_system_version = "24.04"
  shape                    = var.shape
  sort_by                  = "TIMECREATED"
  sort_order               = "DESC"
}

locals {
  free_shape = "VM.Standard.E2.1.Micro"
  free_count = 2
  free_gb    = 200

  # What the limit on machines of the shape is called. That of the free one has another name now; most
  # tenancies list both, with the same value.
  limits = concat(
    ["${lower(replace(var.shape, ".", "-"))}-count"],
    var.shape == local.free_shape ? ["standard-e2-micro-core-count"] : [],
  )
  # How many machines of the shape each availability domain may have, without those that have none.
  granted = {
    for each in data.oci_limits_limit_values.shape.limit_values :
    each.availability_domain => tonumber(each.value)...
    if contains(local.limits, each.name) && try(tonumber(each.value) > 0, false)
  }
  places = { for place, counts in local.granted : place => max(counts...) }
  # The one that takes most of them; "" where none takes any.
  found = try([for name, count in local.places : name if count == max(values(local.places)...)][0], "")

  availability_domain = var.availability_domain == null ? local.found : var.availability_domain

  # A relay whose address is only being reserved has no machine yet.
  machines = { for name, relay in var.relays : name => relay if relay.user_data != null }
  volumes  = { for name, relay in var.relays : name => relay if relay.volume_gb != null }

  total_gb = sum([for relay in values(var.relays) : var.boot_volume_gb + coalesce(relay.volume_gb, 0)])
}
