"""What the agent does all day: small tasks that act on what was decided."""
