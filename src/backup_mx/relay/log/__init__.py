"""Postfix's log: followed line by line, each exactly once, and what each line tells."""
