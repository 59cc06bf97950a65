"""What single methods promise beyond the contract: sizes, defaults, readings, chunks."""

from __future__ import annotations

import itertools
from dataclasses import replace
from functools import cache

import open_clip
import pytest
import torch
from pydantic import ValidationError
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from benchmarks import naive
from cpt.errors import CptError
from cpt.methods import cocoop, gla
from cpt.methods.base import registry
from cpt.methods.base.describe import learned_values, published, stored_values
from cpt.methods.base.hyperparameters import TrainingHyperparameters, resolve
from cpt.methods.base.layers import Projections
from cpt.methods.base.method import TrainingSet
from cpt.methods.base.sizes import placeholder_classes, small_clip, vit_b16
from cpt.methods.clip_lora import LowRank
from cpt.seeds import torch_stream
from tests.helpers.contract import CLASSES, OTHERS, Toy, classes, frozen_weights, images, model

SHOWN = images(range(6), view=9)
sized = cache(vit_b16)


@pytest.mark.parametrize(
    ("name", "protocol", "dataset", "expected"),
    [
        ("zeroshot", "base_to_new", "dtd", 0),
        ("coop", "base_to_new", "dtd", 2_048),
        ("cocoop", "base_to_new", "dtd", 35_360),
        ("kgcoop", "base_to_new", "dtd", 4 * 512),
        ("tcp", "base_to_new", "dtd", 4 * 512 + 513 * 128 + 129 * 4 * 512),
        ("dekg", "base_to_new", "dtd", 2_048),
        ("dekg_tcp", "base_to_new", "dtd", 331_904),
        ("ivlp", "base_to_new", "dtd", 46_080),
        ("ivlp", "all_classes", "imagenet", 15_360),
        ("promptsrc", "base_to_new", "dtd", 46_080),
        ("promptsrc", "all_classes", "imagenet", 15_360),
        ("cpt", "base_to_new", "dtd", 46_080),
        ("cpt", "all_classes", "imagenet", 15_360),
        ("maple", "base_to_new", "dtd", 3_555_072),
        ("maple", "all_classes", "imagenet", 1_185_024),
        ("npt", "base_to_new", "dtd", 3_555_072),
        ("npt", "all_classes", "imagenet", 1_185_024),
        ("coprompt", "all_classes", "imagenet", 5_014_528),
        ("coprompt", "base_to_new", "caltech101", 5_014_528),
        ("coprompt", "base_to_new", "dtd", 5_002_240),
        ("coprompt", "base_to_new", "food101", 3_826_432),
        ("dpc", "base_to_new", "dtd", 46_080),
        ("mmrl", "base_to_new", "dtd", 5 * 512 + 7 * 513 * (768 + 512) + 768 * 512),
        ("mmrl", "few_shot", "eurosat", 5 * 2048 + 7 * 2049 * (768 + 512) + 768 * 512),
        ("clip_lora", "base_to_new", "dtd", 12 * 3 * 2 * 2 * (768 + 512)),
        ("dpc", "all_classes", "imagenet", 15_360),
        ("mma", "base_to_new", "dtd", 8 * (2 * 32 * 512 + 32 + 512 + 2 * 32 * 768 + 32 + 768 + 32 * 32 + 32)),
        ("lift", "base_to_new", "dtd", 3 * 768 + 12 * (2 * 768 + 1 + 2 * 768 + 1 + 768)),
    ],
)
def test_learned_values_on_vit_b16(name: str, protocol: str, dataset: str, expected: int) -> None:
    """The published counts; what is stored is the same, but for the finished run's prompts that DPC keeps."""
    clip = sized()
    method = registry.get(name)(
        clip, published(name, protocol, dataset), placeholder_classes(clip, 3), torch_stream(0, "unused")
    )
    assert method.learnable_parameters() == expected
    stored = sum(value.numel() for value in method.state_dict().values())
    assert stored == (2 if name == "dpc" else 1) * expected


@pytest.mark.parametrize(
    ("name", "expected", "biases"),
    [
        ("lamp", 10 * (32 * (2 + 2 * 3) + 2 * 33 * 32 + 33 * (512 + 768)), 2 * 10 * 3),
        ("lamp_abstract", 8 * 2 * 512 + 513 * (512 + 768) + 8 * (8 * 2 * (512 + 768) + 2 * 512), 2 * 8),
    ],
)
def test_values_of_lamp_on_vit_b16(name: str, expected: int, biases: int) -> None:
    """Latents, two layers a block and modality; or shared prompts, two layers and two pools. Biases are stored too."""
    assert learned_values(name, "base_to_new") == expected
    assert stored_values(name, published(name, "base_to_new")) == expected + biases


@pytest.mark.parametrize(("count", "width"), [(48, 2), (50, 2), (1000, 32)])
def test_lift_learns_more_for_more_classes(count: int, width: int) -> None:
    """A row of the head for every class, and adapters whose width follows from the classes."""
    clip = sized()
    hp = published("lift", "all_classes")
    method = registry.get("lift")(clip, hp, placeholder_classes(clip, count), torch_stream(0, "unused"))
    adapter = 2 * 768 + 1 + 768 * width + width + width * 768 + 768
    assert method.learnable_parameters() == count * 768 + 12 * adapter


