"""What methods add to the towers (parts of blocks, inserted tokens, prompts made from a block's input), against a
computation of every class at the full length with open_clip's own weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from cpt.clip.blocks import Block, BlockAdapter
from cpt.clip.export import export, towers
from tests.clip.test_towers import prompts, slots, small_clip


class Everywhere(BlockAdapter):
    """Adds something at every place, from everything that it may read."""

    def __init__(self, width: int, seed: int) -> None:
        super().__init__()
        stream = torch.Generator().manual_seed(seed)

        def matrix(rows: int) -> nn.Parameter:
            return nn.Parameter(torch.randn(rows, width, generator=stream) / width)

        self.query, self.project, self.early, self.late = matrix(3 * width), *(matrix(width) for _ in range(3))

    def qkv(self, normed: Tensor, qkv: Tensor) -> Tensor:
        return qkv + normed @ self.query.T

    def projected(self, attended: Tensor, projected: Tensor) -> Tensor:
        return projected + attended @ self.project.T

    def output(self, block: Block, before: Tensor, between: Tensor, after: Tensor) -> Tensor:
        return after + block.normed(before) @ self.early.T + F.relu(between) @ self.late.T


def added(block: Any, x: Tensor, mask: Tensor | None, adapter: Everywhere | None) -> Tensor:
    """One of open_clip's blocks on (B, T, d), its attention written out."""
    normed, heads = block.ln_1(x), block.attn.num_heads
    qkv = F.linear(normed, block.attn.in_proj_weight, block.attn.in_proj_bias)
    qkv = qkv if adapter is None else qkv + normed @ adapter.query.T
    q, k, v = (part.unflatten(-1, (heads, -1)).transpose(1, 2) for part in qkv.chunk(3, dim=-1))
    scores = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
    scores = scores if mask is None else scores + mask
    attended = (scores.softmax(dim=-1) @ v).transpose(1, 2).flatten(2)
    projected = block.attn.out_proj(attended)
    between = x + (projected if adapter is None else projected + attended @ adapter.project.T)
    after = between + block.mlp(block.ln_2(between))
    return after if adapter is None else after + normed @ adapter.early.T + F.relu(between) @ adapter.late.T


def naive_text(
    model: Any,
    tokens: Tensor,
    context: Tensor | None,
    deep: Mapping[int, Tensor | Callable[[Tensor], Tensor]],
    adapters: Mapping[int, Everywhere],
    *,
    insert: bool = False,
) -> Tensor:
    x, end, inserted = model.token_embedding(tokens), tokens.argmax(dim=1), False
    if context is not None:
        x = torch.cat([x[:, :1], context.expand(len(x), -1, -1), x[:, 1 + len(context) :]], dim=1)
    x = x + model.positional_embedding
    for i, block in enumerate(model.transformer.resblocks):
        if i in deep:
            given_ = deep[i]
            vectors = given_ if isinstance(given_, Tensor) else given_(x[:1, 0])
            vectors = vectors.expand(len(x), -1, -1)
            keep = 1 if insert and not inserted else 1 + vectors.shape[1]
            end = end + vectors.shape[1] if insert and not inserted else end
            x, inserted = torch.cat([x[:, :1], vectors, x[:, keep:]], dim=1), True
        mask = torch.full((x.shape[1], x.shape[1]), -torch.inf).triu(1)
        x = added(block, x, mask, adapters.get(i))
    return model.ln_final(x)[torch.arange(len(x)), end] @ model.text_projection


def naive_tokens(
    model: Any, images: Tensor, prompted: Mapping[int, Tensor | Callable], adapters: Mapping[int, Everywhere]
) -> Tensor:
    """All tokens behind ``ln_post``; the prompts last."""
    visual, count = model.visual, 0
    x = visual.conv1(images).flatten(2).transpose(1, 2)
    x = torch.cat([visual.class_embedding.expand(len(x), 1, -1), x], dim=1) + visual.positional_embedding
    x = visual.ln_pre(x)
    for i, block in enumerate(visual.transformer.resblocks):
        if i in prompted:
            given_ = prompted[i]
            vectors = given_ if isinstance(given_, Tensor) else given_(x[:, 0])
            x = torch.cat([x[:, : x.shape[1] - count], vectors.expand(len(x), -1, -1)], dim=1)
            count = vectors.shape[-2]
        x = added(block, x, None, adapters.get(i))
    return visual.ln_post(x)


