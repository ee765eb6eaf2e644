terraform {
  # As terraform/cloudflare. OpenTofu begins with 1.6.
  required_version = ">= 1.5.0"

  required_providers {
    oci = {
      source = "oracle/oci"
      # The newest that is there at the first `init`; .terraform.lock.hcl keeps it from then on.
      version = ">= 6.0.0"
    }
  }
}

# Who asks is told by Oracle's own config file (~/.oci/config), so no key stands in any file here.
provider "oci" {
  region              = var.region
  config_file_profile = var.profile
}
