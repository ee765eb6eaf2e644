"""What runs on, or is asked of, a relay. Imports nothing of ours but errors and net."""
