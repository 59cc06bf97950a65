"""The largest values that users may give."""

SEED = 2**63 - 1
"""Tables hold seeds as 64-bit numbers."""
THREADS = 1024
NAME = 100
"""Letters of a name that files and folders are called by."""
