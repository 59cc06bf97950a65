"""Features and clusters computed once from the frozen towers."""
