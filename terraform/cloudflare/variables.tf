# `backup-mx build` writes all of these to backup-mx.auto.tfvars.json, from backup-mx.toml. It has
# checked them already; the checks here are for whoever writes that file by hand.

variable "zones" {
  description = "The zones by name: the ID that Cloudflare shows on the zone's page, and how many records its plan allows."
  type = map(object({
    id           = string
    record_limit = number
  }))

  validation {
    condition     = alltrue([for each in values(var.zones) : can(regex("^[0-9a-f]{32}$", each.id))])
    error_message = "A zone's ID is 32 digits and small letters from a to f, as Cloudflare shows it on the zone's page."
  }

  validation {
    condition     = alltrue([for each in values(var.zones) : each.record_limit > 0])
    error_message = "The limit is a number of records: 200 in a free zone made after 1 September 2024, 1000 in an older one."
  }

  validation {
    condition     = length(var.zones) > 0
    error_message = "There is at least one zone."
  }
}

variable "evidence" {
  description = "The file in which the gates tell what they have found, its path counted from the folder where Terraform runs."
  type        = string

  validation {
    condition     = !startswith(var.evidence, "/") && endswith(var.evidence, ".json")
    error_message = "The evidence is a file of JSON, its path counted from the folder where Terraform runs."
  }
}

variable "config" {
  description = "The hash of backup-mx.toml's options: the evidence has to be about them."
  type        = string

  validation {
    condition     = can(regex("^[0-9a-f]{64}$", var.config))
    error_message = "The config's hash is the SHA-256 that `backup-mx build` writes."
  }
}

variable "tool" {
  description = "Which backup-mx has built, to the byte: the evidence has to be by the same one, since another may judge by less."
  type        = string

  validation {
    condition     = can(regex("^[0-9]", var.tool))
    error_message = "The tool's version is that which `backup-mx build` writes."
  }
}

variable "gates" {
  description = "All gates, each with the records, A or MX, that are not published without it: one that the evidence lacks has not run."
  type        = map(list(string))

  validation {
    condition     = alltrue([for kind in ["A", "MX"] : contains(flatten(values(var.gates)), kind)])
    error_message = "Each record waits for gates: those that `backup-mx build` writes."
  }
}

variable "relays" {
  description = <<-EOT
    The relays by name. zone is the one that its hostname is in, null if that is published
    elsewhere; version is that of the bundle that was built; domains says whose mail exchanger it
    becomes: each domain, and the zone that it is in.
  EOT
  type = map(object({
    hostname   = string
    zone       = optional(string)
    address    = string
    version    = string
    preference = number
    domains    = map(string)
  }))

  validation {
    condition     = alltrue([for each in values(var.relays) : can(cidrhost("${each.address}/32", 0)) || can(cidrhost("${each.address}/128", 0))])
    error_message = "A relay's address is an IPv4 or IPv6 address."
  }

  validation {
    condition     = alltrue([for each in values(var.relays) : can(regex("^[a-z0-9-]+(\\.[a-z0-9-]+)+$", each.hostname))])
    error_message = "Each relay's hostname is a full one in small letters: mx2.example.org, for example."
  }

  validation {
    condition     = alltrue([for each in values(var.relays) : can(regex("^[0-9a-f]{64}$", each.version))])
    error_message = "A bundle's version is the SHA-256 that `backup-mx build` writes."
  }

  validation {
    condition     = alltrue([for each in values(var.relays) : each.preference >= 1 && each.preference <= 65535])
    error_message = "A preference is a number from 1 to 65535, greater than the primary's own: mail goes to the smallest first."
  }

  validation {
    condition     = alltrue([for each in values(var.relays) : each.zone == null ? true : endswith(".${each.hostname}", ".${each.zone}")])
    error_message = "A relay's hostname is in its zone."
  }

  validation {
    condition     = alltrue(flatten([for each in values(var.relays) : [for domain, zone in each.domains : endswith(".${domain}", ".${zone}")]]))
    error_message = "A domain is in its zone."
  }
}
