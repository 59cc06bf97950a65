"""One training step of CPT and of both forms of LAMP against equations written out loop by loop.

The towers are open_clip's own blocks (``benchmarks.naive``), so that nothing of the methods is used but their learned
tensors. Gradients are compared as well: a missing or a superfluous ``detach`` changes no value.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import open_clip
import pytest
import torch
from torch import Tensor

from benchmarks import naive
from cpt.methods.base.method import Batch
from tests.helpers.contract import CLASSES, OTHERS, TEMPLATES, Toy, classes, model, unit

NAMES = (*CLASSES, *OTHERS[:2])
CLUSTERS = [0, 1, 0, 1, 0, 2, 0]  # of four, two and one class
COUNTS = [1, 2, 7, 2, 1, 3, 4]
POSITIONS = [0, 1, 3, 4, 5, 10, 15]  # class 2 three times, classes 4 and 6 not at all
SCALE = 30.0


def toy_of(name: str, **changes: Any) -> Toy:
    toy = Toy(name, NAMES, counts=COUNTS, **changes).shaken()
    toy.training = replace(toy.training, clusters=torch.tensor(CLUSTERS))
    return toy


def features(toy: Toy, shown: Tensor) -> tuple[Tensor, Tensor]:
    """Raw text and image features under IVLP's prompts."""
    text, visual = toy.method.text, toy.method.visual.prompts
    deep = dict(enumerate(text.deep, start=1))
    return (
        naive.text_features(model(), toy.classes.tokens, text.context, deep),
        naive.image_features(model(), shown, visual[0], dict(enumerate(list(visual)[1:], start=1))),
    )


def frozen_text() -> Tensor:
    """Raw features of the names, mean over the templates."""
    each = [open_clip.tokenize([template.format(name) for name in NAMES]) for template in TEMPLATES]
    return torch.stack([naive.text_features(model(), tokens) for tokens in each]).mean(dim=0)


def separation(text: Tensor, reading: str, by_size: bool) -> Tensor:
    """Eq. 6-9: per cluster ||C_m + (11ᵀ - I)/(k_m - 1)||²_F, over the clusters that have pairs."""
    terms, sizes = [], []
    for cluster in sorted(set(CLUSTERS)):
        columns = torch.stack([text[c] / text[c].norm() for c in range(len(NAMES)) if CLUSTERS[c] == cluster], dim=1)
        k = columns.shape[1]
        if k == 1:
            continue
        matrix = columns.T @ columns + (torch.ones(k, k) - torch.eye(k)) / (k - 1)
        term = sum(matrix[i, j] ** 2 for i in range(k) for j in range(k) if i != j)
        terms.append(term / {"sum": 1, "pairs": k * (k - 1), "entries": k * k}[reading])
        sizes.append(k if by_size else 1)
    return sum(size * term for size, term in zip(sizes, terms, strict=True)) / sum(sizes)


def consistency(image: Tensor, text: Tensor, labels: list[int], reading: str) -> Tensor:
    """Eq. 10 on a batch: (1/K) Σ_c (1/N_c) Σ_i ||f_ci - g_c||²."""
    distances = [(f / f.norm() - text[y] / text[y].norm()).square().sum() for f, y in zip(image, labels, strict=True)]
    if reading == "importance":  # unbiased: every image stands for N/(K N_c) of a mean over classes
        weights = [sum(COUNTS) / (len(NAMES) * COUNTS[y]) for y in labels]
        return sum(w * d for w, d in zip(weights, distances, strict=True)) / len(labels)
    present = sorted(set(labels))
    means = [sum(d for d, y in zip(distances, labels, strict=True) if y == c) / labels.count(c) for c in present]
    return sum(means) / len(present)


def anchor(text: Tensor, frozen: Tensor, on: str) -> Tensor:
    """Eq. 11: (1/K) Σ_c ||g_c - ĝ_c||₁."""
    pairs = ((g, h) if on == "raw" else (g / g.norm(), h / h.norm()) for g, h in zip(text, frozen, strict=True))
    norms = [(g - h).abs().sum() for g, h in pairs]
    return sum(norms) / len(norms)


def contrast(image: Tensor, text: Tensor, labels: list[int], reading: str) -> Tensor:
    """Cross-entropy over all texts, mean; or Eq. 1 as printed: texts of the batch against its images, sum."""
    f, g = unit(image), unit(text)
    terms = []
    for i, y in enumerate(labels):
        against = g @ f[i] if reading == "cross_entropy" else f @ g[y]
        terms.append(torch.log(torch.exp(SCALE * (against - g[y] @ f[i])).sum()))
    return sum(terms) / (len(terms) if reading == "cross_entropy" else 1)


PRINTED = {"tetf_reading": "sum", "rs_features": "raw"}
"""Eq. 9 and 11 as printed, but for the constant of the diagonal, which has no gradient."""


