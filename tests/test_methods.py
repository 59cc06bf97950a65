"""The contract that every method of the registry keeps; a new file in cpt/methods is picked up by itself."""

from __future__ import annotations

import itertools

import pytest
import torch
from pydantic import ValidationError

from cpt.errors import CptError
from cpt.methods import registry
from cpt.methods.base import Batch, Training
from cpt.methods.hyperparameters import Trained, resolve
from cpt.seeds import torch_stream
from tests.golden_clip import classes_of, clip_of, golden_clip

NAMES = registry.names()
TRAINED = [name for name in NAMES if registry.get(name).trains]
CONTEXT_OF_ANY_LENGTH = [
    name for name in TRAINED if "context_length" in registry.get(name).hyperparameters.model_fields
]  # the others replace words of the template, whose length the text-features stage has checked
CLASSES = ["tench", "golden retriever", "Boeing 737-300", "pistol shrimp", "hard-leaved pocket orchid"]
SHALLOW = {"depth_text": 2, "depth_vision": 2}


def make(name: str, names: list[str], seed: int = 0, clip=None, **changes):
    clip = clip or golden_clip()
    kind = registry.get(name)
    values = {k: v for k, v in (SHALLOW | changes).items() if k in kind.hyperparameters.model_fields}
    classes = classes_of(clip, names, ["a photo of a {}."])
    method = kind(clip, kind.hyperparameters(**values), classes, torch_stream(seed, "initial prompts"))
    clusters = torch.arange(len(names)) // 2
    return method, Training(classes, torch.ones(len(names)), clusters)


def batch(classes: int, seed: int = 0, size: int = 6) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(size) % classes
    return Batch(torch.randn(size, 3, 32, 32, generator=generator), None, labels)


