"""The Python interface: ``cpt.load``, ``cpt.fit``, ``cpt.results`` (docs/use.md)."""
