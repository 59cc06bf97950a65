"""Every family of backbones, small and random: equal to open_clip's model, with prompts where it takes them."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn.functional import cosine_similarity

from cpt.clip.backbone import Clip, load_backbone
from cpt.clip.make_backbone import check, inside, load_tokenizer, make_backbone
from cpt.errors import CptError
from cpt.files.stage_files import read_json
from tests.helpers.encoders import ENCODERS, POSITIONS, write_encoder, write_tokenizer
from tests.helpers.families import FAMILIES, NAMES, UNCHANGED, configuration, shaken

TEXTS = ["a photo of a cat.", "a red boat", "a photo of a very small wooden house."]


@cache
def model(family: str) -> torch.nn.Module:
    return shaken(configuration(family))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Path, float]]:
    """Makes backbone.json of a family from a checkpoint of its model; also the largest difference to open_clip."""
    folder = tmp_path_factory.mktemp("families")

    @cache
    def make(family: str) -> tuple[Path, float]:
        (folder / f"{family}-model.json").write_text(json.dumps(configuration(family)))
        weights = folder / f"{family}-weights.safetensors"
        save_file({name: value.contiguous() for name, value in model(family).state_dict().items()}, weights)
        output = folder / f"{family}.json"
        return output, make_backbone(family, str(folder / f"{family}-model.json"), str(weights), output)[1]

    return make


@pytest.mark.parametrize("family", NAMES)
def test_a_family_is_open_clips(family: str, made: Callable[[str], tuple[Path, float]]) -> None:
    path, difference = made(family)
    print(f"{family}: largest difference to open_clip {difference:.1e}")
    assert difference < 1e-5
    clip, theirs = load_backbone(path), model(family)
    tokens = load_tokenizer(path)(TEXTS, context_length=clip.text.context_length)
    packed = clip.text.pack(tokens)
    images = torch.randn(3, 3, *clip.image_size, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        for ours, wanted in (
            (clip.vision(images), theirs.encode_image(images)),
            (clip.text(packed), theirs.encode_text(getattr(packed, "ids", tokens))),
        ):
            assert ours.dtype == torch.float32
            torch.testing.assert_close(ours, wanted, atol=2e-5 * float(wanted.detach().abs().max()), rtol=1e-4)
    for precision, off in (("bfloat16", 0.45), ("float16", 0.06)):
        half = load_backbone(path, precision=precision)
        with torch.no_grad():
            assert cosine_similarity(half.vision(images), clip.vision(images)).min() > 0.97
            texts = [one.text(one.text.pack(tokens)) for one in (half, clip)]
            spread = texts[1] - texts[1].mean(dim=0)
            assert (texts[0] - texts[1]).norm() < off * spread.norm(), "less than what tells texts apart"


@pytest.mark.parametrize("family", ["siglip", "siglip2"])
def test_scale_and_bias_of_a_sigmoid_model(family: str, made: Callable[[str], tuple[Path, float]]) -> None:
    """The scale is that of its own logits. The bias is on record, and alike for all classes: no softmax sees it."""
    path, _ = made(family)
    theirs, clip = model(family), load_backbone(path)
    images, tokens = torch.randn(2, 3, *clip.image_size), load_tokenizer(path)(TEXTS)
    with torch.no_grad():
        wanted, _ = theirs.get_logits(images, tokens)
        features = clip.vision(images), clip.text(clip.text.pack(tokens))
    image, text = (torch.nn.functional.normalize(part, dim=-1) for part in features)
    ours = clip.logit_scale * image @ text.T
    bias = read_json(path, "cpt.backbone/1")["spec"]["logit_bias"]
    assert bias == pytest.approx(float(theirs.logit_bias))
    torch.testing.assert_close(ours + bias, wanted, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(ours.softmax(dim=1), wanted.softmax(dim=1), atol=1e-5, rtol=1e-4)


# ---- prompts in text towers that are not causal --------------------------------------------------


def naive_text(theirs: Any, tokens: Tensor, context: Tensor, deep: dict[int, Tensor], insert: int | None) -> Tensor:
    """With open_clip's own blocks, prompt by prompt: context at positions 1..n, deep prompts over or before them."""
    text, features = theirs.text, []
    for row, ids in enumerate(tokens):
        x = text.token_embedding(ids)
        x = torch.cat([x[:1], context, x[1 + len(context) :]]) + text.positional_embedding
        for i, block in enumerate(text.transformer.resblocks):
            if i in deep:
                own = deep[i][row] if deep[i].dim() == 3 else deep[i]
                x = torch.cat([x[:1], own, x[1 if i == insert else 1 + len(own) :]])
            x = block(x[None])[0]
        features.append(text.text_projection(text.ln_final(x)[-1]))
    return torch.stack(features)


