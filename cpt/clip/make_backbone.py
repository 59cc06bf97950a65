"""Making the backbone of an experiment from an unmodified open_clip model, and the tokenizer that belongs to it."""

from __future__ import annotations

import contextlib
import json
import logging
import tempfile
from collections.abc import Callable, Iterator
from math import isfinite
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cpt.clip import hf_encoder, tiny, weights
from cpt.clip.backbone import SCHEMA
from cpt.clip.export import CONTEXT_LENGTH, export, require_config, require_model, text_pool, verify
from cpt.clip.export import inside as inside_of
from cpt.clip.foreign import ForeignTokenizer
from cpt.clip.inside import Inside
from cpt.clip.tiny import EMBEDDED
from cpt.data.images import PLAIN, RESIZINGS, Resizing
from cpt.errors import CptError, close, nearest
from cpt.files.stage_files import parse_json, read_json, sha256_file, write_json, write_tensors


def make_backbone(
    name: str, architecture: str, pretrained: str, output: Path, sha256: str | None = None
) -> tuple[int, float]:
    """Write ``output`` (backbone.json) and the towers' tensors beside it.

    The file's hash is part of every run's identity, so it holds no number that depends on the machine.

    Args:
        name: what tables call the backbone.
        architecture: ``embedded`` for a tiny CLIP of a generated world, a model name of open_clip, or the
            path of a model configuration of open_clip (.json).
        pretrained: a tag of open_clip's registry, the path of a checkpoint, or ``random``. Of ``embedded``, ``shipped``
            for the one that comes with the package, or the folder that ``cpt pretrain`` wrote.
        sha256: checksum that the file of the weights must have.

    Returns:
        The number of the model's parameters, and the largest difference to open_clip (``cpt.clip.export.verify``).

    Raises:
        CptError: unknown name or tag, weights out of reach or of another checksum, or an architecture that the towers
            do not support.
    """
    _require_file(architecture, pretrained, sha256)
    if architecture == EMBEDDED:
        config: dict[str, Any] | None = None
        marks = None
        model, described = tiny.for_backbone(pretrained)
    else:
        _, config = _configuration(architecture)
        model, described, marks = _open_clip(architecture, pretrained, sha256)
    model = model.float().eval()
    tensors, spec = export(model, config, marks)
    with _building(architecture):
        difference = verify(model, tensors, spec)
    parameters = sum(p.numel() for p in model.parameters())
    file = output.with_suffix(".safetensors")
    write_tensors(file, {name: _halved(tensor) for name, tensor in tensors.items()}, "cpt.towers/1")
    described |= {"schema": SCHEMA, "name": name, "architecture": architecture, "pretrained": pretrained}
    described |= {"weights": file.name, "sha256": sha256_file(file), "spec": spec, "parameters": parameters}
    write_json(output, described)
    return parameters, difference


def _halved(tensor: Tensor) -> Tensor:
    """Return a tensor as float16 if that loses nothing: weights published in float16 are half the bytes to read."""
    if not tensor.is_floating_point():
        return tensor
    half = tensor.half()
    return half if torch.equal(half.float(), tensor) else tensor


def check(architecture: str, pretrained: str, sha256: str | None = None) -> tuple[Callable[..., Tensor], int]:
    """Refuse what ``make_backbone`` would refuse before it downloads or builds anything.

    Returns:
        The tokenizer, and how many tokens a text may have.

    Raises:
        CptError: as ``make_backbone``.
    """
    _require_file(architecture, pretrained, sha256)
    if architecture == EMBEDDED:
        with tiny.files(pretrained) as folder:
            return tiny.tokenizer(folder / tiny.MERGES), tiny.CONTEXT_LENGTH

    own, config = _configuration(architecture)
    local = _local(pretrained)
    if local:
        weights.require_there(local)
    entry = _entry(architecture, pretrained, local)
    if entry:
        _require_activation(architecture, pretrained, config, entry)
    tokenizer, length = _tokenizer(architecture, own, config), config["text_cfg"].get("context_length", CONTEXT_LENGTH)
    begins = not isinstance(tokenizer, ForeignTokenizer) or "start" in tokenizer.marks
    return tokenizer, int(length) + (not begins)


def described(architecture: str) -> dict[str, Any]:
    """Return the configuration of a model as open_clip has it: ``embed_dim``, ``text_cfg`` and ``vision_cfg``.

    Raises:
        CptError: unknown or unsupported architecture.
    """
    return tiny.configuration(0) if architecture == EMBEDDED else _configuration(architecture)[1]


def inside(architecture: str) -> Inside:
    """Return what the image tower of an architecture offers to methods that change it.

    Raises:
        CptError: unknown architecture, or one that open_clip cannot build.
    """
    if architecture == EMBEDDED:
        return Inside("VisionTransformer")
    _, config = _configuration(architecture)
    with _quiet(), _building(architecture):
        return inside_of(config)


