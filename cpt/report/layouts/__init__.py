"""One module per layout of tables."""