@pytest.mark.parametrize("per_class", [False, True])
@pytest.mark.parametrize("insert", [None, 1])
def test_prompts_of_a_bidirectional_tower(
    made: Callable[[str], tuple[Path, float]], insert: int | None, per_class: bool
) -> None:
    """Features and gradients, with padding that every token sees."""
    path, _ = made("siglip")
    clip, theirs, tokens = load_backbone(path), model("siglip"), load_tokenizer(path)(TEXTS)
    torch.manual_seed(0)
    context = torch.randn(3, 32, requires_grad=True)
    shape = (len(TEXTS), 2, 32) if per_class else (2, 32)
    deep = {i: torch.randn(shape, requires_grad=True) for i in (1, 2)}
    slots = torch.full(tokens.shape, -1)
    slots[:, 1:4] = torch.arange(3)
    ours = clip.text(clip.text.pack(tokens, slots.numpy()), context, deep, insert=insert is not None)
    wanted = naive_text(theirs, tokens, context, deep, insert)
    assert torch.allclose(ours, wanted, atol=2e-5 * float(wanted.detach().abs().max()))
    weight = torch.randn_like(ours)
    learned = [context, *deep.values()]
    gradients = (torch.autograd.grad((x * weight).sum(), learned) for x in (ours, wanted))
    for a, b in zip(*gradients, strict=True):
        assert torch.allclose(a, b, atol=1e-4 * float(b.abs().max()) + 1e-6)


def test_several_contexts_of_a_bidirectional_tower(made: Callable[[str], tuple[Path, float]]) -> None:
    path, _ = made("siglip")
    clip, tokens = load_backbone(path), load_tokenizer(path)(TEXTS)
    slots = torch.full(tokens.shape, -1)
    slots[:, 1:3] = torch.arange(2)
    packed, contexts = clip.text.pack(tokens, slots.numpy()), torch.randn(3, 2, 32)
    deep = {1: torch.randn(2, 32)}
    together = clip.text(packed, contexts, deep)
    alone = torch.stack([clip.text(packed, one, deep) for one in contexts])
    assert together.shape == (3, len(TEXTS), 64)
    assert torch.allclose(together, alone, atol=1e-4)
    with pytest.raises(ValueError, match="one context"):
        clip.text(packed, contexts, {1: torch.randn(len(TEXTS), 2, 32)})


@pytest.mark.parametrize("pool", ["argmax", "eos", "last", "first"])
@pytest.mark.parametrize("both_ways", [False, True])
def test_masks_and_poolings(tmp_path: Path, pool: str, both_ways: bool) -> None:
    """What open_clip can configure for its own text tower is exported and proved equal."""
    config = FAMILIES["siglip"]
    text = config["text_cfg"] | {"pool_type": pool, "no_causal_mask": both_ways, "eos_id": 49407, "layers": 2}
    (tmp_path / "own.json").write_text(json.dumps(config | {"text_cfg": text}))
    assert make_backbone("x", str(tmp_path / "own.json"), "random", tmp_path / "backbone.json")[1] < 1e-5
    packed = "causal" not in read_json(tmp_path / "backbone.json", "cpt.backbone/1")["spec"]["text"]
    assert packed == (not both_ways and pool in ("argmax", "eos")), "the fast path is for towers that allow it"


# ---- text towers of transformers -----------------------------------------------------------------


