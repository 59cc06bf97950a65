"""Find the weights of an open_clip model on the hub or in a file, and read them without running any code.

open_clip itself would fall back to any file of a repository. Here a file must be safetensors, or something that
``torch.load(weights_only=True)`` accepts.
"""

from __future__ import annotations

import re
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cpt.errors import CptError
from cpt.files.hashes import read_bytes
from cpt.files.stage_files import sha256_file

SUFFIXES = (".safetensors", ".pt", ".pth", ".bin", ".ckpt")
_NOT_WEIGHTS = (
    *("input_resolution", "context_length", "vocab_size"),  # further entries of OpenAI's checkpoints
    *("text.transformer.embeddings.position_ids", "text.transformer.embed_positions.weights"),  # of old transformers
)
_FILES = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")  # where the registry names only the repository
_MENDS = (
    "run `cpt backbone` once where there is internet, set HF_HOME to the cache that has it, "
    "or give backbone.pretrained the path of a .safetensors file"
)


def sibling(architecture: str) -> str:
    """Return the registry's name of the same architecture with the other activation."""
    plain = architecture.removesuffix("-quickgelu")
    return plain if plain != architecture else f"{architecture}-quickgelu"


def entries(architecture: str) -> dict[str, dict[str, Any]]:
    """Return the registry's entries for an architecture by tag, including those of the other activation."""
    from open_clip.pretrained import get_pretrained_cfg, list_pretrained_tags_by_model

    names = (sibling(architecture), architecture)
    return {tag: get_pretrained_cfg(name, tag) for name in names for tag in list_pretrained_tags_by_model(name)}


def entry_of_file(architecture: str, path: Path) -> dict[str, Any]:
    """Return the registry's entry that a local file's name matches, or what the name itself says; else an empty dict.

    A name matches as that of a download: the file name of an entry's address, or a folder named like its repository, as
    in the hub's cache.
    """
    folders = {folder.split("--")[-1] for folder in path.absolute().parts[:-1]}
    for entry in entries(architecture).values():
        repository = entry["hf_hub"].split("/")[1] if entry.get("hf_hub") else None
        if repository in folders or path.name == entry.get("url", "").split("/")[-1]:
            return entry
    return {"quick_gelu": True} if re.search("quick[-_]?gelu", path.name.lower()) else {}


def require_there(path: Path) -> None:
    """Raise a ``CptError`` where there is no local checkpoint."""
    if not path.is_file():
        raise _refused(path, "no such file; give one that is there, or a tag of open_clip")


def local_file(path: Path) -> tuple[Path, dict[str, Any]]:
    """Return a local checkpoint and its source.

    Raises:
        CptError: no such file.
    """
    require_there(path)
    return path, {"file": path.name, "sha256": sha256_file(path)}


def _on_hub(entry: dict[str, Any]) -> tuple[str, tuple[str, ...]]:
    """Return the repository of a registry's entry, empty if it has none, and the names that its file may have."""
    owner, name, given = [*entry.get("hf_hub", "").split("/"), "", ""][:3]
    files = (f"{Path(given).stem}.safetensors", given) if given else _FILES
    return f"{owner}/{name}" if name else "", files


def in_cache(entry: dict[str, Any]) -> Path | None:
    """Return the file of a registry's entry in the hub's cache, without asking the hub; None if it is not there."""
    from huggingface_hub import try_to_load_from_cache

    repository, files = _on_hub(entry)
    places = (try_to_load_from_cache(repository, file) for file in files if repository)
    return next((Path(place) for place in places if isinstance(place, str)), None)


def hub_file(entry: dict[str, Any], tag: str) -> tuple[Path, dict[str, Any]]:
    """Return the file of a registry's entry and its source; download it into the hub's cache if it is not there.

    A cached file is used without asking the hub. Safetensors are preferred; some repositories have only the other file.

    Raises:
        CptError: the file is neither cached nor available; names the file and the fix.
    """
    from huggingface_hub import constants, get_hf_file_metadata, hf_hub_download, hf_hub_url
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    repository, files = _on_hub(entry)
    if not repository:
        raise CptError(f"backbone.pretrained: {tag!r} is not on the hub; give the path of a .safetensors file")

    def found(path: Path) -> tuple[Path, dict[str, Any]]:
        source = {"repository": repository, "revision": path.parent.name, "file": path.name}
        return path, source | {"sha256": sha256_file(path)}

    if cached := in_cache(entry):
        return found(cached)
    for file in files:
        try:
            # Ask once first: without a connection, the download would retry for half a minute.
            get_hf_file_metadata(hf_hub_url(repository, file))
            return found(Path(hf_hub_download(repository, file)))
        except Exception as error:  # connection errors have different classes in different versions of the hub library
            if isinstance(error, EntryNotFoundError) and not isinstance(error, LocalEntryNotFoundError):
                continue  # the hub answered that the repository has no such file
            offline = "is not in the cache, and HF_HUB_OFFLINE is set"
            why = offline if constants.HF_HUB_OFFLINE else f"cannot be fetched ({_reason(error)})"
            raise CptError(f"backbone.pretrained: {tag!r}: {file} of the hub's {repository} {why}; {_MENDS}") from None
    raise CptError(
        f"backbone.pretrained: {tag!r}: the hub's {repository} has no {' or '.join(files)}; "
        "give the path of a .safetensors file"
    )


