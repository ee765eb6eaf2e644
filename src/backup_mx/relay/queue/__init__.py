"""Postfix's queue: its files, what its commands say of them and do to them, and why mail waits."""
