"""What runs as root, at the agent's or the operator's word or by a timer; and how it is asked."""