def test_vit_b16_has_the_shapes_of_open_clip() -> None:
    with torch.device("meta"):
        theirs = open_clip.CLIP(**open_clip.get_model_config("ViT-B-16"))
    clip = vit_b16()
    ours = {}
    for prefix, tower in (("", clip.text), ("visual.", clip.vision)):
        ours |= {prefix + name.removeprefix("blocks."): tuple(t.shape) for name, t in tower.state_dict().items()}
    expected = {name.replace("transformer.resblocks.", ""): tuple(t.shape) for name, t in theirs.state_dict().items()}
    del expected["logit_scale"]

    def flat(shapes: dict[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
        return {name.replace(".", "_"): shape for name, shape in shapes.items()}

    assert flat(ours) == flat(expected)
    assert all(t.is_meta for tower in (clip.text, clip.vision) for t in tower.state_dict().values())
    assert clip.text.blocks[0].heads == theirs.transformer.resblocks[0].attn.num_heads
    assert clip.vision.blocks[0].heads == theirs.visual.transformer.resblocks[0].attn.num_heads


def test_the_small_clip_computes() -> None:
    clip = small_clip()
    classes = placeholder_classes(clip, 3)
    method = registry.get("ivlp")(clip, published("ivlp", "base_to_new"), classes, torch_stream(0, "unused"))
    text, image = method.text_features(classes), method.image_features(torch.ones(2, 3, *clip.image_size))
    assert (text.shape, image.shape) == ((3, 8), (2, 8))
    assert (text @ text.T - torch.eye(3)).abs().max() > 0.01
    assert (text[0] - text[1]).abs().max() > 1e-3
    assert len(clip.text.blocks) == len(clip.vision.blocks) == 12


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        (
            "ivlp",
            {"depth_text": 13},
            "prompt depth 13 exceeds the text tower's 12 blocks; set depth_text to at most 12",
        ),
        (
            "ivlp",
            {"depth_vision": 13},
            "prompt depth 13 exceeds the vision tower's 12 blocks; set depth_vision to at most 12",
        ),
        ("maple", {"depth": 13}, "prompt depth 13 exceeds the vision tower's 12 blocks; set depth to at most 12"),
        ("dekg_tcp", {"block": 12}, "block 12: the text tower has the blocks 0 to 11; lower it"),
        ("lamp", {"last_block": 12}, "last_block 12: the text tower has the blocks 0 to 11; lower it"),
        ("lamp", {"last_block": 1}, "last_block 1: comes before first_block 2; raise it"),
        ("lamp_abstract", {"first_block": 9}, "last_block 8: comes before first_block 9; raise it"),
        ("lamp_abstract", {"top_k": 9}, "top_k 9: the pool has 8 entries; lower it"),
        ("lamp_abstract", {"shared_prompts": 3}, "5 prompts do not fit the 4 words"),
        ("lift", {"blocks": [0, 12]}, "blocks 12: the vision tower has the blocks 0 to 11; lower it"),
        ("mma", {"last_block": 12}, "last_block 12: the text tower has the blocks 0 to 11; lower it"),
        ("mma", {"last_block": 3}, "last_block 3: comes before first_block 4; raise it"),
        ("candle", {"heads": 7}, "heads 7: does not divide the joint width 80; lower it to 5"),
        ("gla", {"start": "cocoop"}, "start: 'cocoop' cannot be continued; use coop or promptsrc"),
        (
            "gla",
            {"start": "ivlp", "tuned_temperature": "search"},
            "image features of its own; set tuned_temperature: one",
        ),
        ("mmrl", {"last_block": 12}, "last_block 12: the text tower has the blocks 0 to 11; lower it"),
        ("mmrl", {"last_block": 4}, "last_block 4: comes before first_block 5; raise it"),
        ("dpc", {"start": "mmrl"}, "start: 'mmrl' cannot be continued"),
        ("dpc", {"start": "zeroshot"}, "start: 'zeroshot' cannot be continued; use promptsrc or coop"),
        ("dpc", {"start": "cocoop"}, "start: 'cocoop' cannot be continued"),
        ("dpc", {"start": "dpc"}, "start: 'dpc' cannot be continued"),
        ("dpc", {"start": "promptsrcs"}, "unknown method 'promptsrcs'; did you mean 'promptsrc'"),
    ],
)
def test_what_cannot_be_made_is_refused(name: str, changes: dict, message: str) -> None:
    kind = registry.get(name)
    toy = Toy("zeroshot")
    with pytest.raises(CptError, match=message):
        kind(toy.clip, kind.hyperparameters(**changes), toy.classes, torch_stream(0, "unused"))


@pytest.mark.parametrize("name", ["mmrl", "clip_lora", "lamp"])
def test_prompts_are_the_datasets_own(name: str) -> None:
    toy = Toy(name).shaken()
    texts = toy.method.text_features(toy.classes)
    other = replace(toy.classes, tokens=toy.classes.tokens.flip(0), dataset_tokens=toy.classes.tokens.flip(0))
    assert torch.equal(toy.method.text_features(other), texts)
    other = replace(toy.classes, template_tokens=toy.classes.template_tokens.flip(0))
    assert torch.allclose(toy.method.text_features(other), texts.flip(0), atol=1e-5)


