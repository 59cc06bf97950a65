"""One file per method; every module of this package that defines a ``Method`` is found by name."""
