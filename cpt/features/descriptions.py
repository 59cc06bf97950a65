"""Class descriptions as text knowledge: sentences about every class, and their frozen features.

The file is JSON, ``{"class name": ["a sentence", ...], ...}``, with equally many sentences per class, as in repo
ShuvenduRoy/CoPrompt, gpt_file. For a dataset without a file, a template set filled with the class names is used
instead; the metadata of the features record it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from cpt.clip.backbone import Clip
from cpt.errors import CptError, nearest
from cpt.features.text import tokenize
from cpt.files.stage_files import parse_json, read_tensors, sha256_file, write_tensors
from cpt.validation import is_unicode

SCHEMA = "cpt.descriptions/1"


def read_description_file(path: Path, names: Sequence[str]) -> list[list[str]]:
    """Return the sentences of every class, D each, in the order of ``names``.

    Underscores in names count as spaces.

    Raises:
        CptError: the file is missing or not such JSON, lacks a class, or has different numbers of sentences per class.
    """
    try:
        described = parse_json(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise CptError(f"{path}: no such file of class descriptions; correct or delete `descriptions`") from None
    except OSError as error:
        raise CptError(f"{path}: cannot be read ({error.strerror}); correct or delete `descriptions`") from None
    except ValueError as error:
        raise CptError(f"{path}: not JSON ({error}); write {{class name: [sentence, ...]}}") from None
    if not isinstance(described, dict) or not described:
        raise CptError(f"{path}: must be an object {{class name: [sentence, ...]}}")
    known = {name.replace("_", " "): sentences for name, sentences in described.items()}
    found = []
    for name in names:
        sentences = known.get(name.replace("_", " "))
        if sentences is None:
            raise CptError(f"{path}: describes no class {name!r}; {nearest(name, known)}")
        if not isinstance(sentences, list) or not sentences or not all(map(_is_sentence, sentences)):
            raise CptError(f"{path}: {name}: must be a list of sentences; write {{class name: [sentence, ...]}}")
        found.append(sentences)
    for name, sentences in zip(names, found, strict=True):
        if len(sentences) != len(found[0]):
            raise CptError(
                f"{path}: {name} has {len(sentences)} sentences, {names[0]} has {len(found[0])}; give every class "
                "equally many"
            )
    return found


def _is_sentence(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip()) and is_unicode(value)


@torch.no_grad()
def make_descriptions(
    clip: Clip,
    tokenizer: Callable[..., Tensor],
    names: Sequence[str],
    output: Path,
    *,
    file: Path | None = None,
    templates: Sequence[str] = (),
    templates_name: str = "",
) -> int:
    """Write the frozen features of D descriptions per class, (D, C, dim) with unit norm; return D.

    Args:
        names: C class names in label order.
        file: the dataset's descriptions.
        templates: used without a file, with the class name in place of ``{}``.
        templates_name: name of the template set, for the record.

    Raises:
        CptError: a description is too long for the backbone's context, or as ``read_description_file``.
    """
    if file is not None:
        sentences = read_description_file(file, names)
        knowledge = {"kind": "file", "file": file.name, "sha256": sha256_file(file), "per_class": len(sentences[0])}
    else:
        sentences = [[template.replace("{}", name) for template in templates] for name in names]
        knowledge = {"kind": "templates", "templates": templates_name, "per_class": len(templates)}
    features = []
    for texts in zip(*sentences, strict=True):
        try:
            tokens = tokenize(tokenizer, texts, clip.text.context_length)
        except CptError as error:
            raise CptError(f"{file or f'templates {templates_name!r}'}: {error}") from None
        features.append(F.normalize(clip.text(clip.text.pack(tokens)), dim=-1).cpu())
    write_tensors(output, {"features": torch.stack(features)}, SCHEMA, classes=list(names), text_knowledge=knowledge)
    return len(features)


def read_descriptions(path: Path, device: torch.device | str = "cpu") -> tuple[Tensor, dict]:
    """Return (D, C, dim) unit-norm features of all classes of a dataset, and the file's metadata."""
    tensors, metadata = read_tensors(path, SCHEMA)
    return tensors["features"].to(device), metadata
