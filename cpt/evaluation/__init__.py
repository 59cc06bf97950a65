"""The numbers of one run."""
