"""From an address to files."""