def assert_a_step_is(toy: Toy, batch: Batch, loss: Tensor) -> None:
    """A training step has this loss and its gradients."""
    learned = dict(toy.method.named_parameters())
    gradients = torch.autograd.grad(loss, list(learned.values()))
    found = toy.method.total(toy.step(batch).losses)
    assert found.item() == pytest.approx(loss.item(), rel=2e-5)
    for name, ours, theirs in zip(learned, torch.autograd.grad(found, list(learned.values())), gradients, strict=True):
        assert torch.allclose(ours, theirs, atol=2e-4 * float(theirs.abs().max())), name


READINGS: list[dict[str, Any]] = [
    {},
    PRINTED,
    PRINTED | {"contrast": "in_batch"},
    PRINTED | {"cc_reading": "importance"},
    {"tetf_reading": "pairs", "rs_features": "unit"},
    {"tetf_reading": "entries", "tetf_by_size": True, "rs_features": "unit"},
    {"tetf_reading": "pairs", "tetf_by_size": True, "rs_features": "raw"},
    {"cc_detach_text": True, "rs_features": "unit"},
    {"cc_reading": "importance", "cc_detach_text": True, "contrast": "in_batch"},
    {"tetf_weight": 0.0, "rs_features": "raw"},
    {"rs_weight": 0.0, "cc_reading": "importance"},
]


@pytest.mark.parametrize("changes", READINGS, ids=lambda changes: "-".join(map(str, changes.values())) or "default")
def test_a_step_of_cpt_is_its_equations(changes: dict[str, Any]) -> None:
    """L = L_CLIP + 0.25 L_TETF + 0.15 L_CC + 0.10 L_RS (Eq. 12) and its gradient, in the reading that is chosen."""
    toy = toy_of("cpt", **changes)
    hp, batch = toy.hp, toy.at(POSITIONS)
    labels = batch.labels.tolist()
    assert labels == [0, 1, 2, 2, 2, 3, 5]

    text, image = features(toy, batch.images)
    frozen = frozen_text()
    still = text.detach() if hp.cc_detach_text else text
    loss = contrast(image, text, labels, hp.contrast)
    if hp.tetf_weight:
        loss = loss + 0.25 * separation(text, hp.tetf_reading, hp.tetf_by_size)
    loss = loss + 0.15 * consistency(image, still, labels, hp.cc_reading)
    if hp.rs_weight:
        loss = loss + 0.10 * anchor(text, frozen, hp.rs_features)
    assert_a_step_is(toy, batch, loss)


def routed(toy: Toy, part: str, queries: Tensor) -> dict[int, Tensor]:
    """Prompts of LAMP from its abstract by block, (Q, n, d): the shared ones, then the mean of the chosen entries.

    The two entries of the largest cosine plus bias are chosen; the softmax of their cosines alone weighs them.
    """
    method, hp = toy.method, toy.hp
    pool = getattr(method, f"{part}_pool")
    projection = method.to_text if part == "text" else method.to_vision
    keys, prompts = pool.keys, []
    for query in queries:
        cosines = [query @ key / (query.norm() * key.norm()) for key in keys]
        ranked = sorted(range(len(keys)), key=lambda p: (cosines[p] + pool.bias[p]).item(), reverse=True)[:2]
        shares = torch.stack([cosines[p] / hp.temperature for p in ranked]).exp()
        prompts.append(sum(s * pool.prompts[p] for s, p in zip(shares / shares.sum(), ranked, strict=True)))
    return {
        block: torch.stack(
            [torch.cat([method.shared[i] @ projection.weight.T + projection.bias, own[i]]) for own in prompts]
        )
        for i, block in enumerate(range(1, 9))
    }


def test_a_step_of_lamp_from_its_abstract_is_its_description() -> None:
    """The bias decides which entries are taken and nothing else; blocks 1 to 8 are prompted, block 0 is not."""
    toy = toy_of("lamp_abstract")
    stream = torch.Generator().manual_seed(3)
    for pool in (toy.method.text_pool, toy.method.image_pool):
        pool.bias.copy_(0.3 * torch.randn(pool.bias.shape, generator=stream))
    batch = toy.at(POSITIONS)
    with torch.no_grad():
        frozen = naive.image_features(model(), batch.images)
    deep = routed(toy, "text", frozen_text())
    assert (deep[1][0] - deep[1][1]).abs().max() > 1e-3, "classes take different entries"
    text = naive.text_features(model(), toy.classes.tokens, None, deep)
    image = toy.clip.vision(batch.images, deep=routed(toy, "image", frozen))
    loss = contrast(image, text, batch.labels.tolist(), "cross_entropy")
    assert_a_step_is(toy, batch, loss)