def test_mmrl_mixes_for_trained_classes_alone() -> None:
    toy = Toy("mmrl", class_share=0.25).shaken()
    method, width = toy.method.eval(), toy.clip.embed_dim
    with torch.no_grad():
        mixed = method.image_features(SHOWN)
        method.target(trained=False)
        plain, text = method.image_features(SHOWN), method.text_features(toy.classes)
    assert (mixed.shape[1], plain.shape[1], text.shape[1]) == (2 * width, width, width)
    assert torch.allclose(mixed[:, :width], 0.5 * plain, atol=1e-6)
    own = mixed[:, width:] / 0.75**0.5
    assert torch.allclose(own.norm(dim=1), torch.ones(len(SHOWN)))
    expected = 100 * (0.25 * plain + 0.75 * own) @ text.T
    assert torch.allclose(toy.scores(SHOWN), expected, atol=1e-3)


@pytest.mark.parametrize("name", ["mmrl", "lamp"])
def test_all_blocks_projections_begin_as_one(name: str) -> None:
    layers = [layer for layer in Toy(name).method.modules() if isinstance(layer, Projections)]
    assert len(layers) == {"mmrl": 2, "lamp": 4}[name]
    for layer in layers:
        assert torch.equal(layer.weight, layer.weight[:1].expand_as(layer.weight))
        assert torch.equal(layer.bias, layer.bias[:1].expand_as(layer.bias))


def test_dropout_of_clip_lora_is_of_its_steps_alone() -> None:
    toy, calm = Toy("clip_lora").shaken(), Toy("clip_lora", dropout=0.0).shaken()
    batches = [toy.at(range(6), step) for step in (0, 0, 1)]
    losses = [float(toy.step(batch).losses["cross_entropy"].detach()) for batch in batches]
    plain = float(calm.step(batches[0]).losses["cross_entropy"].detach())
    assert losses[0] == losses[1], "the step decides"
    assert len({*losses, plain}) == 3
    with torch.no_grad():
        for part in ("image", "text"):
            found = [getattr(each.method, f"{part}_features") for each in (toy, calm)]
            given = SHOWN if part == "image" else toy.classes
            assert toy.method.training
            assert torch.equal(found[0](given), found[1](given))
    toy.method.eval()
    assert float(toy.step(batches[0]).losses["cross_entropy"].detach()) == plain


def test_every_block_of_clip_lora_has_masks_of_its_own() -> None:
    toy = Toy("clip_lora")
    keys = [toy.method.draw(toy.at(range(6), step), toy.training).drawn for step in (0, 1)]
    assert keys[0].shape == (24, 2)
    assert len({*keys[0].flatten().tolist(), *keys[1].flatten().tolist()}) == 96


def test_all_four_matrices_of_clip_lora_have_masks_of_their_own() -> None:
    """Changes of rank d that are the identity, so that what is added is what dropout has kept."""
    width = 64
    same = torch.eye(width).unsqueeze(0)
    added = LowRank((same.expand(3, -1, -1),) * 2, (same, same), torch.tensor([[11], [12]]), 0.25)
    ones = torch.ones(2, 5, width)
    kept = [
        *added.qkv(ones, torch.zeros(2, 5, 3 * width)).chunk(3, dim=-1),
        added.projected(ones, torch.zeros_like(ones)),
    ]
    patterns = {tuple((each == 0).flatten().tolist()) for each in kept}
    assert len(patterns) == 4
    assert all(0.15 < sum(pattern) / len(pattern) < 0.35 for pattern in patterns)


@pytest.mark.parametrize(("encoder", "matrices"), [("both", "qkvo"), ("text", "o"), ("vision", "kv"), ("both", "qo")])
def test_clip_lora_merges_into_the_weights(encoder: str, matrices: str) -> None:
    toy = Toy("clip_lora", encoder=encoder, matrices=matrices, alpha=4.0, rank=3).shaken()
    before = {key: value.clone() for key, value in frozen_weights(toy.clip).items()}
    merged = toy.method.merged()
    with torch.no_grad():
        image, text = merged.vision(SHOWN), merged.text(merged.text.pack(toy.classes.template_tokens))
        assert torch.allclose(F.normalize(image, dim=-1), toy.method.image_features(SHOWN), atol=1e-5)
        if encoder != "vision":  # whose texts are the mean over the templates
            assert torch.allclose(F.normalize(text, dim=-1), toy.method.text_features(toy.classes), atol=1e-5)
    changed = {key for key, value in frozen_weights(merged).items() if not torch.equal(value, before[key])}
    places = {"attn_out_proj_weight": "o" in matrices, "attn_in_proj_weight": matrices != "o"}
    towers = ("text", "vision") if encoder == "both" else (encoder,)
    assert changed == {f"{t}.blocks.{i}.{p}" for t in towers for i in range(12) for p, there in places.items() if there}
    assert all(torch.equal(value, before[key]) for key, value in frozen_weights(toy.clip).items())
    assert toy.kind.keeps_images(toy.hp) == (encoder == "text")


@pytest.mark.parametrize("matrices", ["", "vk", "qq", "x"])
def test_unknown_matrices_are_refused(matrices: str) -> None:
    with pytest.raises(ValidationError, match="matrices"):
        registry.get("clip_lora").hyperparameters(matrices=matrices)


def test_cpt_without_weights_is_ivlp_bit_by_bit() -> None:
    states = []
    for name, changes in (("ivlp", {}), ("cpt", {"tetf_weight": 0, "cc_weight": 0, "rs_weight": 0})):
        toy = Toy(name, **changes)
        toy.train(epochs=2)
        states.append(toy.method.state_dict())
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


