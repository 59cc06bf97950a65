"""What is computed once from the frozen towers."""
