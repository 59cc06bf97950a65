"""A running experiment."""
