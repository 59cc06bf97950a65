"""The numbers of all runs, and their statistics."""
