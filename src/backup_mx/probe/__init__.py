"""The probes: what goes on being looked at once a relay is published, as a stranger sees it.

probe.py ── what a probe is ──> one module a subject ──> table.py ── all of them
                                         └── rota.py ── again and again ──> exporter.py
"""
