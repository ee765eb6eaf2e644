# `backup-mx build` writes all of these to backup-mx.auto.tfvars.json, from backup-mx.toml. It has
# checked them already; the checks here are for whoever writes that file by hand.

variable "tenancy" {
  description = "The OCID of the tenancy, which is the account."
  type        = string

  validation {
    condition     = startswith(var.tenancy, "ocid1.tenancy.")
    error_message = "The tenancy is an OCID that begins with ocid1.tenancy: Oracle shows it under Tenancy details."
  }
}

variable "compartment" {
  description = "The OCID of the compartment that everything is put into: the tenancy itself is one."
  type        = string

  validation {
    condition     = startswith(var.compartment, "ocid1.compartment.") || startswith(var.compartment, "ocid1.tenancy.")
    error_message = "The compartment is an OCID that begins with ocid1.compartment, or the tenancy's."
  }
}

variable "region" {
  description = "The tenancy's home region. Oracle gives free machines nowhere else."
  type        = string

  validation {
    condition     = can(regex("^[a-z]{2}(-[a-z]+)+-[0-9]+$", var.region))
    error_message = "The region is written as Oracle does: eu-frankfurt-1, for example."
  }
}

variable "profile" {
  description = "The section of ~/.oci/config that says who asks; null for what the environment says."
  type        = string
  default     = null

  validation {
    condition     = var.profile == null ? true : length(var.profile) > 0
    error_message = "The profile is the name of a section in ~/.oci/config: DEFAULT, for example."
  }
}

variable "availability_domain" {
  description = "Where the machines stand; null to find out where Oracle gives this tenancy the shape."
  type        = string
  default     = null

  validation {
    condition     = var.availability_domain == null ? true : can(regex("^[A-Za-z0-9]+:.+-AD-[0-9]$", var.availability_domain))
    error_message = "The availability domain is written in full, with the tenancy's own letters: Uocm:PHX-AD-1, for example."
  }
}

variable "shape" {
  description = "The kind of machine. One of fixed size: VM.Standard.E2.1.Micro is free."
  type        = string
  default     = "VM.Standard.E2.1.Micro"

  validation {
    condition     = can(regex("^VM\\.[A-Za-z0-9.]+$", var.shape)) && !endswith(var.shape, ".Flex")
    error_message = "The shape is a virtual machine of fixed size such as VM.Standard.E2.1.Micro. For one that ends in .Flex, cores and memory would have to be told."
  }
}

variable "boot_volume_gb" {
  description = "The size of each machine's own disk, in GB. It dies with the machine."
  type        = number
  default     = 50

  validation {
    condition     = var.boot_volume_gb >= 50 && var.boot_volume_gb == floor(var.boot_volume_gb)
    error_message = "The machine's own disk has 50 GB or more, in whole GB: Oracle makes no smaller one."
  }
}

variable "may_cost" {
  description = "Whether what is asked for may be more than Oracle gives for free."
  type        = bool
  default     = false

  validation {
    condition     = var.may_cost != null
    error_message = "Say true or false."
  }
}

variable "network" {
  description = "The machines' own network, which nobody else sees."
  type        = string
  default     = "172.30.255.0/28"

  validation {
    condition     = can(cidrsubnet(var.network, 0, 0)) && can(regex("/(1[6-9]|2[0-9]|30)$", var.network))
    error_message = "The network is an IPv4 network from /16 to /30 such as 172.30.255.0/28."
  }
}

variable "acme" {
  description = "Whether an authority comes in at port 80 to look, before it certifies a relay."
  type        = bool
  default     = true

  validation {
    condition     = var.acme != null
    error_message = "Say true or false of acme."
  }
}

variable "mta_sts" {
  description = "Whether senders fetch the MTA-STS policy from a relay, at port 443."
  type        = bool
  default     = false

  validation {
    condition     = var.mta_sts != null
    error_message = "Say true or false of mta_sts."
  }
}

variable "ssh_from" {
  description = "IPv4 networks that may connect to SSH."
  type        = list(string)

  validation {
    condition     = length(var.ssh_from) > 0 && alltrue([for each in var.ssh_from : can(cidrnetmask(each))])
    error_message = "SSH takes at least one IPv4 network such as 198.51.100.0/24: with none, nobody could log in."
  }
}

