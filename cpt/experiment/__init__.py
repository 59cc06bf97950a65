"""From the configuration to runs."""