def load_tokenizer(path: Path) -> Callable[..., Tensor]:
    """Return open_clip's tokenizer of a backbone: (texts, context_length) -> token ids (texts, context length)."""
    record = read_json(path, SCHEMA)
    if record["architecture"] == EMBEDDED:
        return tiny.tokenizer_of(record)
    own = record.get("model_config")
    config = own["model_cfg"] if own else _configuration(record["architecture"])[1]
    return _tokenizer(record["architecture"], own, config)


def _tokenizer(architecture: str, own: dict[str, Any] | None, config: dict[str, Any]) -> Callable[..., Tensor]:
    """The tokenizer of a model configuration."""
    import open_clip

    text = config["text_cfg"]
    with _quiet():
        if text.get("hf_tokenizer_name"):
            tokenizer = ForeignTokenizer(text)
            if name := text.get("hf_model_name"):
                found = hf_encoder.require_config(text, config["embed_dim"])
                hf_encoder.require_tokenizer(found, tokenizer, int(text.get("context_length", CONTEXT_LENGTH)), name)
            return tokenizer
        with _named(architecture, own) as name:
            return open_clip.get_tokenizer(name)


def _open_clip(
    architecture: str, pretrained: str, sha256: str | None
) -> tuple[torch.nn.Module, dict[str, Any], dict[str, int] | None]:
    """Return a model of open_clip and what its record says besides: preprocessing, source, own configuration.

    The last is what a tokenizer of transformers needs of the tower.

    What can be refused is refused before anything is downloaded.
    """
    import open_clip

    own, config = _configuration(architecture)
    local = _local(pretrained)
    found = weights.local_file(local) if local else None
    entry = _entry(architecture, pretrained, local)
    if entry:
        _require_activation(architecture, pretrained, config, entry)

    with _building(architecture):
        tokenizer = _tokenizer(architecture, own, config)
    model = _build(architecture, own, {} if own else entry)
    preprocess = open_clip.get_model_preprocess_cfg(model)
    resizing = Resizing(preprocess["resize_mode"], preprocess["interpolation"])
    if resizing not in RESIZINGS:
        words, known = f"{resizing.mode}, {resizing.interpolation}", "shortest or squash, bicubic or bilinear"
        raise CptError(f"backbone: {architecture} resizes by {words}; supported: {known}")
    require_model(model)
    described: dict[str, Any] = {"image_mean": list(preprocess["mean"]), "image_std": list(preprocess["std"])}
    if resizing != PLAIN:
        described["image_resize"] = [resizing.mode, resizing.interpolation]
    described |= {"model_config": own} if own else {}
    _require_tokenizer(tokenizer, model, architecture)
    if pretrained != "random":
        path, described["source"] = found or weights.hub_file(entry, pretrained)
        weights.require_checksum(path, described["source"]["sha256"], entry, sha256)
        weights.load(model, path, architecture)
    return model, described, tokenizer.marks if isinstance(tokenizer, ForeignTokenizer) else None


def _configuration(architecture: str) -> tuple[dict[str, Any] | None, dict[str, Any]]:
    """Return what an own file holds, None for a model of open_clip, and the model's configuration."""
    import open_clip

    own = _read_own(Path(architecture)) if architecture.endswith(".json") else None
    if own is None and architecture not in open_clip.list_models():
        meant = close(architecture, open_clip.list_models())
        fix = (
            f"did you mean {meant!r}?" if meant else "give one of open_clip.list_models(), or a .json file of your own"
        )
        raise CptError(f"backbone.architecture: unknown model {architecture!r}; {fix}")
    config = own["model_cfg"] if own else open_clip.get_model_config(architecture)
    require_config(config)
    return own, config


def _local(pretrained: str) -> Path | None:
    """The user's own file of weights."""
    return Path(pretrained) if Path(pretrained).suffix in weights.SUFFIXES else None


def _require_file(architecture: str, pretrained: str, sha256: str | None) -> None:
    if sha256 and (architecture == EMBEDDED or pretrained == "random"):
        raise CptError("backbone.sha256: embedded and random weights have no file to compare; delete it")


def _entry(architecture: str, pretrained: str, local: Path | None) -> dict[str, Any]:
    """Return the registry's entry of the weights: activation, preprocessing, repository; empty if it has none."""
    if local:
        return weights.entry_of_file(architecture, local)
    if pretrained == "random":
        return {}
    known = weights.entries(architecture)  # none for an own architecture
    if pretrained not in known:
        raise CptError(
            f"backbone.pretrained: unknown tag {pretrained!r} for {architecture}; "
            f"{nearest(pretrained, [*known, 'random', '<file>.safetensors'])}"
        )
    return known[pretrained]


