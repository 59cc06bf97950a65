"""What an experiment will take."""