def naive_encoder(theirs: Any, own: list[int], context: Tensor, deep: dict[int, Tensor], insert: int | None) -> Tensor:
    """One prompt without padding, through transformers' own layers: context at positions 1..n, deep prompts as told."""
    encoder, bert = theirs.text.transformer, hasattr(theirs.text.transformer, "embeddings")
    ids = torch.tensor([own])
    words = (encoder.embeddings.word_embeddings if bert else encoder.embed_tokens)(ids)
    x = torch.cat([words[:, :1], context[None], words[:, 1 + len(context) :]], dim=1)
    x = encoder.embeddings(inputs_embeds=x) if bert else x + encoder.embed_positions(ids)
    for i, layer in enumerate(encoder.encoder.layer if bert else encoder.layers):
        if i in deep:
            x = torch.cat([x[:, :1], deep[i][None], x[:, 1 if i == insert else 1 + len(deep[i]) :]], dim=1)
        out = layer(x, None)
        x = out if isinstance(out, Tensor) else out[0]
    if not bert:
        x = encoder.layer_norm(x)
    pooler = getattr(encoder, "pooler", None)
    held = SimpleNamespace(last_hidden_state=x)
    pooled = pooler(x) if pooler is not None else theirs.text.pooler(held, torch.ones(x.shape[:2]))
    return theirs.text.proj(pooled)[0]


@pytest.mark.parametrize("insert", [None, 1])
@pytest.mark.parametrize("family", ENCODERS)
def test_prompts_of_an_encoder_of_transformers(
    family: str, insert: int | None, made: Callable[[str], tuple[Path, float]]
) -> None:
    """Features and gradients of prompts of unequal length are those of each prompt alone, without padding."""
    path, _ = made(family)
    clip, theirs = load_backbone(path), model(family)
    tokens = load_tokenizer(path)(TEXTS, context_length=clip.text.context_length)
    lengths = (tokens.argmax(dim=1) + 1).tolist()
    assert len(set(lengths)) > 1
    torch.manual_seed(0)
    context = torch.randn(3, 32, requires_grad=True)
    deep = {i: torch.randn(2, 32, requires_grad=True) for i in (1, 2)}
    slots = np.full(tuple(tokens.shape), -1)
    slots[:, 1:4] = np.arange(3)
    packed = clip.text.pack(tokens, slots)
    assert packed.shape[1] == max(lengths), "padding that nobody sees is not computed"
    ours = clip.text(packed, context, deep, insert=insert is not None)
    rows = [row[:length].tolist() for row, length in zip(packed.ids, lengths, strict=True)]
    wanted = torch.stack([naive_encoder(theirs, row, context, deep, insert) for row in rows])
    assert torch.allclose(ours, wanted, atol=2e-5 * float(wanted.detach().abs().max()))
    weight = torch.randn_like(ours)
    gradients = (torch.autograd.grad((x * weight).sum(), [context, *deep.values()]) for x in (ours, wanted))
    for a, b in zip(*gradients, strict=True):
        assert torch.allclose(a, b, atol=1e-4 * float(b.abs().max()) + 1e-6)
    several = torch.stack([context.detach(), torch.randn(3, 32)])
    with torch.no_grad():
        together = clip.text(packed, several, deep)
        alone = torch.stack([clip.text(packed, one, deep) for one in several])
    assert torch.allclose(together, alone, atol=2e-5 * float(alone.abs().max()))


def encoder_config(tmp_path: Path, kind: str, text: dict[str, Any] | None = None, **others: Any) -> str:
    """A model configuration in a file, with an encoder of a model type."""
    write_encoder(tmp_path / "encoder", kind, **others)
    write_tokenizer(tmp_path / "encoder", pad=0 if kind == "bert" else 1)
    own = {"hf_model_name": str(tmp_path / "encoder"), "hf_tokenizer_name": str(tmp_path / "encoder")}
    config = configuration("roberta") | {"text_cfg": own | {"hf_proj_type": "linear"} | (text or {})}
    (tmp_path / "own.json").write_text(json.dumps(config))
    return str(tmp_path / "own.json")


@pytest.mark.parametrize("pool", [None, "cls_pooler", "cls_last_hidden_state_pooler", "mean_pooler"])
@pytest.mark.parametrize("kind", ["bert", "roberta", "xlm-roberta", "m2m_100"])
def test_encoders_and_poolings(tmp_path: Path, kind: str, pool: str | None) -> None:
    architecture = encoder_config(tmp_path, kind, {"hf_pooler_type": pool, "hf_proj_type": "mlp"})
    assert make_backbone("x", architecture, "random", tmp_path / "backbone.json")[1] < 1e-5