def test_npt_and_coprompt_contain_maple() -> None:
    """With the regularizers' weights at zero NPT steps as MaPLe; without adapters CoPrompt's features are MaPLe's."""
    maple, npt = Toy("maple"), Toy("npt", collapse_weight=0, isomorphism_weight=0)
    for toy in (maple, npt):
        toy.train()
    assert all(torch.equal(value, npt.method.state_dict()[key]) for key, value in maple.method.state_dict().items())
    maple = Toy("maple", prompts=4, depth=12)
    coprompt = Toy("coprompt", text_adapter=0, image_adapter=0)
    coprompt.method.load_state_dict(maple.shaken().method.state_dict(), strict=False)
    assert torch.allclose(maple.scores(SHOWN), coprompt.scores(SHOWN), atol=1e-5)


def test_every_reading_of_cpt_trains() -> None:
    readings = {
        "tetf_reading": ["pairs", "sum", "entries"],
        "cc_reading": ["present", "importance"],
        "rs_features": ["unit", "raw"],
        "contrast": ["cross_entropy", "in_batch"],
        "tetf_by_size": [True],
        "cc_detach_text": [True],
    }
    values = set()
    for key, value in itertools.chain.from_iterable(((k, v) for v in vs) for k, vs in readings.items()):
        toy = Toy("cpt", **{key: value}).shaken()
        toy.training = replace(toy.training, clusters=torch.tensor([0, 0, 1, 1, 1]))
        loss = toy.loss()
        loss.backward()
        assert all(parameter.grad.isfinite().all() for parameter in toy.method.parameters())
        values.add(round(loss.item(), 6))
    assert len(values) == 7  # a reading that changed nothing would not be read


def test_words_without_depth_reproduce_zero_shot() -> None:
    """Shallow text prompts start as the template's words: the prompted forward pass is the frozen one."""
    ivlp, zero = Toy("ivlp", depth_text=1, depth_vision=0), Toy("zeroshot")
    single = F.normalize(zero.clip.vision(SHOWN), dim=-1), naive.text_features(model(), zero.classes.tokens)
    expected = 30 * single[0] @ F.normalize(single[1], dim=-1).T
    assert torch.allclose(ivlp.scores(SHOWN), expected, atol=1e-3)
    assert torch.allclose(zero.scores(SHOWN), 30 * single[0] @ zero.classes.directions.T, atol=1e-4)


def test_dpc_mixes_for_trained_classes_only() -> None:
    """Trained classes: 0.2 P' + 0.8 P; others: P alone, which is the finished run's prediction bit by bit."""
    toy = Toy("dpc")
    finished = Toy("promptsrc")
    finished.method.load_state_dict(toy.method.parallel.state_dict())
    before = finished.scores(SHOWN)
    assert torch.allclose(toy.scores(SHOWN), before, atol=1e-4), "P' starts as P"
    toy.shaken()
    assert torch.equal(toy.scores(SHOWN, trained=False), before)
    mixed = Toy("promptsrc")
    parallel, tuned = toy.method.parallel.state_dict(), finished.method.state_dict()
    mixed.method.load_state_dict({key: 0.2 * parallel[key] + 0.8 * tuned[key] for key in tuned})
    assert torch.allclose(toy.scores(SHOWN), mixed.scores(SHOWN), atol=1e-4)
    assert (toy.scores(SHOWN) - before).abs().max() > 0.01
    toy.method.train()
    with torch.no_grad():
        in_training = toy.method.text_features(toy.classes)
        finished.method.load_state_dict(parallel)
        assert torch.equal(in_training, finished.method.text_features(toy.classes)), "P' alone is trained"


@pytest.mark.parametrize("start", [name for name in registry.names() if registry.continuable(name)])
def test_dpc_continues_every_method(start: str) -> None:
    toy = Toy("dpc", start=start, warmup_epochs=0)  # steps that move gains near one, too
    before = toy.scores(SHOWN, trained=False)
    tuned = {key: value.clone() for key, value in toy.method.tuned().items()}
    toy.train()
    assert torch.equal(toy.scores(SHOWN, trained=False), before)
    for key, value in toy.method.tuned().items():
        assert torch.equal(value, tuned[key]), key
        assert not torch.equal(value, toy.method.parallel.get_parameter(key)), key
    assert not torch.equal(toy.scores(SHOWN), before)


