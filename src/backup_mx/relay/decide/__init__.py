"""What is decided, purely: no I/O, no clock of its own."""
