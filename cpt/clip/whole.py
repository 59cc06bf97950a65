"""Image towers that are not transformers of our kind, kept as open_clip's own modules: frozen, without prompts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from cpt.clip.blocks import BlockAdapter, Prompts
from cpt.clip.inside import Inside
from cpt.clip.vision import VisionTower


def build(config: Mapping[str, Any]) -> Any:
    """Return open_clip's image tower of a model configuration, with random weights; no other stream is drawn from.

    Args:
        config: ``embed_dim, vision_cfg`` and ``quick_gelu`` of the model.
    """
    from open_clip.model import _build_vision_tower

    vision = {**config["vision_cfg"], "timm_model_pretrained": False}
    with torch.random.fork_rng(devices=[]):
        return _build_vision_tower(config["embed_dim"], vision, config.get("quick_gelu", False))


class WholeTower(VisionTower):
    """A frozen image tower as open_clip builds it.

    Args:
        tensors: its weights by open_clip's names without the ``visual.`` prefix.
        spec: ``name, image_size, width`` (of its features), and ``whole``, what ``build`` needs.
    """

    def __init__(self, tensors: Mapping[str, Tensor], spec: Mapping) -> None:
        nn.Module.__init__(self)
        self.name, self.image_size, self.blocks = spec["name"], spec["image_size"], nn.ModuleList()
        self._width = spec["width"]
        model = build(spec["whole"]).requires_grad_(False).eval()  # statistics of batches stay as they are
        model.load_state_dict(tensors)
        self.model = model.to(next(iter(tensors.values())).device)

    @property
    def width(self) -> int:
        """Width of its features: it has no stream of tokens."""
        return int(self._width)

    @property
    def inside(self) -> Inside:
        """It offers nothing to methods that change it."""
        return Inside(self.name, blocks=False, class_token=False)

    def forward(
        self,
        images: Tensor,
        prompts: Tensor | None = None,
        deep: Mapping[int, Prompts] | None = None,
        adapters: Mapping[int, BlockAdapter] | None = None,
        *,
        tokens: int | None = None,
    ) -> Tensor:
        """Encode images (B, 3, H, W), normalized: raw features (B, D), float32. Nothing else may be given."""
        if prompts is not None or deep or adapters or tokens is not None:
            raise ValueError(f"{self.name} takes neither prompts nor adapters and has no tokens")
        return self.model(images.to(next(self.model.parameters()).dtype)).float()