@pytest.mark.parametrize("prompts", [1, 10, 30])
def test_cocoop_in_chunks_is_cocoop(prompts: int, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Toy("cocoop").shaken()
    expected, gradients = whole.scores(SHOWN), whole.gradients()
    monkeypatch.setattr(cocoop, "PROMPTS", prompts)
    chunked = Toy("cocoop").shaken()
    calls: list[int] = []
    handle = chunked.clip.text.register_forward_hook(lambda _, inputs, features: calls.append(len(features)))
    assert torch.allclose(chunked.scores(SHOWN), expected, atol=1e-4)
    at_a_time = max(1, prompts // 5)
    parts = [at_a_time] * (6 // at_a_time) + [6 % at_a_time] * (6 % at_a_time > 0)
    assert calls == parts, "images at a time"
    calls.clear()
    found = chunked.gradients()
    handle.remove()
    again = parts if len(parts) > 1 else []
    assert sorted(calls) == sorted(parts + again), "in training encoded again in the backward pass"
    for key, value in gradients.items():
        assert torch.allclose(found[key], value, atol=1e-5 * float(value.abs().max())), key


@pytest.mark.parametrize("position", ["middle", "front"])
def test_classes_are_permuted_with_the_lengths_of_their_names(position: str) -> None:
    toy = Toy("coop", context_length=5, class_position=position).shaken()
    order = [3, 0, 4, 2, 1]
    assert torch.allclose(toy.scores(SHOWN, toy.classes.take(order)), toy.scores(SHOWN)[:, order], atol=2e-4)


def test_cocoop_keeps_no_texts_of_many_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """A whole test set at once: no tensor has a text feature for every image and class."""
    toy, largest = Toy("cocoop"), 0
    monkeypatch.setattr(cocoop, "PROMPTS", 2 * len(CLASSES))

    class Watch(TorchFunctionMode):
        def __torch_function__(self, function, types, given=(), named=None):
            nonlocal largest
            made = function(*given, **(named or {}))
            if isinstance(made, torch.Tensor) and made.shape[1:] == (len(CLASSES), toy.clip.embed_dim):
                largest = max(largest, len(made))
            return made

    many = F.normalize(torch.randn(40, toy.clip.embed_dim, generator=torch.Generator().manual_seed(0)), dim=-1)
    with torch.no_grad(), Watch():
        assert toy.method.class_logits(many, toy.classes).shape == (40, len(CLASSES))
    assert largest == 2


def test_cocoop_by_hand() -> None:
    """Image by image with open_clip's own blocks: context + W2 relu(W1 x + b1) + b2."""
    toy = Toy("cocoop").shaken()
    net, context = toy.method.meta_net, toy.method.text.context.detach()
    with torch.no_grad():
        features = F.normalize(toy.clip.vision(SHOWN), dim=-1)
        rows = []
        for x in features:
            hidden = (net.first.weight @ x + net.first.bias).clamp(min=0)
            shift = net.second.weight @ hidden + net.second.bias
            text = naive.text_features(model(), toy.classes.tokens, context + shift)
            rows.append(30 * F.normalize(text, dim=-1) @ x)
    assert torch.allclose(toy.scores(SHOWN), torch.stack(rows), atol=1e-3)


@pytest.mark.parametrize(
    ("name", "text", "vision", "chosen"),
    [("lamp_abstract", "text_pool", "image_pool", 2 * len(CLASSES)), ("lamp", "text", "vision", 1)],
)
def test_lamp_balances_its_pools(name: str, text: str, vision: str, chosen: int) -> None:
    """The bias moves by one step against the load, outside the loss, and a frozen pass counts for nothing."""
    toy = Toy(name)
    pool = getattr(toy.method, text)
    toy.scores(SHOWN)
    with torch.no_grad():
        toy.loss()
    assert not pool.load.any()
    toy.loss().backward()
    load = pool.load.clone().view(-1, pool.load.shape[-1])  # of every block, or of all
    assert (load.sum(dim=1) == chosen).all()
    toy.method.step_end()
    expected = [[0.001 * ((own.mean() > one).float() - (own.mean() < one).float()) for one in own] for own in load]
    assert pool.bias.flatten().tolist() == torch.tensor(expected).flatten().tolist()
    assert not pool.load.any()
    assert pool.bias.grad is None
    assert f"{text}.bias" in toy.method.state_dict()
    toy = Toy(name)
    toy.train()
    assert getattr(toy.method, vision).bias.any(), "the loop balances after its steps"


def test_coprompt_compares_with_the_other_view_and_one_description() -> None:
    """1 - cos of the prompted first view to the frozen second one, and of the texts to a description of the step."""
    toy = Toy("coprompt").shaken()
    batch = toy.batch()
    with torch.no_grad():
        found = toy.step(batch).losses
        first, text = toy.method.image_features(batch.images), toy.method.text_features(toy.classes)
        second = toy.clip.vision(batch.second)
    assert not torch.equal(batch.images, batch.second)
    assert found["consistency_image"].item() == pytest.approx(1 - F.cosine_similarity(first, second).mean().item())
    each = [1 - F.cosine_similarity(text, described).mean().item() for described in toy.training.descriptions]
    assert sum(abs(found["consistency_text"].item() - distance) < 1e-5 for distance in each) == 1
    chosen = set()
    for step in range(12):
        with torch.no_grad():
            distance = toy.step(toy.at([0, 1], step)).losses["consistency_text"].item()
        chosen.add(min(range(3), key=lambda d: abs(each[d] - distance)))
    assert chosen == {0, 1, 2}


def test_promptsrc_averages_its_epochs() -> None:
    """The final prompts are the Gaussian-weighted sum of those after each epoch."""
    toy = Toy("promptsrc", average_mean=2, average_std=1, snapshots=True)
    toy.method.hp = toy.hp.model_copy(update={"epochs": 3})
    after: list[dict[str, torch.Tensor]] = []
    original = toy.method.epoch_end

    def epoch_end(epoch: int) -> None:
        after.append({key: value.detach().clone() for key, value in toy.method.named_parameters()})
        original(epoch)

    toy.method.epoch_end = epoch_end
    toy.train(epochs=3)
    density = torch.exp(-0.5 * torch.tensor([1.0, 0.0, 1.0]))
    weights = density / density.sum()
    for key, value in toy.method.named_parameters():
        expected = sum(weight * state[key] for weight, state in zip(weights, after, strict=True))
        assert torch.allclose(value, expected, atol=1e-6), key


def test_settings_of_losses_for_long_tails_are_read() -> None:
    for given, changes in (
        ({"loss": "focal"}, {"focal_gamma": 0.5}),
        ({"loss": "ldam"}, {"ldam_margin": 0.3}),
        ({"loss": "lade"}, {"lade_weight": 0.5}),
        ({"loss": "lade"}, {"lade_regularization": 0.5}),
        ({"reweight": "class_balanced"}, {"class_balanced_beta": 0.5}),
        ({"reweight": "generalized"}, {"generalized_exponent": 0.5}),
    ):
        plain, one, other = (Toy("ivlp", **settings).loss().item() for settings in ({}, given, given | changes))
        assert len({plain, one, other}) == 3, changes


def test_strength_and_kind_of_the_prior_are_read() -> None:
    settings = ({}, {"prior_strength": 0.5}, {"prior": "compensating"})
    losses = {Toy("ivlp", **{"prior": "logit_adjustment"} | changes).loss().item() for changes in settings}
    assert len(losses) == 3


@pytest.mark.parametrize("name", ["ivlp", "maple", "promptsrc", "dekg_tcp", "lamp", "lamp_abstract"])
def test_random_prompts_start_as_published(name: str) -> None:
    """N(0, 0.02²): deep text prompts, visual prompts, contexts without words."""
    method = Toy(name).method
    drawn = [
        value.detach().flatten()
        for key, value in method.named_parameters()
        if any(part in key for part in ("text.deep", "visual", "pool", "shared"))
        or (key == "text.context" and name == "dekg_tcp")
    ]
    values = torch.cat(drawn)
    assert values.std().item() == pytest.approx(0.02, rel=4 / len(values) ** 0.5)
    assert abs(values.mean().item()) < 4 * 0.02 / len(values) ** 0.5


@pytest.mark.parametrize("name", ["cocoop", "maple", "coprompt", "dekg_tcp", "lamp_abstract"])
def test_linear_layers_start_like_torchs(name: str) -> None:
    layers = [layer for layer in Toy(name).method.modules() if isinstance(layer, torch.nn.Linear)]
    assert layers
    for layer in layers:
        ours, theirs = layer.weight.detach(), torch.nn.Linear(layer.in_features, layer.out_features).weight.detach()
        assert ours.abs().max().item() == pytest.approx(theirs.abs().max().item(), rel=0.05)
        assert ours.std().item() == pytest.approx(theirs.std().item(), rel=0.2)
        if layer.bias is not None:
            assert layer.bias.abs().max() <= layer.in_features**-0.5


def test_unknown_method_names_the_nearest() -> None:
    with pytest.raises(CptError, match="unknown method 'ivpl'; did you mean 'ivlp'"):
        registry.get("ivpl")


def test_defaults_by_protocol_and_dataset() -> None:
    kind = registry.get("cpt").hyperparameters
    assert resolve(kind, "base_to_new", "world").depth_text == 9
    assert resolve(kind, "all_classes", "world").depth_text == 3
    assert resolve(kind, "all_classes", "world").epochs == 8
    assert resolve(kind, "few_shot", "world").epochs == 25
    assert resolve(kind, "all_classes", "world", {"depth_text": 5}, {"depth_text": 6}).depth_text == 6
    coprompt = registry.get("coprompt").hyperparameters
    assert resolve(coprompt, "base_to_new", "food101").epochs == 5
    assert resolve(coprompt, "base_to_new", "food101", {"epochs": 6}).epochs == 6
    assert resolve(coprompt, "all_classes", "world").consistency_weight == 8
    with pytest.raises(ValidationError):
        resolve(kind, "base_to_new", "world", {"tetf_wieght": 1})
    with pytest.raises(ValidationError):
        TrainingHyperparameters(learning_rate=0)


def test_npt_by_hand() -> None:
    """Both regularizers pair by pair, as the docstring of the method describes them."""
    toy = Toy("npt").shaken()
    batch = toy.batch()
    found = toy.step(batch).losses
    with torch.no_grad():
        text, image = toy.method.text_features(toy.classes), toy.method.image_features(batch.images)
    target = -1 / (len(CLASSES) - 1)
    pairs = [float(a @ b - target) ** 2 for a, b in itertools.permutations(text, 2)]
    distances = [float((x - text[y]).square().sum()) for x, y in zip(image, batch.labels.tolist(), strict=True)]
    assert found["collapse"].item() == pytest.approx(sum(pairs) / len(pairs), rel=1e-4)
    assert found["isomorphism"].item() == pytest.approx(sum(distances) / len(distances), rel=1e-4)
    assert toy.method.weights() == {"collapse": 0.1, "isomorphism": 1.0}


def test_lift_scores_a_class_without_a_row_by_its_text() -> None:
    """Through the transposed projection; a class that was trained keeps its row, wherever it stands."""
    toy = Toy("lift", CLASSES[:3]).shaken()
    projection = model().visual.proj
    both = classes(("trombone", CLASSES[2], "air-plane", CLASSES[0]))
    with torch.no_grad():
        found = toy.method.text_features(both)
        texts = F.normalize(F.normalize(both.frozen, dim=-1) @ projection.T, dim=-1)
        head = F.normalize(toy.method.head, dim=-1)
    assert torch.allclose(found, torch.stack([texts[0], head[2], texts[2], head[0]]), atol=1e-6)
    assert not torch.allclose(found[1], texts[1], atol=1e-3)


def test_crops_of_an_image_are_classified_together() -> None:
    """Their logits are averaged, not their probabilities."""
    toy = Toy("lift", test_crops=5).shaken()
    assert toy.method.test_crops == 5
    crops = images(range(15)).unflatten(0, (3, 5))
    with torch.no_grad():
        together = toy.method.class_logits(toy.method.test_features(crops), toy.classes)
        each = [toy.method.class_logits(toy.method.image_features(crops[:, i]), toy.classes) for i in range(5)]
    assert torch.allclose(together, torch.stack(each).mean(dim=0), atol=1e-4)


def test_adapters_start_as_published() -> None:
    """LIFT: Down normal with variance 1 / 3d, Up zero, factor and gains one. MMA: normal with variance 2 / outputs."""
    added, both = (Toy(name, adapter_width=64).method for name in ("lift", "mma"))
    learned = {name: value.detach() for name, value in (*added.named_parameters("lift"), *both.named_parameters("mma"))}

    def spread(start: str, end: str) -> float:
        found = [value for name, value in learned.items() if name.startswith(start) and name.endswith(end)]
        return float(torch.stack(found).std())

    assert spread("lift", "down.weight") == pytest.approx((3 * 48) ** -0.5, rel=0.03)
    assert spread("mma.shared", "weight") == pytest.approx((2 / 64) ** 0.5, rel=0.03)
    for tower, width in (("text", 32), ("visual", 48)):
        assert spread(f"mma.{tower}", "down.weight") == pytest.approx((2 / 64) ** 0.5, rel=0.03)
        assert spread(f"mma.{tower}", "up.weight") == pytest.approx((2 / width) ** 0.5, rel=0.03)
    for name, value in learned.items():
        if name.startswith("lift") and name.endswith(("scale", "norm.weight")):
            assert (value == 1).all(), name
        elif name.endswith("bias") or (name.startswith("lift") and name.endswith("up.weight")):
            assert (value == 0).all(), name


@pytest.mark.parametrize("new", [0, 23])
def test_learned_values_of_candle(new: int) -> None:
    """Both projections, attention, norm, ratio, and a virtual prototype of every new class."""
    clip = sized()
    every = placeholder_classes(clip, 24 + new)
    trained = every.take(range(24))
    method = registry.get("candle")(clip, published("candle", "base_to_new"), trained, torch_stream(0, "unused"))
    others = every.take(range(24, 24 + new)) if new else None
    training = TrainingSet(trained, torch.ones(24), labels=torch.arange(24), new_classes=others)
    method.prepare(replace(training, counts=training.counts.to("meta")), torch.ones(24, 512, device="meta"))
    assert method.learnable_parameters() == 2 * 512**2 + (4 * 512**2 + 4 * 512) + 2 * 512 + 1 + new * 512
    assert method.learnable_parameters() == 1_575_937 + 512 * new


def test_candle_scores_a_class_without_prototypes_by_its_text() -> None:
    """It joins the sequence behind the known ones, with its text feature as both prototypes."""
    toy = Toy("candle", CLASSES[:3]).shaken()
    both = classes(("trombone", CLASSES[2], "moth", CLASSES[0]))  # trombone was new, moth was never named
    with torch.no_grad():
        visual, text, rows = toy.method.known(both)
        own = toy.method.projected()
    assert rows.tolist() == [3, 2, 6, 0]
    assert (len(visual), len(text)) == (7, 7)
    assert torch.equal(visual[:6], own[0])
    assert torch.equal(text[:6], own[1])
    assert torch.allclose(visual[6], both.frozen[2] @ toy.method.image_projection, atol=1e-6)
    assert torch.allclose(text[6], both.frozen[2] @ toy.method.text_projection, atol=1e-6)


def test_candle_knows_new_classes_again_after_loading() -> None:
    toy = Toy("candle", CLASSES[:3]).shaken()
    hp, trained = toy.hp, toy.classes
    loaded = registry.get("candle")(toy.clip, hp, trained, torch_stream(1, "unused"))
    loaded.load_state_dict(toy.method.state_dict())
    new = classes(("trombone", "sea horse"))
    for method in (toy.method, loaded):
        method.eval()
    with torch.no_grad():
        image = toy.method.image_features(SHOWN)
        assert torch.equal(toy.method.class_logits(image, new), loaded.class_logits(image, new))
        assert loaded.known(new)[2].tolist() == [3, 5]


def test_candle_fuses_images_in_chunks_of_their_order() -> None:
    toy = Toy("candle", chunk=4).shaken()
    scores = toy.scores(SHOWN)
    assert torch.allclose(scores, torch.cat([toy.scores(SHOWN[:4]), toy.scores(SHOWN[4:])]), atol=1e-4)
    assert not torch.allclose(scores, Toy("candle", chunk=6).shaken().scores(SHOWN), atol=1e-3)


def test_candle_can_classify_each_image_by_itself() -> None:
    """Then nothing attends to images, and a batch of others changes nothing, in training neither."""
    toy = Toy("candle", batch_attention=False).shaken()
    alone = torch.cat([toy.scores(image.unsqueeze(0)) for image in SHOWN])
    assert torch.allclose(toy.scores(SHOWN), alone, atol=2e-4)
    with torch.no_grad():
        prototypes = toy.method.projected()
        features = toy.method.fusion.norm.weight.new_ones(2, 80)
        few, many = (toy.method.fuse(images, *prototypes) for images in (features[:1], 3 * features))
    assert torch.allclose(few[1], many[1], atol=1e-5)
    assert torch.allclose(few[2], many[2], atol=1e-5)


def test_candle_trains_without_new_classes() -> None:
    """As where all classes are trained."""
    toy = Toy("candle")
    toy.training = replace(toy.training, new_classes=None)
    toy.method.prepare(toy.training, toy.frozen())
    toy.train()
    assert toy.method.virtual.shape == (0, 80)
    assert toy.scores(SHOWN).isfinite().all()


def test_candle_does_without_the_prior_of_counts() -> None:
    with_prior, without = (Toy("candle", compensating=on).shaken().loss() for on in (True, False))
    assert not torch.allclose(with_prior, without, rtol=1e-3)


def gla_fit(toy: Toy) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Zero-shot logits of the training images over T, their labels, and log p, in float64."""
    training = toy.training
    frozen = F.normalize(toy.frozen(), dim=-1) @ toy.classes.directions.T * 30
    log_p = (training.counts / training.counts.sum()).log().double()
    return frozen.double() / toy.method.temperatures[1], toy.labels, log_p


@pytest.mark.parametrize("correction", ["none", "published", "long_tailed"])
def test_gla_subtracts_the_priors(correction: str) -> None:
    """q is where no other one has a smaller cross-entropy; the long-tailed one is fit with log p beside it."""
    toy = Toy("gla", correction=correction)
    logits, labels, log_p = gla_fit(toy)
    log_q = -toy.method.correction.double() - log_p * (correction != "none")
    assert log_q.exp().sum().item() == pytest.approx(1, abs=1e-5)
    beside = log_p if correction == "long_tailed" else 0 * log_p

    def loss(of: torch.Tensor) -> float:
        return F.cross_entropy(logits - of + beside, labels).item()

    generator = torch.Generator().manual_seed(0)
    for size in (1e-2, 1e-1):
        for _ in range(5):
            moved = log_q + size * torch.randn(len(log_q), generator=generator, dtype=torch.float64)
            assert loss(log_q) < loss(moved)
    summed = (logits - log_q + beside).softmax(dim=1).sum(dim=0)
    assert torch.allclose(summed, toy.training.counts.double(), atol=1e-3)


def test_gla_adds_tuned_and_zero_shot_logits() -> None:
    """New classes are corrected by nothing among themselves; trained ones keep their correction among others."""
    toy = Toy("gla", CLASSES[:3])
    method, new = toy.method, classes(OTHERS[:2])
    mixed = classes((OTHERS[0], CLASSES[1], CLASSES[0]))
    with torch.no_grad():
        frozen = F.normalize(toy.clip.vision(SHOWN), dim=-1)
        for shown in (toy.classes, new, mixed):
            tuned = frozen @ method.tuned.text_features(shown).T
            given = 30 * (tuned + frozen @ shown.directions.T / method.temperatures[1])
            corrections = toy.scores(SHOWN, shown) - given
            assert torch.allclose(corrections, corrections[:1].expand_as(corrections), atol=1e-4)
            if shown is new:
                assert torch.allclose(corrections[0, 0], corrections[0, 1], atol=1e-4)
            if shown is mixed:
                own = torch.stack([method.correction.mean(), method.correction[1], method.correction[0]])
                assert torch.allclose(corrections[0], own, atol=1e-4)


@pytest.mark.parametrize(
    ("changes", "balanced"),
    [
        ({"prior": "logit_adjustment"}, True),
        ({"loss": "lade"}, True),
        ({"reweight": "class_balanced"}, True),
        ({"sampler": "class_balanced"}, True),
        ({"loss": "ldam"}, False),
        ({"loss": "focal"}, False),
    ],
)
def test_gla_takes_a_run_that_makes_up_for_frequencies_as_balanced(changes: dict[str, str], balanced: bool) -> None:
    plain, other = (Toy("gla", start_hyperparameters=given).method.correction for given in ({}, changes))
    counts = Toy("gla").training.counts
    assert torch.allclose(other - plain, balanced * (counts / counts.sum()).log(), atol=1e-5)


def test_gla_keeps_a_run_that_prompts_images() -> None:
    toy = Toy("gla", start="ivlp")
    with torch.no_grad():
        tuned = toy.method.tuned.image_features(SHOWN)
        found = toy.method.image_features(SHOWN)[:, :80]
    assert torch.allclose(F.normalize(found, dim=-1), tuned, atol=1e-5)
    assert not torch.allclose(tuned, F.normalize(toy.clip.vision(SHOWN), dim=-1), atol=1e-3)


@pytest.mark.parametrize("right", [0.05, 0.5, 0.9, 1])
def test_the_mean_confidence_of_gla_is_the_accuracy(right: float) -> None:
    """At its temperature; an accuracy below what chance is confident of gives a uniform classifier."""
    logits = 5 * torch.randn(200, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    labels = (logits.argmax(dim=1) + (torch.arange(200) >= 200 * right)) % 5
    found = (logits / gla.temperature(logits, labels, 0.1)).softmax(dim=1).amax(dim=1).mean().item()
    assert found == pytest.approx(max(right, 0.2), abs=0.03 if right < 0.2 else 0.0011)


def test_gla_searches_the_temperature_of_the_run_too() -> None:
    assert Toy("gla").method.temperatures[0] == 1
    assert Toy("gla", tuned_temperature="search").method.temperatures[0] != 1
