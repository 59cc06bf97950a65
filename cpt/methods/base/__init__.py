"""Base class, losses, prompts and layers that methods share."""