def logits(method, training: Training, images: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return method.logits(method.image_features(images), method.text_features(training.classes))


def steps(method, training: Training, count: int = 3, rate: float = 0.01) -> list[float]:
    optimiser = torch.optim.SGD(method.parameters(), lr=rate, momentum=0.9)
    losses = []
    for _ in range(count):
        loss = method.total(method.losses(batch(len(training.classes)), training))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("count", [1, 2, 5])
def test_logits_for_any_number_of_classes(name: str, count: int) -> None:
    method, training = make(name, CLASSES[:count])
    assert logits(method, training, batch(count).images).shape == (6, count)


@pytest.mark.parametrize("name", NAMES)
def test_documented(name: str) -> None:
    kind = registry.get(name)
    assert kind.title
    assert kind.summary
    assert kind.source
    for field, info in kind.hyperparameters.model_fields.items():
        assert info.description, field
        assert info.json_schema_extra["source"], field


@pytest.mark.parametrize("name", TRAINED)
def test_a_step_changes_prompts_only(name: str) -> None:
    method, training = make(name, CLASSES)
    towers = [*method.clip.text.state_dict().values(), *method.clip.vision.state_dict().values()]
    before = [value.clone() for value in towers]
    start = {key: value.clone() for key, value in method.state_dict().items()}
    steps(method, training, 1)
    assert all(torch.equal(a, b) for a, b in zip(before, towers, strict=True))
    assert all(value.grad is None for value in towers)
    for key, parameter in method.named_parameters():
        assert parameter.grad is not None, key
        assert not torch.equal(parameter, start[key]), key


@pytest.mark.parametrize("name", TRAINED)
def test_loss_falls(name: str) -> None:
    method, training = make(name, CLASSES)
    losses = steps(method, training, 8)
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("name", NAMES)
def test_saved_and_loaded(name: str) -> None:
    method, training = make(name, CLASSES)
    if method.trains:
        steps(method, training, 2)
    other, _ = make(name, CLASSES, seed=1)
    other.load_state_dict(method.state_dict())
    images = batch(5).images
    assert torch.equal(logits(method, training, images), logits(other, training, images))


@pytest.mark.parametrize("name", TRAINED)
def test_trained_on_base_tested_on_new(name: str) -> None:
    method, training = make(name, CLASSES[:3])
    steps(method, training, 2)
    new = classes_of(method.clip, CLASSES[3:], ["a photo of a {}."])
    assert method.text_features(new).shape == (2, 64)


@pytest.mark.parametrize("name", TRAINED)
def test_seeds(name: str) -> None:
    runs = []
    for seed in (0, 0, 1):
        method, training = make(name, CLASSES, seed, words=False)
        steps(method, training, 2)
        runs.append(method.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(runs[0].values(), runs[1].values(), strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(runs[0].values(), runs[2].values(), strict=True))


@pytest.mark.parametrize("name", TRAINED)
def test_half_precision(name: str) -> None:
    clip = clip_of(small_like_golden())
    full, training = make(name, CLASSES, clip=clip)
    expected = full.losses(batch(5), training)
    clip.text.to(dtype=torch.bfloat16)
    clip.vision.to(dtype=torch.bfloat16)
    components = full.losses(batch(5), training)
    for key, value in components.items():
        assert value.dtype == torch.float32
        assert value.item() == pytest.approx(expected[key].item(), rel=0.15, abs=0.05), key


def small_like_golden():
    import copy

    from tests.golden_clip import model

    return copy.deepcopy(model())


@pytest.mark.parametrize("name", CONTEXT_OF_ANY_LENGTH)
def test_a_name_longer_than_the_context_is_refused(name: str) -> None:
    clip = golden_clip()
    long = classes_of(clip, CLASSES[:1], ["a photo of a {}."])
    kind = registry.get(name)
    method = kind(clip, kind.hyperparameters(context_length=75, words=False), long, torch_stream(0))
    with pytest.raises(CptError, match=r"tench.*context"):
        method.text_features(long)


def test_deeper_than_the_towers_is_refused() -> None:
    with pytest.raises(CptError, match="depth 9 exceeds the text tower's 4 blocks"):
        make("ivlp", CLASSES, depth_text=9)
    with pytest.raises(CptError, match="depth 9 exceeds the vision tower's 4 blocks"):
        make("ivlp", CLASSES, depth_vision=9)


def test_cpt_without_weights_is_ivlp_bit_by_bit() -> None:
    states = []
    for name, changes in (("ivlp", {}), ("cpt", {"tetf_weight": 0, "cc_weight": 0, "rs_weight": 0})):
        method, training = make(name, CLASSES, **changes)
        steps(method, training, 4)
        states.append(method.state_dict())
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


def test_every_reading_of_cpt_trains() -> None:
    readings = {
        "tetf_reading": ["pairs", "sum", "entries"],
        "cc_reading": ["present", "importance", "all"],
        "rs_features": ["unit", "raw"],
        "rs_reading": ["sum", "mean"],
        "contrast": ["cross_entropy", "in_batch"],
        "tetf_diagonal": [True],
        "tetf_by_size": [True],
        "cc_detach_text": [True],
    }
    values = set()
    for key, value in itertools.chain.from_iterable(((k, v) for v in vs) for k, vs in readings.items()):
        method, training = make("cpt", CLASSES, **{key: value})
        training = Training(training.classes, torch.tensor([3.0, 2, 2, 1, 1]), torch.tensor([0, 0, 1, 1, 1]))
        loss = method.total(method.losses(batch(3), training))
        loss.backward()
        assert all(parameter.grad.isfinite().all() for parameter in method.parameters())
        values.add(round(loss.item(), 6))
    assert len(values) == 10  # a reading that changed nothing would not be read


def test_prompts_of_zero_depth_reproduce_zero_shot() -> None:
    """Shallow text prompts start as the template's words: the prompted forward pass is the frozen one."""
    method, training = make("ivlp", CLASSES, depth_text=1, depth_vision=0)
    zero, _ = make("zeroshot", CLASSES)
    images = batch(5).images
    assert torch.allclose(logits(method, training, images), logits(zero, training, images), atol=1e-4)


def test_parameter_counts_at_vit_b16_widths() -> None:
    """46,080 values at depth 9 and 15,360 at depth 3 (text width 512, vision width 768)."""

    def count(depth: int, n: int = 4) -> int:
        return n * depth * 512 + n * depth * 768

    assert (count(9), count(3)) == (46080, 15360)
    method, _ = make("ivlp", CLASSES, depth_text=3, depth_vision=2)
    assert method.learnable_parameters() == 4 * 3 * 128 + 4 * 2 * 192


def test_unknown_method_names_the_nearest() -> None:
    with pytest.raises(CptError, match="unknown method 'ivpl'; did you mean 'ivlp'"):
        registry.get("ivpl")


def test_defaults_by_protocol() -> None:
    kind = registry.get("cpt").hyperparameters
    assert resolve(kind, "base_to_new", "world").depth_text == 9
    assert resolve(kind, "all_classes", "world").depth_text == 3
    assert resolve(kind, "all_classes", "world").epochs == 8
    assert resolve(kind, "few_shot", "world").epochs == 25
    assert resolve(kind, "all_classes", "world", {"depth_text": 5}, {"depth_text": 6}).depth_text == 6
    with pytest.raises(ValidationError):
        resolve(kind, "base_to_new", "world", {"tetf_wieght": 1})
    with pytest.raises(ValidationError):
        Trained(learning_rate=0)
