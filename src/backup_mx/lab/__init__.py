"""A whole mail world on one host: real machines, their own internet, drills."""
