"""Formats of a table's files, one module each: its name is the suffix, ``write`` the text of a table."""
