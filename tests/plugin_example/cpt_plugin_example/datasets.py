"""An entry of the catalog; one with image files gives their folder as `root`, an absolute path."""

from typing import Any


def few_land() -> dict[str, Any]:
    """Few images of a generated dataset."""
    return {
        "title": "Few Land",
        "layout": "embedded",
        "key": "land",
        "template": "a photo of {}.",
        "per_class": {"train": 8, "test": 4},
    }