def require_checksum(path: Path, sha256: str, entry: dict[str, Any], declared: str | None = None) -> None:
    """Compare a checkpoint with the checksums of its publisher and of the user, before anything reads it.

    The publisher's checksum is the file's name in the hub's cache, and part of the addresses of OpenAI's files and of
    open_clip's releases.

    Args:
        path: the file.
        sha256: checksum of its bytes.
        entry: its entry in the registry.
        declared: ``backbone.sha256`` of the configuration.

    Raises:
        CptError: it is another file, or damaged.
    """
    if declared and sha256 != declared.lower():
        raise CptError(
            f"backbone.sha256: {path}: damaged, or another file: its SHA-256 is {sha256}; "
            "get the right file or correct the checksum"
        )
    url = entry.get("url", "")
    address = url if url.endswith(f"/{path.name}") else ""
    told = [re.fullmatch("([0-9a-f]{64})", path.resolve().name)]
    told += [re.search(form, address) for form in (r"/([0-9a-f]{64})/[^/]+$", r"-([0-9a-f]{8})\.pth?$")]
    for expected in (match[1] for match in told if match):
        if not sha256.startswith(expected):
            raise _refused(
                path,
                f"damaged, or not what was published: its SHA-256 begins with {sha256[:8]} instead of {expected[:8]}; "
                "delete it and get it again",
            )


def _refused(path: Path, problem: str) -> CptError:
    return CptError(f"backbone.pretrained: {path}: {problem}")


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:160]}" if text else type(error).__name__


def load(model: Any, path: Path, architecture: str) -> None:
    """Load a checkpoint into a model; it must have exactly the model's tensors.

    Unlike open_clip's own loading, this does not resample positions for another image size.

    Raises:
        CptError: the file is damaged, holds more than tensors, or does not fit; names the first unfit tensor.
    """
    from open_clip.model import convert_to_custom_text_state_dict

    state = {name: value for name, value in _read(path).items() if name not in _NOT_WEIGHTS}
    if "positional_embedding" in state and not hasattr(model, "positional_embedding"):
        state = convert_to_custom_text_state_dict(state)
    expected = model.state_dict()
    for name in ("logit_scale", "logit_bias"):
        if name in state and name in expected and state[name].numel() == 1:  # a scalar or a vector of one
            state[name] = state[name].reshape(expected[name].shape)
    for name, value in expected.items():
        if name in state and state[name].shape != value.shape:
            found, wanted = _shape(state[name]), _shape(value)
            problem = f"{name} is {found} in the file, {wanted} in the model"
            raise _refused(path, f"does not fit {architecture}: {problem}; give the weights' own architecture")
    missing, others = [n for n in expected if n not in state], [n for n in state if n not in expected]
    if missing or others:
        first = f"it lacks {missing[0]}" if missing else f"the model has no {others[0]}"
        problem = f"{first} ({len(missing)} missing, {len(others)} unknown)"
        raise _refused(path, f"does not fit {architecture}: {problem}; give the weights' own architecture")
    for name, value in state.items():
        if not value.is_floating_point() and expected[name].is_floating_point():
            raise _refused(
                path, f"{name} is {str(value.dtype).removeprefix('torch.')}; supported are floating-point weights"
            )
        if not value.isfinite().all():
            raise _refused(path, f"damaged: {name} has values that are not finite; get it again")
    model.load_state_dict(state)


def _shape(tensor: Tensor) -> str:
    return " x ".join(map(str, tensor.shape)) or "a scalar"


def _read(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a checkpoint by name, without the prefix ``module.`` of distributed training."""
    from safetensors.torch import load as load_bytes

    if path.suffix == ".safetensors":
        try:
            held: Any = load_bytes(read_bytes(path))  # read, not mapped: some disks cannot map files
        except OSError as error:
            raise _refused(path, f"cannot be read ({error.strerror}); fix that") from None
        except Exception as error:
            raise _refused(path, f"damaged, or not safetensors ({_reason(error)}); get it again") from None
    else:
        held = _read_pickle(path)
    state = held.get("state_dict", held) if isinstance(held, dict) else None
    if not isinstance(state, dict) or not state or not all(isinstance(v, Tensor) for v in state.values()):
        raise _refused(path, "is not a state dict: tensors by name, by themselves or under 'state_dict'")
    return {str(name).removeprefix("module."): value for name, value in state.items()}


def _read_pickle(path: Path) -> Any:
    reason = "is a TorchScript program, not a state dict"  # executable code, such as OpenAI's original files
    try:
        members = zipfile.ZipFile(path).namelist() if zipfile.is_zipfile(path) else []
        if not any(name.endswith("/constants.pkl") for name in members):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception:  # torch raises many kinds of exceptions for a damaged file
        reason = "is damaged or holds more than tensors, and code out of files is never run"
    fix = "give a .safetensors file, or a tag of the registry, which fetches one"
    raise _refused(path, f"refused: it {reason}; {fix}")