def test_weights_of_older_transformers(tmp_path: Path) -> None:
    """They also have positions, which are no weights."""
    for family, name in (("bert", "embeddings.position_ids"), ("m2m_100", "embed_positions.weights")):
        state = {key: value.contiguous() for key, value in model(family).state_dict().items()}
        save_file(state | {f"text.transformer.{name}": torch.zeros(1, 92)}, tmp_path / "weights.safetensors")
        (tmp_path / "own.json").write_text(json.dumps(configuration(family)))
        weights = str(tmp_path / "weights.safetensors")
        assert make_backbone("x", str(tmp_path / "own.json"), weights, tmp_path / "backbone.json")[1] < 1e-5


@pytest.mark.parametrize(
    ("kind", "text", "others", "message"),
    [
        ("mt5", {}, {}, "model type mt5 (supported: bert, roberta, xlm-roberta, m2m_100)"),
        ("roberta", {"hf_pooler_type": "max_pooler"}, {}, "pooling max_pooler (supported: cls_pooler, "),
        ("bert", {}, {"hidden_act": "tanh"}, "activation tanh (supported: gelu, gelu_new, "),
        ("roberta", {}, {"is_decoder": True}, "a decoder (supported: encoders)"),
        ("roberta", {}, {"vocab_size": 60}, "backbone: the tokenizer has 135 tokens, text tower "),
        ("roberta", {}, {"pad_token_id": 0}, "backbone: the tokenizer pads with 1, text tower "),
        ("roberta", {"context_length": 89}, {}, f"has {POSITIONS - 2} positions, text_cfg.context_length is 89; lower"),
        ("bert", {"hf_proj_type": None}, {}, "hf_proj_type None does not lead from its width 32 to embed_dim 24; give"),
        (
            "bert",
            {"hf_proj_type": "none"},
            {},
            "hf_proj_type none does not lead from its width 32 to embed_dim 24; ",
        ),
        ("bert", {"context_length": 91}, {}, f"has {POSITIONS} positions, text_cfg.context_length is 91; lower it"),
        ("roberta", {"hf_tokenizer_name": ""}, {}, "text_cfg.hf_tokenizer_name beside hf_model_name"),
        ("roberta", {"hf_model_name": "/nowhere"}, {}, "text tower /nowhere cannot be read ("),
    ],
)
def test_refused_encoders(
    tmp_path: Path, kind: str, text: dict[str, Any], others: dict[str, Any], message: str
) -> None:
    architecture = encoder_config(tmp_path, kind, text, **others)
    for see in (partial(check, architecture, "random"), partial(make_backbone, "x", architecture, "random", tmp_path)):
        with pytest.raises(CptError) as refused:
            see()
        assert message in str(refused.value), "the plan of an experiment says the same"
        assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("form", "options", "message"),
    [
        ("$A </s> <s>", {}, "whose texts are not the words, perhaps one token before them, an end token that"),
        ("<s> $A </s> <s>", {}, "whose texts are not the words"),
        ("$A <s> </s>", {}, "whose texts are not the words"),
        ("<s> $A </s>", {"padding_side": "left"}, "whose texts are not the words"),
        ("<s> $A </s>", {"eos_token": "<pad>"}, "whose texts are not the words"),
        ("<s> $A", {"eos_token": "<pad>"}, "the tokenizer ends texts with 1, the padding of text tower"),
        ("<s> </s>", {}, "knows no words: its vocabulary is missing; name the tokenizer that the model was trained"),
    ],
)
def test_refused_forms_of_texts(tmp_path: Path, form: str, options: dict[str, Any], message: str) -> None:
    """Of the tokenizer beside an encoder: what our rows cannot say is not altered in silence."""
    architecture = encoder_config(tmp_path, "roberta")
    write_tokenizer(tmp_path / "encoder", form=form, **options)
    with pytest.raises(CptError, match=message):
        check(architecture, "random")


def test_a_folder_without_a_vocabulary_is_refused(tmp_path: Path) -> None:
    """transformers makes a tokenizer of five tokens from the encoder's configuration alone."""
    architecture = encoder_config(tmp_path, "bert")
    for path in (tmp_path / "encoder").glob("tokenizer*"):
        path.unlink()
    with pytest.raises(CptError, match=r"knows no words: its vocabulary is missing|cannot be read"):
        check(architecture, "random")


