"""Methods, one module each; the registry finds them by module name."""
