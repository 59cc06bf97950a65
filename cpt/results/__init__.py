"""All runs' numbers."""