def _require_activation(architecture: str, pretrained: str, config: dict[str, Any], entry: dict[str, Any]) -> None:
    """Refuse a model whose activation is not the one its weights were trained with: it runs and is worse."""
    import open_clip

    trained, built = (bool(source.get("quick_gelu")) for source in (entry, config))
    own = architecture.endswith(".json")
    if trained != built and (own or weights.sibling(architecture) in open_clip.list_models()):  # else the one there is
        names = {True: "QuickGELU", False: "GELU"}
        set_it = f"set quick_gelu: {str(trained).lower()} in it"
        raise CptError(
            f"backbone.architecture: the weights {pretrained!r} were trained with {names[trained]}, {architecture} has "
            f"{names[built]}; {set_it if own else f'use {weights.sibling(architecture)}'}"
        )


def _read_own(path: Path) -> dict[str, Any]:
    """Return a model configuration as open_clip's repositories hold it: ``model_cfg`` and ``preprocess_cfg``."""

    def refused(problem: object) -> CptError:
        return CptError(f"backbone.architecture: {path}: {problem}")

    try:
        held = parse_json(path.read_bytes())
    except OSError as error:
        raise refused(f"{error.strerror or error}; give a .json file that you can read") from None
    except ValueError as error:
        raise refused(f"not JSON: {error}; write it as open_clip does (docs/backbones.md)") from None
    model = held.get("model_cfg", held) if isinstance(held, dict) else {}
    keys = ("embed_dim", "vision_cfg", "text_cfg")
    if lacking := [key for key in keys if not isinstance(model, dict) or key not in model]:
        raise refused(f"lacks {', '.join(lacking)}; it must be a model configuration of open_clip (docs/backbones.md)")
    if not all(isinstance(model[key], dict) for key in keys[1:]):
        raise refused("vision_cfg and text_cfg must be objects, as in open_clip's configurations (docs/backbones.md)")
    preprocess = held.get("preprocess_cfg", {}) if model is not held else {}
    for key in ("mean", "std"):
        values = preprocess.get(key, [0.5] * 3)
        if not isinstance(values, list) or len(values) != 3 or not all(map(_is_number, values)):
            raise refused(f"preprocess_cfg.{key} must be three numbers, as [0.5, 0.5, 0.5]")
    return {"model_cfg": model, "preprocess_cfg": preprocess}


def _is_number(value: object) -> bool:
    return isinstance(value, float | int) and not isinstance(value, bool) and isfinite(value)


def _build(architecture: str, own: dict[str, Any] | None, entry: dict[str, Any]) -> torch.nn.Module:
    """Return the model with random weights."""
    import open_clip

    torch.manual_seed(0)
    with _building(architecture), _quiet(), _named(architecture, own) as name:
        return open_clip.create_model(
            name, load_weights=False, precision="fp32", pretrained_text=False, force_preprocess_cfg=entry
        )


@contextlib.contextmanager
def _building(architecture: str) -> Iterator[None]:
    """Refuse a configuration of one's own that open_clip cannot build, or whose model takes no images of its size."""
    try:
        yield
    except CptError:
        raise
    except Exception as error:  # a configuration can be wrong in as many ways as a constructor can fail
        if not architecture.endswith(".json"):
            raise
        reason = " ".join(str(error).split())
        raise CptError(
            f"backbone.architecture: {architecture}: open_clip cannot build it: {type(error).__name__}: {reason}"
        ) from None


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep open_clip's messages to itself: it warns that weights are random, and ours come after.

    If the root logger has no handler, its first message adds one for good, and Snakemake's lines would appear twice.
    """
    handler, silenced = logging.NullHandler(), logging.root.manager.disable
    logging.root.addHandler(handler)
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(silenced)
        logging.root.removeHandler(handler)


def _require_tokenizer(tokenizer: Any, model: Any, architecture: str) -> None:
    """Refuse token ids that the model's text tower has no rows for, or does not end a text at."""
    text = getattr(model, "text", model)
    if isinstance(tokenizer, ForeignTokenizer):
        return
    rows = text.token_embedding.weight.shape[0]
    if rows < tokenizer.vocab_size:
        raise CptError(
            f"backbone.architecture: {architecture}: text_cfg.vocab_size {rows} is less than the "
            f"{tokenizer.vocab_size} of CLIP's tokenizer; use {tokenizer.vocab_size}"
        )
    pool = text_pool(text)
    end = getattr(text, "text_eos_id", getattr(text, "eos_id", None))
    if pool == "eos" and end != tokenizer.eot_token_id:
        raise CptError(
            f"backbone.architecture: {architecture}: text_cfg.eos_id {end} is not the end token of CLIP's tokenizer; "
            f"use {tokenizer.eot_token_id}"
        )


@contextlib.contextmanager
def _named(architecture: str, own: dict[str, Any] | None) -> Iterator[str]:
    """Yield the name by which open_clip finds a model: its own, or a folder that holds the configuration."""
    if own is None:
        yield architecture
        return
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "open_clip_config.json").write_text(json.dumps(own), encoding="utf-8")
        yield f"local-dir:{folder}"
