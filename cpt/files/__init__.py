"""How files are written, read, hashed and found."""
