"""MTA-STS (RFC 8461): the policy of a config, and what the world makes of the one it sees."""
