"""Bytes of weights that `cpt plan` counts, against those of a backbone that is made."""

from __future__ import annotations

from pathlib import Path

import open_clip
import pytest
from huggingface_hub import constants

from cpt.clip.make_backbone import make_backbone
from cpt.costs.backbone_bytes import Weights, to_come
from cpt.experiment.config import Backbone
from cpt.report.terminal.plan import _weights
from tests.clip.test_backbone import COMMIT, OPENAI, SMALL, checkpoint


def backbone(architecture: str = "ViT-B-16-quickgelu", pretrained: str = "openai") -> Backbone:
    return Backbone(name="a", architecture=architecture, pretrained=pretrained)


def test_the_papers_backbone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    found = to_come(backbone(), "results/mine", plain=True)
    assert found == Weights(598_482_948, 598_482_948)
    assert _weights(*found) == ["  weights of CLIP: download about 598 MB into the hub's cache, here up to 598 MB"]


def test_what_is_there_does_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "ViT-B-16-quickgelu", SMALL | {"quick_gelu": True})
    root = tmp_path / "mine"
    size = to_come(backbone(), str(root), plain=True).download
    random = to_come(backbone(pretrained="random"), str(root), plain=True)
    assert random == Weights(0, size)
    make_backbone("a", "ViT-B-16-quickgelu", "random", root / "backbone.json")
    written = (root / "backbone.safetensors").stat().st_size
    assert 0 <= written - size < 10_000, "names and shapes"
    assert to_come(backbone(), str(root), plain=True) == Weights(0, 0)
    (tmp_path / "hub" / OPENAI / "refs").mkdir(parents=True)
    (tmp_path / "hub" / OPENAI / "refs/main").write_text(COMMIT)
    checkpoint(tmp_path / "hub" / OPENAI / "snapshots" / COMMIT / "open_clip_model.safetensors")
    assert to_come(backbone(), str(tmp_path / "other"), plain=True) == Weights(0, size)
    assert to_come(backbone("embedded", "shipped"), str(tmp_path / "other"), plain=True) == Weights(0, 0)
