"""Documents, and the scripts that write their numbers."""