variable "metrics_from" {
  description = "IPv4 networks that may fetch metrics."
  type        = list(string)
  default     = []

  validation {
    condition     = alltrue([for each in var.metrics_from : can(cidrnetmask(each))])
    error_message = "Metrics are fetched from IPv4 networks such as 198.51.100.0/24."
  }
}

variable "dashboard_from" {
  description = "IPv4 networks that may open the dashboard."
  type        = list(string)
  default     = []

  validation {
    condition     = alltrue([for each in var.dashboard_from : can(cidrnetmask(each))])
    error_message = "The dashboard is opened from IPv4 networks such as 198.51.100.0/24."
  }
}

variable "ssh_keys" {
  description = "Public SSH keys that may log in, each one line."
  type        = list(string)

  validation {
    condition     = length(var.ssh_keys) > 0 && alltrue([for each in var.ssh_keys : can(regex("^(ssh|ecdsa|sk)-[^ ]+ [A-Za-z0-9+/=]+", each))])
    error_message = "Name at least one public SSH key, one line of a .pub file each: without any, nobody could log in."
  }
}

variable "console_key" {
  description = "The public SSH key that opens the machines' serial consoles; null to leave them shut."
  type        = string
  default     = null

  validation {
    condition     = var.console_key == null ? true : startswith(var.console_key, "ssh-rsa ")
    error_message = "The console's key is an RSA key, one line that begins with ssh-rsa: Oracle's console takes no other."
  }
}

variable "budget_mail" {
  description = "Who is told when anything costs money."
  type        = string

  validation {
    condition     = can(regex("^[^@ ,]+@[^@ ,]+\\.[^@ ,]+$", var.budget_mail))
    error_message = "Name one mail address to tell when anything costs money."
  }
}

variable "relays" {
  description = <<-EOT
    The relays by name. address is null until Oracle has reserved one and it stands in
    backup-mx.toml; user_data is the path of the file that the machine boots from, counted from the
    folder where Terraform runs, and null as long as there is to be no machine; volume_gb is the size
    of the volume with the queue, null for none.
  EOT
  type = map(object({
    hostname  = string
    address   = optional(string)
    user_data = optional(string)
    volume_gb = optional(number)
    ssh_port  = optional(number, 22)
  }))

  validation {
    condition     = length(var.relays) > 0 && alltrue([for name in keys(var.relays) : can(regex("^[a-z0-9][a-z0-9-]*$", name))])
    error_message = "There is at least one relay, each with a name of small letters, digits and hyphens."
  }

  validation {
    condition     = alltrue([for each in values(var.relays) : can(regex("^[a-z0-9-]+(\\.[a-z0-9-]+)+$", each.hostname))])
    error_message = "Each relay's hostname is a full one in small letters: mx2.example.org, for example."
  }

  validation {
    condition     = alltrue([for each in values(var.relays) : each.address == null ? true : can(cidrnetmask("${each.address}/32"))])
    error_message = "A relay's address is an IPv4 address: Oracle reserves no other."
  }

  validation {
    condition     = alltrue([for each in values(var.relays) : (each.address == null) == (each.user_data == null)])
    error_message = "A relay has both its address and its user-data, or neither yet: the address is written into the user-data."
  }

  validation {
    condition     = alltrue([for each in values(var.relays) : each.user_data == null ? true : !startswith(each.user_data, "/")])
    error_message = "The path of a relay's user-data counts from the folder where Terraform runs."
  }

  validation {
    condition     = alltrue([for each in values(var.relays) : each.volume_gb == null ? true : each.volume_gb >= 50 && each.volume_gb == floor(each.volume_gb)])
    error_message = "A queue's volume has 50 GB or more, in whole GB: Oracle makes no smaller one."
  }

  validation {
    condition     = alltrue([for each in values(var.relays) : each.ssh_port >= 1 && each.ssh_port <= 65535 && each.ssh_port == floor(each.ssh_port)])
    error_message = "SSH is at a port from 1 to 65535."
  }
}
