"""What an experiment takes: hours, memory, disk."""
