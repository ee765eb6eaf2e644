"""What a Prometheus of the operator's needs to know of the relays, and the runbook."""
