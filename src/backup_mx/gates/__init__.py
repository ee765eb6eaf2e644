"""The gates: what has to be seen of a relay before DNS names it, and is seen again afterwards.

gate.py ── what a gate is ──> one module a subject ──> run.py ── side by side ──> evidence.py
"""