class RunningTokens:
    """LAMP with one sequence at a time: nothing is shared, packed or appended, and every block asks its own token.

    Prompts stand behind position 0 in both towers, in PromptLT's order: shared ones, then what is retrieved.

    Args:
        toy: whose learned tensors and biases it takes.
        mixed: retrieve all entries, weighted, instead of one.

    Attributes:
        taken: (part, block) -> entry that each sequence took, in order.
    """

    def __init__(self, toy: Toy, *, mixed: bool) -> None:
        self.method, self.mixed = toy.method, mixed
        self.taken: dict[tuple[str, int], list[int]] = {}

    def prompts(self, part: str, block: int, token: Tensor) -> Tensor:
        """The three prompts (3, d) of a block that is prompted as the third to the twelfth are."""
        own, i = getattr(self.method, part), block - 2

        def made(latent: Tensor) -> Tensor:
            hidden = (own.hidden.weight[i] @ latent + own.hidden.bias[i]).clamp(min=0)
            return own.output.weight[i] @ hidden + own.output.bias[i]

        entries = [made(latent) for latent in own.pool[i]]
        scores = [entry @ token + bias for entry, bias in zip(entries, own.bias[i], strict=True)]
        best = max(range(len(scores)), key=lambda p: scores[p].item())
        self.taken.setdefault((part, block), []).append(best)
        total = sum(score.exp() for score in scores)
        mixture = sum(score.exp() / total * entry for score, entry in zip(scores, entries, strict=True))
        return torch.stack([*map(made, self.method.shared[i]), mixture if self.mixed else entries[best]])

    def through(self, blocks: Any, x: Tensor, part: str) -> Tensor:
        """A sequence (L, d) behind the blocks, three prompts longer from the third on."""
        for i, block in enumerate(blocks):
            if i >= 2:
                x = torch.cat([x[:1], self.prompts(part, i, x[0]), x[1:] if i == 2 else x[4:]])
            causal = torch.full((len(x), len(x)), -torch.inf).triu(1) if part == "text" else None
            x = block(x[None], attn_mask=causal)[0]
        return x

    def text(self, name: str) -> Tensor:
        """Raw text feature (D) of a class in the first of the templates."""
        clip, tokens = model(), open_clip.tokenize(TEMPLATES[0].format(name))[0]
        x = clip.token_embedding(tokens[: int(tokens.argmax()) + 1])
        x = self.through(clip.transformer.resblocks, x + clip.positional_embedding[: len(x)], "text")
        return clip.ln_final(x[-1]) @ clip.text_projection

    def image(self, image: Tensor) -> Tensor:
        """Raw image feature (D)."""
        visual = model().visual
        patches = visual.conv1(image[None])[0].flatten(1).T
        x = visual.ln_pre(torch.cat([visual.class_embedding[None], patches]) + visual.positional_embedding)
        x = self.through(visual.transformer.resblocks, x, "vision")
        return visual.ln_post(x[0]) @ visual.proj


def biased_lamp() -> Toy:
    """LAMP whose biases are as large as what its scores differ by."""
    toy = toy_of("lamp")
    stream = torch.Generator().manual_seed(4)
    for part in (toy.method.text, toy.method.vision):
        part.bias.copy_(0.5 * torch.randn(part.bias.shape, generator=stream))
    return toy


def test_a_step_of_lamp_is_its_description() -> None:
    """Every image takes, in every block, the entry that its class token there scores highest with the bias."""
    toy = biased_lamp()
    batch = toy.at(POSITIONS)
    plain = RunningTokens(toy, mixed=False)
    text = torch.stack([plain.text(name) for name in NAMES])
    image = torch.stack([plain.image(shown) for shown in batch.images])
    loss = contrast(image, text, batch.labels.tolist(), "cross_entropy")
    assert_a_step_is(toy, batch, loss)

    by_text, by_image = ([plain.taken[part, block] for block in range(2, 12)] for part in ("text", "vision"))
    assert all(len(set(taken)) == 1 for taken in by_text), "the start token is the same for all classes"
    assert any(len(set(taken)) > 1 for taken in by_image), "images take different entries"
    for part, taken, count in ((toy.method.text, by_text, 1), (toy.method.vision, by_image, len(POSITIONS))):
        wanted = [[entries[:count].count(p) for p in range(3)] for entries in taken]
        assert part.load.tolist() == wanted
    with torch.no_grad():
        toy.method.vision.bias.zero_()
        again = RunningTokens(toy, mixed=False)
        for shown in batch.images:
            again.image(shown)
    assert [again.taken["vision", block] for block in range(2, 12)] != by_image, "the bias decides as well"


def test_lamp_weighs_all_entries_at_test() -> None:
    """By the softmax of scores and bias; names that were not trained get the same prompts."""
    toy, others = biased_lamp(), OTHERS[:3]
    shown = toy.at(POSITIONS).images
    found, of_others = toy.scores(shown), toy.scores(shown, classes(others), trained=False)
    assert not toy.method.vision.load.any(), "a test counts for nothing"
    with torch.no_grad():
        plain = RunningTokens(toy, mixed=True)
        image = unit(torch.stack([plain.image(one) for one in shown]))
        text, other = (unit(torch.stack([plain.text(name) for name in names])) for names in (NAMES, others))
    assert torch.allclose(found, SCALE * image @ text.T, atol=1e-3)
    assert torch.allclose(of_others, SCALE * image @ other.T, atol=1e-3)