def assert_same(ours: Tensor, theirs: Tensor, learned: list[Tensor]) -> None:
    """Values, and gradients of what is learned."""
    assert torch.allclose(ours, theirs, atol=2e-5)
    weight = torch.randn_like(ours)
    gradients = (torch.autograd.grad((x * weight).sum(), learned, retain_graph=True) for x in (ours, theirs))
    for a, b in zip(*gradients, strict=True):
        assert torch.allclose(a, b, atol=1e-4 * float(b.abs().max()) + 1e-6)


@settings(max_examples=20, deadline=None)
@given(
    lengths=st.lists(st.integers(7, 18), min_size=1, max_size=6),
    blocks=st.sets(st.integers(0, 2)),
    first=st.integers(1, 2),
    count=st.integers(1, 2),
    n=st.integers(0, 2),
    insert=st.booleans(),
    seed=st.integers(0, 100),
)
def test_the_text_tower(
    lengths: list[int], blocks: set[int], first: int, count: int, n: int, insert: bool, seed: int
) -> None:
    model = small_clip()
    text, _ = towers(*export(model))
    tokens = prompts(lengths, 4, seed)
    torch.manual_seed(seed)
    context = torch.randn(n, 32, requires_grad=True) if n else None
    deep = {i: torch.randn(count, 32, requires_grad=True) for i in range(first, 3)}
    adapters = {i: Everywhere(32, i) for i in blocks}
    packed = text.pack(tokens, slots(tokens, n) if n else None)
    ours = text(packed, context, deep, adapters, insert=insert)
    theirs = naive_text(model, tokens, context, deep, adapters, insert=insert)
    learned = [*deep.values(), *(p for adapter in adapters.values() for p in adapter.parameters())]
    assert_same(ours, theirs, learned if context is None else [context, *learned])


@pytest.mark.parametrize("insert", [False, True])
def test_text_prompts_made_from_the_start_token(insert: bool) -> None:
    model = small_clip()
    text, _ = towers(*export(model))
    tokens = prompts([9, 12, 18], 4)
    matrix = torch.randn(2 * 32, 32, requires_grad=True)
    deep = {i: lambda start: (start @ matrix.T).unflatten(-1, (2, 32)) for i in (1, 2)}
    ours = text(text.pack(tokens), deep=deep, insert=insert)
    assert_same(ours, naive_text(model, tokens, None, deep, {}, insert=insert), [matrix])


@pytest.mark.parametrize("read", [0, 2])
@pytest.mark.parametrize("first", [1, 2])
def test_the_vision_tower(first: int, read: int) -> None:
    model = small_clip()
    _, vision = towers(*export(model))
    images = torch.randn(3, 3, 16, 16)
    matrix = torch.randn(2 * 48, 48, requires_grad=True)
    adapters = {i: Everywhere(48, i) for i in (0, 2)}
    fixed = torch.randn(2, 48, requires_grad=True)
    deep = {first: fixed, 2: lambda start: (start @ matrix.T).unflatten(-1, (2, 48))}
    theirs = naive_tokens(model, images, deep, adapters)
    read_off = torch.cat([theirs[:, :1], theirs[:, theirs.shape[1] - read :]], dim=1)
    learned = [matrix, *(p for adapter in adapters.values() for p in adapter.parameters())]
    learned += [fixed] if first == 1 else []
    ours = vision(images, None, deep, adapters, tokens=read)
    assert_same(ours, read_off, learned)
    features = vision(images, None, deep, adapters)
    assert_same(features, theirs[:, 0] @ model.visual.proj, learned)
    assert torch.allclose(vision.project(ours[:, 0]), features, atol=1e-6)
