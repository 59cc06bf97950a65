"""The fast prompted towers against the naive computation with open_clip's own blocks."""

from __future__ import annotations

import numpy as np
import open_clip
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks import naive
from cpt.clip.export import export, towers, verify
from cpt.clip.packing import Gather
from cpt.errors import CptError

TEXT = {"context_length": 20, "vocab_size": 50, "width": 32, "heads": 4, "layers": 3}
VISION = {"image_size": 16, "patch_size": 8, "width": 48, "layers": 3, "head_width": 16}


def small_clip(seed: int = 0, **text) -> open_clip.CLIP:
    torch.manual_seed(seed)
    model = open_clip.CLIP(embed_dim=24, vision_cfg=VISION, text_cfg=TEXT | text, quick_gelu=True)
    for parameter in model.parameters():  # away from the initial values, where many terms are zero or one
        parameter.data += 0.05 * torch.randn_like(parameter)
    return model.eval().requires_grad_(False)


def prompts(lengths: list[int], common: int, seed: int = 0) -> torch.Tensor:
    """Token rows with ``common`` equal tokens after the start token and the given total lengths."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.zeros(len(lengths), TEXT["context_length"], dtype=torch.long)
    shared = torch.randint(1, 47, (common,), generator=generator)
    for row, length in zip(rows, lengths, strict=True):
        row[:length] = torch.randint(1, 47, (length,), generator=generator)
        row[0], row[1 : 1 + common], row[length - 1] = 48, shared, 49
    return rows


def slots(tokens: torch.Tensor, n: int, per_class: bool = False) -> np.ndarray:
    found = np.full(tuple(tokens.shape), -1)
    for k in range(len(tokens)):
        found[k, 1 : 1 + n] = np.arange(n) + (k * n if per_class else 0)
    return found


@settings(max_examples=25, deadline=None)
@given(
    lengths=st.lists(st.integers(7, 20), min_size=1, max_size=6),
    n=st.integers(0, 4),
    depth=st.integers(1, 3),
    per_class=st.booleans(),
    seed=st.integers(0, 100),
)
def test_text_tower_is_the_naive_one(lengths: list[int], n: int, depth: int, per_class: bool, seed: int) -> None:
    model = small_clip()
    text, _ = towers(*export(model))
    tokens = prompts(lengths, 4, seed)
    torch.manual_seed(seed)
    shape = (len(lengths), n, 32) if per_class else (n, 32)
    context = torch.randn(shape, requires_grad=True)
    deep = {} if per_class or n == 0 else {i: torch.randn(n, 32, requires_grad=True) for i in range(1, depth)}
    packed = text.pack(tokens, slots(tokens, n, per_class))
    ours = text(packed, context.flatten(0, -2) if n else None, deep)
    theirs = naive.text_features(model, tokens, context if n else None, deep)
    assert torch.allclose(ours, theirs, atol=2e-5)
    if n:
        weight = torch.randn_like(ours)
        learned = [context, *deep.values()]
        ours_gradient = torch.autograd.grad((ours * weight).sum(), learned)
        theirs_gradient = torch.autograd.grad((theirs * weight).sum(), learned)
        for a, b in zip(ours_gradient, theirs_gradient, strict=True):
            assert torch.allclose(a, b, atol=1e-4 * float(b.abs().max()) + 1e-6)


def test_a_context_per_class_is_placed_without_a_matrix() -> None:
    """With the bits of the 0/1 matrix that other contexts have; of 1,000 classes with 16 vectors each it is 0.6 GiB."""
    text, _ = towers(*export(small_clip()))
    tokens = prompts([9, 12, 7], 4)
    packed, rest = text.pack(tokens, slots(tokens, 3, per_class=True)), text.pack(tokens, slots(tokens, 3))
    assert isinstance(packed.placement, Gather)
    assert isinstance(rest.placement, torch.Tensor)
    matrix = torch.zeros(len(packed.frozen), 9)
    matrix[packed.placement.index, torch.arange(9)] = 1
    assert torch.equal(matrix.sum(dim=1, keepdim=True) > 0, packed.placement.there)
    for shape in ((9, 32), (2, 9, 32)):
        context = torch.randn(shape, requires_grad=True)
        found, wanted = packed.place(context), matrix @ context
        weight = torch.randn_like(found)
        assert torch.equal(found, wanted)
        gradients = (torch.autograd.grad((x * weight).sum(), context)[0] for x in (found, wanted))
        assert torch.equal(*gradients)
    large = text.pack(prompts([9] * 200, 4), slots(prompts([9] * 200, 4), 3, per_class=True))
    assert sum(x.numel() for x in vars(large.placement).values()) < 4 * len(large.frozen)


def test_deep_prompts_per_class() -> None:
    model = small_clip()
    text, _ = towers(*export(model))
    tokens = prompts([9, 12, 9, 7], 4)
    context, deep = torch.randn(3, 32), {2: torch.randn(4, 3, 32)}
    ours = text(text.pack(tokens, slots(tokens, 3)), context, deep)
    assert torch.allclose(ours, naive.text_features(model, tokens, context, deep), atol=2e-5)


@settings(max_examples=15, deadline=None)
@given(
    lengths=st.lists(st.integers(7, 20), min_size=1, max_size=5),
    contexts=st.integers(1, 4),
    depth=st.integers(1, 3),
    common=st.sampled_from([2, 4]),
    seed=st.integers(0, 100),
)
def test_several_contexts_at_once(lengths: list[int], contexts: int, depth: int, common: int, seed: int) -> None:
    """B contexts in one call are B calls of one context: features, and gradients of contexts and deep prompts."""
    model = small_clip()
    text, _ = towers(*export(model))
    tokens = prompts(lengths, common, seed)
    torch.manual_seed(seed)
    context = torch.randn(contexts, 2, 32, requires_grad=True)
    deep = {i: torch.randn(2, 32, requires_grad=True) for i in range(1, depth)}
    packed = text.pack(tokens, slots(tokens, 2))
    ours = text(packed, context, deep)
    assert ours.shape == (contexts, len(lengths), 24)
    theirs = torch.stack([naive.text_features(model, tokens, one, deep) for one in context])
    single = torch.stack([text(packed, one, deep) for one in context])
    weight = torch.randn_like(ours)
    learned = [context, *deep.values()]
    gradient = torch.autograd.grad((ours * weight).sum(), learned)
    for other in (theirs, single):
        assert torch.allclose(ours, other, atol=2e-5)
        for a, b in zip(gradient, torch.autograd.grad((other * weight).sum(), learned), strict=True):
            assert torch.allclose(a, b, atol=1e-4 * float(b.abs().max()) + 1e-6)


def test_several_contexts_keep_their_own_remainders() -> None:
    """Context vectors behind the shared prefix (the class name stands in front) differ between contexts too."""
    model = small_clip()
    text, _ = towers(*export(model))
    tokens = prompts([9, 12, 7], 1)
    where = np.full(tuple(tokens.shape), -1)
    where[:, 3:5] = [0, 1]
    context = torch.randn(3, 2, 32)
    packed = text.pack(tokens, where)
    assert int(packed.placement.sum()) == 6
    embedded = model.token_embedding(tokens)
    for one, ours in zip(context, text(packed, context), strict=True):
        x = embedded.clone()
        x[:, 3:5] = one
        x = model.ln_final(model.transformer(x + model.positional_embedding, attn_mask=model.attn_mask))
        theirs = x[torch.arange(3), tokens.argmax(dim=1)] @ model.text_projection
        assert torch.allclose(ours, theirs, atol=2e-5)


def test_one_context_as_a_batch_of_one() -> None:
    text, _ = towers(*export(small_clip()))
    tokens = prompts([9, 12], 4)
    packed, context = text.pack(tokens, slots(tokens, 2)), torch.randn(2, 32)
    alone = text(packed, context)
    assert torch.equal(text(packed, context.unsqueeze(0)), alone.unsqueeze(0))


@pytest.mark.parametrize("first", [1, 2])
def test_visual_prompts_may_begin_in_a_middle_block(first: int) -> None:
    """Deep prompts without block-0 prompts are appended at their first block; per image they may differ."""
    model = small_clip()
    _, vision = towers(*export(model))
    images = torch.randn(3, 3, 16, 16)
    deep = {i: torch.randn(3, 2, 48) for i in range(first, 3)}
    ours = vision(images, deep=deep)
    visual = model.visual
    for n in range(3):
        x = visual.conv1(images[n : n + 1]).flatten(2).transpose(1, 2)
        x = torch.cat([visual.class_embedding.expand(1, 1, -1), x], dim=1) + visual.positional_embedding
        x = visual.ln_pre(x)
        patches = x.shape[1]
        for i, block in enumerate(visual.transformer.resblocks):
            if i in deep:
                x = torch.cat([x[:, :patches], deep[i][n : n + 1]], dim=1)
            x = block(x)
        assert torch.allclose(ours[n], (visual.ln_post(x)[:, 0] @ visual.proj)[0], atol=2e-5)


def test_deep_prompts_need_shared_positions() -> None:
    text, _ = towers(*export(small_clip()))
    tokens = prompts([9, 12], 4)
    packed = text.pack(tokens, slots(tokens, 3, per_class=True))
    with pytest.raises(ValueError, match=r"shared|share"):
        text(packed, torch.randn(6, 32), {1: torch.randn(3, 32)})


@pytest.mark.parametrize("depth", [0, 1, 2, 3])
def test_vision_tower_is_the_naive_one(depth: int) -> None:
    model = small_clip()
    _, vision = towers(*export(model))
    images = torch.randn(3, 3, 16, 16)
    shallow = torch.randn(2, 48, requires_grad=True) if depth else None
    deep = {i: torch.randn(2, 48, requires_grad=True) for i in range(1, depth)}
    ours, theirs = vision(images, shallow, deep), naive.image_features(model, images, shallow, deep)
    assert torch.allclose(ours, theirs, atol=2e-5)
    learned = [] if shallow is None else [shallow, *deep.values()]
    for parameter in learned:
        ours_gradient, theirs_gradient = (
            torch.autograd.grad(f.square().sum(), parameter, retain_graph=True)[0] for f in (ours, theirs)
        )
        assert torch.allclose(ours_gradient, theirs_gradient, atol=1e-4 * float(theirs_gradient.abs().max()))


def test_plain_towers_are_open_clip() -> None:
    model = small_clip()
    tensors, spec = export(model)
    assert verify(model, tensors, spec) < 1e-5


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_stays_close(dtype: torch.dtype) -> None:
    model = small_clip()
    tensors, spec = export(model)
    text, vision = towers(tensors, spec)
    tokens, images = prompts([9, 12, 7], 4), torch.randn(2, 3, 16, 16)
    packed = text.pack(tokens, slots(tokens, 2))
    context = torch.randn(2, 32)
    full = text(packed, context), vision(images)
    text, vision = text.to(dtype=dtype), vision.to(dtype=dtype)
    half = text(text.pack(tokens, slots(tokens, 2)), context), vision(images)
    for a, b in zip(full, half, strict=True):
        assert b.dtype == torch.float32
        assert torch.nn.functional.cosine_similarity(a, b).min() > 0.995


def test_packing_shares_the_longest_common_prefix() -> None:
    text, _ = towers(*export(small_clip()))
    tokens = prompts([8, 8, 10], 4)
    packed = text.pack(tokens, slots(tokens, 2))
    assert packed.shared == 5
    assert packed.groups.shape == (1, 16)
    assert packed.groups.row.tolist() == [*range(5), *range(5, 16)]
    assert packed.last.index.tolist() == [7, 10, 15]
    one = text.pack(tokens[:1], slots(tokens[:1], 2))
    assert one.shared == 7  # all but the end token
    assert len(one) == 1


def test_prompts_stand_in_as_few_groups_as_their_order_allows() -> None:
    text, _ = towers(*export(small_clip()))
    tokens = prompts([20] * 17 + [9], 4)
    packed = text.pack(tokens, slots(tokens, 4))
    assert packed.shared == 5
    # (128 - 5) // 15 own tokens = 8 prompts a group; 5 + 8 * 15 = 125 positions, a multiple of 8 with padding
    assert packed.groups.shape == (3, 128)
    assert packed.frozen.shape == (5 + 17 * 15 + 4, 32)
    separate, _ = packed.apart()
    assert separate.shape == (3, 120)  # 6 prompts of 20 positions a group
    assert separate.shared == 0


@settings(max_examples=10, deadline=None)
@given(lengths=st.lists(st.integers(7, 20), min_size=15, max_size=40), seed=st.integers(0, 100))
def test_many_prompts_in_several_groups(lengths: list[int], seed: int) -> None:
    """Features and gradients, with deep prompts for all classes and then others per class."""
    model = small_clip()
    text, _ = towers(*export(model))
    tokens = prompts(lengths, 4, seed)
    torch.manual_seed(seed)
    context, shared = torch.randn(3, 32, requires_grad=True), torch.randn(3, 32, requires_grad=True)
    own = torch.randn(len(lengths), 3, 32, requires_grad=True)
    deep = {1: shared, 2: own}
    packed = text.pack(tokens, slots(tokens, 3))
    ours, theirs = text(packed, context, deep), naive.text_features(model, tokens, context, deep)
    assert torch.allclose(ours, theirs, atol=2e-5)
    weight = torch.randn_like(ours)
    for a, b in zip(
        *(torch.autograd.grad((x * weight).sum(), [context, shared, own]) for x in (ours, theirs)), strict=True
    ):
        assert torch.allclose(a, b, atol=1e-4 * float(b.abs().max()) + 1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: setattr(m.visual, "pool_type", "none"), "image pooling 'none'"),
        (lambda m: setattr(m, "text_pool_type", "none"), "text pooling 'none'"),
        (lambda m: setattr(m.visual.transformer.resblocks[0].mlp, "gelu", torch.nn.ReLU()), "activation ReLU"),
    ],
)
def test_unsupported_architectures_are_refused(change, message: str) -> None:
    model = small_clip()
    change(model)
    with pytest.raises(CptError, match=message):
        export(model)


def test_towers_that_compute_something_else_are_refused() -> None:
    model = small_clip()
    tensors, spec = export(model)
    with pytest.raises(CptError, match="differ by"):
        verify(model, tensors | {"vision.proj": tensors["vision.proj"] + 0.01}, spec)


@pytest.mark.parametrize("options", [{"ls_init_value": 0.3}, {"heads": 2}])
def test_other_shapes(options: dict) -> None:
    torch.manual_seed(0)
    model = open_clip.CLIP(
        embed_dim=24,
        vision_cfg=VISION | ({"ls_init_value": 0.3} if "ls_init_value" in options else {}),
        text_cfg=TEXT | options,
        quick_gelu=False,
    ).eval()
    tensors, spec = export(model)
    assert verify(model, tensors, spec) < 1e-5
    assert spec["text"]["activation"] == "gelu"
