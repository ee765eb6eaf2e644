"""The account that a relay's machine stands in: what it gives, what it costs, what threatens it.

check ── oracle: Oracle's own SDK, the only caller ──> facts ── judge ──> findings
"""
