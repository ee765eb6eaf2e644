"""What an operator asks of a relay: the verbs, what they look at, what they answer."""
