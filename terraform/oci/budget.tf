# A mail as soon as anything costs money. All of this is meant to cost none.

resource "oci_budget_budget" "any" {
  # Budgets belong to the tenancy, and this one watches all of it.
  compartment_id = var.tenancy
  target_type    = "COMPARTMENT"
  targets        = [var.tenancy]
  display_name   = "backup-mx"
  description    = "What a relay costs: nothing."
  # The smallest there is, in the tenancy's currency.
  amount       = 1
  reset_period = "MONTHLY"
}

resource "oci_budget_alert_rule" "any" {
  budget_id      = oci_budget_budget.any.id
  display_name   = "backup-mx-any-spend"
  type           = "ACTUAL"
  threshold_type = "PERCENTAGE"
  # A hundredth of the unit.
  threshold  = 1
  recipients = var.budget_mail
  message    = "Something in this Oracle tenancy costs money. A relay of backup-mx should not: see docs/deploy.md."
}
