"""Prompt templates."""

from __future__ import annotations

from collections.abc import Sequence

from cpt.errors import CptError, nearest

PROMPT_PHRASE = "a photo of a"
"""Initial words of the learnable context (repo KaiyangZhou/CoOp, configs/trainers/CoOp/*_ctxv1.yaml)."""

PROMPT_TEMPLATE = PROMPT_PHRASE + " {}."
"""Form of a learnable prompt around its context (repo KaiyangZhou/CoOp, trainers/coop.py)."""


OF_DATASET = ("dataset", "texture", "tcp")
"""Sets of one template that the catalog gives for every dataset: ``dataset`` is CoOp's hand-written one; the others are
those of other code bases where they differ (``other_templates``)."""

TEMPLATE_SETS = ("single", "ensemble", "imagenet", *OF_DATASET)
"""Built-in template sets."""


def learnable_template(dataset_template: str) -> str:
    """Return the prompt with the four words that a context replaces, ending like the dataset's template.

    ``{} texture.`` gives ``a photo of a {} texture.``; words between ``a photo of a`` and the name stay (repo
    cnunlp/DeKg, trainers/DeKg_TCP.py: the templates with ``X X X X``).
    """
    before, after = dataset_template.split("{}")
    return f"{before if before.startswith(PROMPT_PHRASE + ' ') else PROMPT_PHRASE + ' '}{{}}{after}"


def template_set(name: str, dataset_template: str, custom: dict[str, Sequence[str]]) -> tuple[str, ...]:
    """Return the templates of a named set.

    ``single`` is ``a photo of a {}.``; those of ``OF_DATASET`` are ``dataset_template``; ``ensemble`` are the 60
    templates of PromptSRC (as a set the first 60 of CLIP's 80 for ImageNet; repo muzairkhattak/PromptSRC,
    trainers/imagenet_templates.py); ``imagenet`` all 80. ``custom`` adds to these sets or replaces them.

    Raises:
        CptError: no such set.
    """
    if name in custom:
        return tuple(custom[name])
    if name == "single":
        return (PROMPT_TEMPLATE,)
    if name in OF_DATASET:
        return (dataset_template,)
    if name in ("ensemble", "imagenet"):
        from open_clip import OPENAI_IMAGENET_TEMPLATES

        every = tuple(template("{}") for template in OPENAI_IMAGENET_TEMPLATES)
        return every[:60] if name == "ensemble" else every
    known = {*TEMPLATE_SETS, *custom}
    raise CptError(f"templates: unknown template set {name!r}; {nearest(name, known)}")
