"""Kits: what the primary and the edge need so that they take the drain."""
