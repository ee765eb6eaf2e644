"""What runs inside relay.pyz, alone: the standard library only, Python 3.11 and newer."""
