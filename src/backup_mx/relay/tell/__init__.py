"""What is told to people and programs: conditions, notices, metrics."""
