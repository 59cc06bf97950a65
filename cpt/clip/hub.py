"""Reading parts of models with transformers, from a folder, the hub's cache or the hub."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TypeVar

from cpt.errors import CptError

T = TypeVar("T")


def require_transformers(part: str) -> None:
    """Refuse a part of a model that needs transformers where it is not installed.

    Raises:
        CptError: names the part.
    """
    if find_spec("transformers") is None:
        raise CptError(f"backbone: {part} is one of transformers, which is not installed; `pip install transformers`")


def of_hub(name: str, what: str, key: str, files: Sequence[str], read: Callable[..., T]) -> T:
    """Read something of transformers from a folder or the hub's cache, or else from the hub.

    Args:
        name: the folder, or a repository of the hub.
        what: for messages.
        key: of the model configuration, which has the name.
        files: without any of these the cache does not hold it. transformers makes a tokenizer from nothing then.
        read: with ``local_files_only=True`` it asks nobody.

    Raises:
        CptError: it is neither there nor available, or damaged.
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_url, try_to_load_from_cache
    from huggingface_hub.errors import EntryNotFoundError

    try:
        if Path(name).is_dir():
            return read(local_files_only=True)
        if any(isinstance(try_to_load_from_cache(name, file), str) for file in files):
            with contextlib.suppress(Exception):  # perhaps other files are missing
                return read(local_files_only=True)
        # Ask once first: without a connection, what comes next would retry for half a minute.
        with contextlib.suppress(EntryNotFoundError):
            get_hf_file_metadata(hf_hub_url(name, files[0]))
        return read()
    except Exception as error:  # connections, files and versions fail in as many ways
        reason = " ".join(str(error).split())[:160]
        raise CptError(
            f"backbone: {what} {name} cannot be read ({type(error).__name__}: {reason}); run `cpt backbone` once where "
            f"there is internet, or name a folder that holds it in text_cfg.{key}"
        ) from None
