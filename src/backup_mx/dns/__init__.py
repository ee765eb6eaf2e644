"""What of the relays stands in DNS: wanted, seen at every name server, planned, published.

    config, facts ──> wanted ─┐
                              ├─> plan ──> publish ──> seen again
    every name server ─> seen ┘    └──> judge ──> findings

Nothing here needs a state of its own: what is there is looked at each time.
"""
