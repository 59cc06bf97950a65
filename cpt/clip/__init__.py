"""CLIP: weights, prompted towers, and the pretraining of the tiny model."""
