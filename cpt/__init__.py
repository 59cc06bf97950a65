"""Reference implementation of long-tailed prompt tuning for CLIP: CPT and the methods it is compared with."""

__version__ = "0.1.0"
