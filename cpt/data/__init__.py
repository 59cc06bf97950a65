"""Datasets, real and embedded: what they contain, where they come from, how they are split."""
