terraform {
  # plantimestamp and strcontains: Terraform 1.5, or OpenTofu 1.6.
  required_version = ">= 1.5.0"

  required_providers {
    cloudflare = {
      source = "cloudflare/cloudflare"
      # cloudflare_dns_record is new in version 5.
      version = "~> 5.0"
    }
  }
}

# The token comes from the environment (CLOUDFLARE_API_TOKEN), so it stands in no file here. It needs
# "DNS: Edit" for these zones, and nothing else.
provider "cloudflare" {}
