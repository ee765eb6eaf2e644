"""The dashboard: pages that a relay renders for its operator.

site listens, and loads the rest when somebody comes; application puts it together; guard and
session keep strangers out; overview, pages and forms answer (each a Visit that has passed the
guard); chart and shown turn values into what a person reads, rendering what strangers wrote into
harmless text. All they know of the relay is the View.
"""
