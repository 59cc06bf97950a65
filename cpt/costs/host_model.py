"""What an experiment takes beside its GPU's work: seconds of CPU cores, and of jobs that wait. All in one place."""

from __future__ import annotations

AUGMENT = {"none": 0.0, "rrc_flip": 1.2e-3, "rrc_half_flip": 1.5e-3, "rand_augment": 0.7e-3}
"""Core seconds in which a decoded photograph becomes a training image, before it is normalized on the GPU; measured on
one core of a Xeon (row `augmentation` of docs/performance.md normalizes too)."""
DECODE = 1.7e-3
"""Core seconds to decode a JPEG of 500 x 375; measured there too. A run decodes every image once, if there is room
for all of them (16,000 take 9 GB)."""
CACHE = 4.3e-3
"""Core seconds of an image of an image cache: row `cache` of docs/performance.md."""
START, START_CPU = 4.0, 0.3
"""Seconds from a job's start to its first step or image. With a GPU (libraries, CUDA, weights, capture): assumed, 3 to
5. Without: row `startup` of docs/performance.md, by the fork server."""
EPOCH, EPOCH_CLASS = 5e-3, 5e-5
"""Seconds of the measures after an epoch, and more for each class; measured on one core of a Xeon."""
PREDICTION = 1e-5
"""Seconds of a test image's row of predictions; measured there too."""
SCORE, SCORE_IMAGE = 0.3, 1e-5
"""Core seconds of scoring a run, and more for each of its test images. Assumed."""
REPORT, REPORT_RUN = 5.0, 0.1
"""Seconds of a table, a figure or a page, and of gathering a run. Assumed."""
SHARING = 0.9
"""Share of its time that a GPU computes while several runs wait for it. Assumed."""


def epoch(classes: int) -> float:
    """Seconds after an epoch."""
    return EPOCH + EPOCH_CLASS * classes