def test_vocab_size_beside_an_encoder_means_nothing(tmp_path: Path) -> None:
    """As in open_clip. Ids above it must not end a text."""
    plain, told = (check(encoder_config(tmp_path, "roberta", text), "random")[0] for text in ({}, {"vocab_size": 60}))
    rows = [tokenizer(["a photo of zzz cat"], context_length=20) for tokenizer in (plain, told)]
    assert torch.equal(*rows)
    assert int(rows[0].argmax()) == 10  # <s> a photo of z ##z ##z c ##a ##t </s>


def test_an_encoder_whose_tokenizer_has_no_start_token(tmp_path: Path) -> None:
    """All of its positions hold words, and the plan counts as the jobs do."""
    architecture = encoder_config(tmp_path, "roberta", {"context_length": 20})
    write_tokenizer(tmp_path / "encoder", form="$A </s>")
    assert make_backbone("x", architecture, "random", tmp_path / "backbone.json")[1] < 1e-5
    tokenizer, length = check(architecture, "random")
    clip = load_backbone(tmp_path / "backbone.json")
    assert length == clip.text.context_length == 21
    assert clip.text.pack(tokenizer(["z" * 19], context_length=length)).ids.shape == (1, 20)


@pytest.mark.parametrize("part", ["text tower", "tokenizer"])
def test_code_of_a_hub_folder_is_not_run(tmp_path: Path, part: str) -> None:
    """transformers would run a module beside the configuration, if asked to."""
    architecture = encoder_config(tmp_path, "roberta", {"tokenizer_kwargs": {"trust_remote_code": True}})
    (tmp_path / "encoder/own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    changed = {"text tower": "config.json", "tokenizer": "tokenizer_config.json"}[part]
    path = tmp_path / "encoder" / changed
    code = {"model_type": "own", "auto_map": {"AutoConfig": "own.Own"}}
    if part == "tokenizer":
        code = {"tokenizer_class": "Own", "auto_map": {"AutoTokenizer": ["own.Own", "own.Own"]}}
    path.write_text(json.dumps(json.loads(path.read_text()) | code))
    with contextlib.suppress(CptError):  # or transformers has its own code for it
        make_backbone("x", architecture, "random", tmp_path / "backbone.json")
    assert not (tmp_path / "ran").exists()


# ---- prompts in image towers ---------------------------------------------------------------------


def naive_siglip(theirs: open_clip.CustomTextCLIP, images: Tensor, prompts: dict[int, Tensor]) -> Tensor:
    """With timm's own blocks: prompts behind the patches, which alone are pooled."""
    trunk = theirs.visual.trunk
    x = trunk.patch_embed(images) + trunk.pos_embed
    patches = x.shape[1]
    for i, block in enumerate(trunk.blocks):
        if i in prompts:
            x = torch.cat([x[:, :patches], prompts[i].expand(len(x), -1, -1)], dim=1)
        x = block(x)
    return theirs.visual.head(trunk.attn_pool(trunk.norm(x)[:, :patches]))


def naive_eva(theirs: open_clip.CustomTextCLIP, images: Tensor, prompts: dict[int, Tensor]) -> Tensor:
    """With timm's own blocks: prompts behind the patches, turned by an angle of zero."""
    trunk = theirs.visual.trunk
    x, rope = trunk._pos_embed(trunk.patch_embed(images))
    x, tokens = trunk.norm_pre(x), x.shape[1]
    for i, block in enumerate(trunk.blocks):
        if i in prompts:
            own = prompts[i].expand(len(x), -1, -1)
            x = torch.cat([x[:, :tokens], own if i else trunk.norm_pre(own)], dim=1)
        angles = rope
        if rope is not None:
            shape = x.shape[1] - tokens, rope.shape[1] // 2
            angles = torch.cat([rope, torch.cat([torch.zeros(shape), torch.ones(shape)], dim=1)])
        x = block(x, rope=angles)
    return theirs.visual.head(trunk.forward_head(trunk.norm(x)[:, :tokens]))


Naive = Callable[[open_clip.CustomTextCLIP, Tensor, dict[int, Tensor]], Tensor]


@pytest.mark.parametrize(
    ("family", "naive"),
    [("siglip", naive_siglip), ("siglip2", naive_siglip), ("eva", naive_eva), ("eva02", naive_eva), ("pe", naive_eva)],
)
def test_prompts_of_a_tower_of_timm(family: str, naive: Naive, made: Callable[[str], tuple[Path, float]]) -> None:
    clip = load_backbone(made(family)[0])
    torch.manual_seed(0)
    images = torch.randn(2, 3, 32, 32)
    prompts = {i: torch.randn(2, 64, requires_grad=True) for i in (0, 2)}
    ours, wanted = clip.vision(images, prompts[0], {2: prompts[2]}), naive(model(family), images, prompts)
    assert torch.allclose(ours, wanted, atol=2e-5 * float(wanted.detach().abs().max()))
    for a, b in zip(*(torch.autograd.grad(x.square().sum(), prompts.values()) for x in (ours, wanted)), strict=True):
        assert torch.allclose(a, b, atol=1e-4 * float(b.abs().max()))


def test_what_is_pooled_and_prompts_as_tokens(made: Callable[[str], tuple[Path, float]]) -> None:
    """MMRL and LIFT read them: the pooled token first, as it leaves the head before a projection."""
    clip: Clip = load_backbone(made("gap")[0])
    images, prompts = torch.randn(2, 3, 32, 32), torch.randn(3, 64)
    tokens = clip.vision(images, prompts, tokens=3)
    assert tokens.shape == (2, 4, 64)
    assert torch.allclose(clip.vision.project(tokens[:, 0]), clip.vision(images, prompts), atol=1e-5)


def test_prompts_made_from_class_tokens_need_one(made: Callable[[str], tuple[Path, float]]) -> None:
    clip = load_backbone(made("siglip")[0])
    assert not clip.vision.inside.class_token
    with pytest.raises(CptError, match=r"method lamp: makes prompts from class tokens, and the image tower Vision"):
        clip.vision.inside.require("lamp", "class token")


# ---- image towers that are taken as they are -----------------------------------------------------


@pytest.mark.parametrize("family", sorted(UNCHANGED))
def test_a_tower_that_is_taken_as_it_is(family: str, made: Callable[[str], tuple[Path, float]]) -> None:
    """No batch statistics, no gradients, no draw from the global stream; it offers nothing to put prompts into."""
    torch.manual_seed(5)
    wanted = torch.rand(1)
    torch.manual_seed(5)
    clip = load_backbone(made(family)[0])
    assert torch.equal(torch.rand(1), wanted)
    images = torch.randn(4, 3, 32, 32)
    with torch.no_grad():
        together, alone = clip.vision(images), torch.cat([clip.vision(image[None]) for image in images])
    assert torch.allclose(together, alone, atol=1e-4 * float(together.abs().max()))
    assert not any(value.requires_grad for value in clip.vision.parameters())
    with pytest.raises(ValueError, match="neither prompts nor adapters"):
        clip.vision(images, torch.zeros(2, 24))


def test_inside_of_architectures() -> None:
    """Known without weights: what the plan of an experiment refuses, the jobs would."""
    found = {name: inside(name) for name in ("RN50", "ViT-B-16", "convnext_tiny", "vit_medium_patch16_gap_256")}
    assert {name: part.name for name, part in found.items()} == {
        "RN50": "ModifiedResNet",
        "ViT-B-16": "VisionTransformer",
        "convnext_tiny": "ConvNeXt of timm",
        "vit_medium_patch16_gap_256": "VisionTransformer of timm",
    }
    assert [part.blocks for part in found.values()] == [False, True, False, True]
    assert [part.class_token for part in found.values()] == [False, True, False, False]


# ---- tokenizers of transformers ------------------------------------------------------------------


class ToyTokenizer:
    """What open_clip's ``HFTokenizer`` offers: words are ids from 2, the end token is 1 and ``pad`` follows it."""

    def __init__(self, name: str, pad: int = 1, begins: int = 0, **_: Any) -> None:
        self.words = ["<s>", "</s>", "a", "photo", "of", "red", "boat", "cat", "dog"]
        self.pad, self.begins = pad, begins
        known = {"eos_token_id": 1, "pad_token_id": pad}
        self.tokenizer = SimpleNamespace(**known, get_vocab=lambda: {word: i for i, word in enumerate(self.words)})

    def __call__(self, texts: list[str], context_length: int) -> Tensor:
        rows = torch.full((len(texts), context_length), self.pad)
        for row, text in zip(rows, texts, strict=True):
            words = text.lower().replace(".", "").split()
            self.words += [word for word in dict.fromkeys(words) if word not in self.words]
            ids = [0] * self.begins + [self.words.index(word) for word in words]
            ids = [*ids[: context_length - 1], 1]
            row[: len(ids)] = torch.tensor(ids)
        return rows


def foreign(tmp_path: Path, **options: Any) -> str:
    config = FAMILIES["siglip"]
    text = config["text_cfg"] | {"hf_tokenizer_name": "toy", "vocab_size": 60, "tokenizer_kwargs": options}
    (tmp_path / "own.json").write_text(json.dumps(config | {"text_cfg": text}))
    return str(tmp_path / "own.json")


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """transformers with one tokenizer, in a folder."""
    (tmp_path / "toy").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("open_clip.tokenizer.HFTokenizer", ToyTokenizer)
    monkeypatch.setattr("cpt.clip.hub.find_spec", lambda _: True)


@pytest.mark.usefixtures("toy")
@pytest.mark.parametrize("pad", [1, 0])
def test_a_tokenizer_without_a_start_token(tmp_path: Path, pad: int) -> None:
    """Rows look like CLIP's to all that works on them; the tower sees its own, and prompts at their places."""
    assert make_backbone("x", foreign(tmp_path, pad=pad), "random", tmp_path / "backbone.json")[1] < 1e-5
    tokenizer, length = check(foreign(tmp_path, pad=pad), "random")
    clip = load_backbone(tmp_path / "backbone.json")
    assert length == clip.text.context_length == 65
    rows = tokenizer(["a photo of a", "a photo of a red boat."], context_length=length)
    assert rows[0, :6].tolist() == [60, 2, 3, 4, 2, 61]
    assert (rows.argmax(dim=1) - 1).tolist() == [4, 6]
    own = ToyTokenizer("toy", pad=pad)(["a photo of a", "a photo of a red boat."], context_length=64)
    model = shaken(json.loads(Path(foreign(tmp_path)).read_text()))
    save_file({name: value.contiguous() for name, value in model.state_dict().items()}, tmp_path / "w.safetensors")
    make_backbone("x", foreign(tmp_path, pad=pad), str(tmp_path / "w.safetensors"), tmp_path / "backbone.json")
    clip = load_backbone(tmp_path / "backbone.json")
    with torch.no_grad():
        ours, wanted = clip.text(clip.text.pack(rows)), model.encode_text(own)
        assert torch.allclose(ours, wanted, atol=1e-5 * float(wanted.abs().max()))
        slots = np.full(tuple(rows.shape), -1)
        slots[:, 1:5] = np.arange(4)
        context, packed = clip.text.embed(rows[0, 1:5]), clip.text.pack(rows, slots)
        assert torch.allclose(clip.text(packed, context), wanted, atol=1e-5 * float(wanted.abs().max()))
        deep = torch.randn(4, 32)
        x = model.text.token_embedding(own) + model.text.positional_embedding
        for i, block in enumerate(model.text.transformer.resblocks):
            x = block(torch.cat([deep.expand(2, -1, -1), x[:, 4:]], dim=1) if i == 1 else x)
        wanted = model.text.text_projection(model.text.ln_final(x)[:, -1])
        assert torch.allclose(clip.text(packed, context, {1: deep}), wanted, atol=1e-5 * float(wanted.abs().max()))


@pytest.mark.usefixtures("toy")
def test_a_tokenizer_with_a_start_token(tmp_path: Path) -> None:
    """The tower sees it, and rows are as long as the tower's."""
    assert make_backbone("x", foreign(tmp_path, begins=1), "random", tmp_path / "backbone.json")[1] < 1e-5
    tokenizer, length = check(foreign(tmp_path, begins=1), "random")
    clip = load_backbone(tmp_path / "backbone.json")
    assert length == clip.text.context_length == 64
    rows = tokenizer(["a photo of"], context_length=length)
    assert rows[0, :6].tolist() == [60, 2, 3, 4, 61, 0]
    assert clip.text.pack(rows).ids[0, :6].tolist() == [0, 2, 3, 4, 1, 1]


@pytest.mark.usefixtures("toy")
@pytest.mark.parametrize("begins", [0, 1])
def test_a_causal_tower_that_is_read_at_the_end_token_of_transformers(tmp_path: Path, begins: int) -> None:
    """MetaCLIP 2 ("worldwide"): mT5's tokenizer without a start token, XLM-V's with one."""
    text = FAMILIES["eva"]["text_cfg"] | {"pool_type": "eos", "eos_id": 1, "vocab_size": 60}
    text |= {"hf_tokenizer_name": "toy", "tokenizer_kwargs": {"begins": begins}}
    path = tmp_path / "own.json"
    path.write_text(json.dumps(FAMILIES["siglip"] | {"text_cfg": text}))
    model = shaken(FAMILIES["siglip"] | {"text_cfg": text})
    save_file({name: value.contiguous() for name, value in model.state_dict().items()}, tmp_path / "w.safetensors")
    weights = str(tmp_path / "w.safetensors")
    assert make_backbone("x", str(path), weights, tmp_path / "backbone.json")[1] < 1e-5
    clip, (tokenizer, length) = load_backbone(tmp_path / "backbone.json"), check(str(path), weights)
    texts = ["a photo of a", "a photo of a red boat."]
    own = ToyTokenizer("toy", begins=begins)(texts, context_length=77)
    with torch.no_grad():
        ours, wanted = clip.text(clip.text.pack(tokenizer(texts, context_length=length))), model.encode_text(own)
    assert torch.allclose(ours, wanted, atol=1e-5 * float(wanted.abs().max()))
    path.write_text(json.dumps(FAMILIES["siglip"] | {"text_cfg": text | {"eos_id": 2}}))
    with pytest.raises(CptError, match=r"text pooling at token 2 with a tokenizer that ends texts with 1 \(supported"):
        make_backbone("x", str(path), "random", tmp_path / "backbone.json")
    path.write_text(json.dumps(FAMILIES["siglip"] | {"text_cfg": text | {"pool_type": "argmax"}}))
    with pytest.raises(CptError, match="text pooling 'argmax' with a tokenizer of transformers"):
        check(str(path), "random")


@pytest.mark.usefixtures("toy")
def test_a_tokenizer_that_begins_texts_with_two_tokens(tmp_path: Path) -> None:
    with pytest.raises(CptError, match="tokenizer toy, whose texts are not the words, perhaps one token before them"):
        check(foreign(tmp_path, begins=2), "random")


def test_without_transformers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cpt.clip.hub.find_spec", lambda _: None)
    with pytest.raises(CptError, match="tokenizer toy is one of transformers, which is not installed; `pip install tr"):
        make_backbone("x", foreign(tmp_path), "random", tmp_path / "backbone.json")


def test_a_tokenizer_of_transformers(tmp_path: Path) -> None:
    """A real one, of words, in the form of SigLIP's."""
    transformers, tokenizers = pytest.importorskip("transformers"), pytest.importorskip("tokenizers")
    words = {word: i for i, word in enumerate(["<pad>", "</s>", "<unk>", "a", "photo", "of", "cat", "boat", "red"])}
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="<unk>"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    made.post_processor = tokenizers.processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    known = {"eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>", "padding_side": "right"}
    transformers.PreTrainedTokenizerFast(tokenizer_object=made, **known).save_pretrained(tmp_path / "words")
    config = FAMILIES["siglip"]
    text = config["text_cfg"] | {"hf_tokenizer_name": str(tmp_path / "words"), "vocab_size": 60}
    (tmp_path / "own.json").write_text(json.dumps(config | {"text_cfg": text}))
    assert make_backbone("x", str(tmp_path / "own.json"), "random", tmp_path / "backbone.json")[1] < 1e-5
    rows = load_tokenizer(tmp_path / "backbone.json")(["a red boat", "a cat"], context_length=65)
    assert rows[:, :6].tolist() == [[60, 3, 8, 7, 61, 0], [60, 3, 6, 61, 0, 0]]
