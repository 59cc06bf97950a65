"""The contract that every method of the registry keeps; a new file in cpt/methods is picked up by itself.

Tests whose only argument is ``name`` are run by tests/test_adding.py on the worked example too.
"""

from __future__ import annotations

import random
import typing
from functools import cache
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from torch.nn import functional as F

from cpt.errors import CptError
from cpt.methods.base import registry
from cpt.methods.base.hyperparameters import Starting, TrainingHyperparameters
from cpt.methods.base.method import Batch
from cpt.methods.base.prompts import TextPrompts
from cpt.training.optimizers import Optimizer
from tests.helpers.contract import (
    CLASSES,
    OTHERS,
    THOUSAND,
    InterruptedHereError,
    Toy,
    classes,
    frozen_weights,
    images,
    random_clip,
)
from tests.helpers.golden_clip import classes_of

NAMES = registry.names()
TRAINED = [name for name in NAMES if registry.get(name).trains]
SHOWN = images(range(6), view=9)
BLIND = "prior_only"
"""The method that looks at neither images nor names, as it declares."""

each = pytest.mark.parametrize("name", NAMES)
each_trained = pytest.mark.parametrize("name", TRAINED)


# 1 Logits


@each
@pytest.mark.parametrize("count", [1, 2, 5])
def test_logits_for_any_number_of_classes(name: str, count: int) -> None:
    toy = Toy(name, CLASSES[:count])
    for trained in (True, False):
        scores = toy.scores(SHOWN, trained=trained)
        assert scores.shape == (6, count)
        assert scores.dtype == torch.float32
        assert scores.isfinite().all()


@each
def test_logits_are_cosines_times_the_scale(name: str) -> None:
    toy = Toy(name).shaken()
    scores = toy.scores(SHOWN)
    if not toy.kind.own_classifier or toy.kind.image_conditioned:  # others may add to the cosines
        assert scores.abs().max() <= toy.method.scale * (1 + 1e-5)
    assert (scores.std(dim=0).min() > 1e-3) == (name != BLIND), "images are told apart"
    assert scores.std(dim=1).min() > 1e-3, "classes are told apart"


@each
def test_an_image_is_classified_by_itself_as_declared(name: str) -> None:
    toy = Toy(name).shaken()
    together = toy.scores(SHOWN)
    alone = torch.cat([toy.scores(image.unsqueeze(0)) for image in SHOWN])
    assert torch.allclose(together, alone, atol=2e-4) != toy.kind.depends_on_batch


@each
def test_features_are_unit_vectors(name: str) -> None:
    toy = Toy(name).shaken()
    with torch.no_grad():
        for features in (toy.method.image_features(SHOWN), toy.method.text_features(toy.classes)):
            assert torch.allclose(features.norm(dim=-1), torch.ones(()), atol=1e-5)
            assert features.shape[-1] == toy.method.feature_width


# 2 Gradients


@each_trained
def test_gradients_reach_all_learned_tensors_and_no_others(name: str) -> None:
    toy = Toy(name, on=(clip := random_clip()))
    before = {key: value.clone() for key, value in frozen_weights(clip).items()}
    start = {key: value.detach().clone() for key, value in toy.method.named_parameters()}
    optimizer = Optimizer(toy.method.parameters(), toy.hp)
    reached = dict.fromkeys(start, False)
    for step in range(2):
        for key, gradient in toy.gradients(step).items():
            assert gradient.isfinite().all(), key
            reached[key] |= bool(gradient.any())
        optimizer.step()
        toy.method.step_end()
    assert all(reached.values()), [key for key, found in reached.items() if not found]
    for key, value in toy.method.named_parameters():
        assert not torch.equal(value, start[key]), key
    for key, value in frozen_weights(clip).items():
        assert torch.equal(value, before[key]), key
        assert value.grad is None, key
        assert not value.requires_grad, key
    for key, value in toy.method.named_buffers():
        assert not value.requires_grad, key


@each
def test_learned_tensors_are_declared(name: str) -> None:
    """Everything that is learned is a float32 parameter and saved; nothing of CLIP is."""
    toy = Toy(name)
    parameters = dict(toy.method.named_parameters())
    assert bool(parameters) == toy.kind.trains
    assert parameters.keys() <= toy.method.state_dict().keys()
    assert all(value.dtype == torch.float32 for value in parameters.values())
    assert toy.method.learnable_parameters() == sum(value.numel() for value in parameters.values())
    weights = {value.data_ptr() for value in frozen_weights(toy.clip).values()}
    assert not weights & {value.data_ptr() for value in toy.method.state_dict().values()}


# 3 Saving and resuming


@each
def test_saved_and_loaded(name: str) -> None:
    toy = Toy(name)
    if toy.kind.trains:
        toy.train()
        toy.shaken()
    other = Toy(name, seed=1)
    other.method.load_state_dict({key: value.clone() for key, value in toy.method.state_dict().items()})
    for trained in (True, False):
        assert torch.equal(toy.scores(SHOWN, trained=trained), other.scores(SHOWN, trained=trained))
    for key, value in toy.method.named_buffers():
        assert torch.equal(value, other.method.get_buffer(key)), f"{key} is not saved"


@cache
def trained_at_once(name: str) -> dict[str, torch.Tensor]:
    toy = Toy(name)
    toy.train(epochs=2)
    return toy.method.state_dict()


@each_trained
@pytest.mark.parametrize("stop", [(1, 0), (1, 1)], ids=["between epochs", "in an epoch"])
def test_an_interrupted_training_gives_the_same_bits(name: str, stop: tuple[int, int], tmp_path: Path) -> None:
    killed, resumed = Toy(name), Toy(name)
    with pytest.raises(InterruptedHereError):
        killed.train(epochs=2, checkpoint=tmp_path / "checkpoint", stop=stop)
    loop = resumed.train(epochs=2, checkpoint=tmp_path / "checkpoint")
    assert loop.resumed
    expected, found = trained_at_once(name), resumed.method.state_dict()
    assert expected.keys() == found.keys()
    for key, value in expected.items():
        assert torch.equal(value, found[key]), key


# 4 Other classes


@each
def test_trained_on_some_classes_tested_on_others(name: str) -> None:
    toy = Toy(name, CLASSES[:3])
    if toy.kind.trains:
        toy.train()
    before = toy.scores(SHOWN)
    for count in (1, 2, 7):
        new = toy.scores(SHOWN, classes(OTHERS[:count]), trained=False)
        assert new.shape == (6, count)
        assert new.isfinite().all()
    assert torch.equal(toy.scores(SHOWN), before), "testing changes nothing"


@each
def test_features_depend_on_the_target_as_declared(name: str) -> None:
    toy = Toy(name).shaken()
    same = torch.equal(toy.scores(SHOWN, trained=True), toy.scores(SHOWN, trained=False))
    assert same != toy.kind.depends_on_target


@each
def test_a_classifier_of_its_own_is_declared(name: str) -> None:
    """``class_logits`` of the base is scaled cosines to ``text_features``; it differs where declared."""
    toy = Toy(name).shaken()
    with torch.no_grad():
        image = toy.method.image_features(SHOWN)
        plain = toy.method.scale * image @ toy.method.text_features(toy.classes).T
        same = torch.allclose(toy.method.class_logits(image, toy.classes), plain, atol=1e-4)
    assert same != toy.kind.own_classifier


@each
def test_the_vision_tower_is_prompted_as_declared(name: str) -> None:
    """Where it is not, prediction makes the method's features of cached frozen ones."""
    toy = Toy(name).shaken()
    with torch.no_grad():
        raw, found = toy.clip.vision(SHOWN), toy.method.image_features(SHOWN)
        frozen, made = F.normalize(raw, dim=-1), F.normalize(toy.method.from_frozen(raw), dim=-1)

    def same(one: torch.Tensor) -> bool:
        return found.shape == one.shape and torch.allclose(found, one, atol=1e-6)

    assert same(frozen) == toy.kind.keeps_images(toy.hp)
    assert same(made) != toy.kind.prompts_images


# 5 Learning


@each_trained
def test_a_step_gives_the_image_features_that_it_trained_on(name: str) -> None:
    toy = Toy(name).shaken()
    batch = toy.batch(size=6)
    step = toy.step(batch)
    assert step.image.shape == (len(step.labels), toy.method.feature_width)
    assert not step.image.requires_grad
    assert (step.image.norm(dim=1) - 1).abs().max() < 1e-5, "unit features"
    if name == "dpc":  # whose batches have hard negatives too
        assert (torch.bincount(step.labels) >= torch.bincount(batch.labels, minlength=int(step.labels.max()) + 1)).all()
    else:
        assert torch.equal(step.labels, batch.labels)


@each_trained
def test_loss_falls(name: str) -> None:
    toy = Toy(name)
    optimizer = Optimizer(toy.method.parameters(), toy.hp)
    optimizer.learning_rate = 2e-4
    losses = []
    for _ in range(6):
        loss = toy.loss(step=3)
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        toy.method.step_end()
    assert losses[-1] < losses[0]


@each_trained
def test_components_are_scalars_and_weights_name_them(name: str) -> None:
    toy = Toy(name)
    components = toy.step(toy.batch()).losses
    assert components
    assert all(value.shape == () and value.dtype == torch.float32 for value in components.values())
    weights = toy.method.weights()
    assert weights.keys() <= components.keys()
    expected = sum(weights.get(key, 1.0) * float(value.detach()) for key, value in components.items())
    assert toy.method.total(components).item() == pytest.approx(expected, rel=1e-5, abs=1e-6)


@each_trained
def test_cached_features_give_the_loss_of_the_images(name: str) -> None:
    """A training without augmentation may take frozen features from a file, where the method declares any use."""
    toy = Toy(name).shaken()
    if not toy.kind.uses_frozen_images and toy.kind.prompts_images:
        with pytest.raises(AssertionError):  # it needs images, and nothing else
            toy.step(Batch(None, torch.ones(6, 80), toy.batch().labels))
        return
    given = toy.at(range(6), cached=True)
    plain = Batch(images(range(6)), None, given.labels, random=random.Random("0 0"))
    from_file, from_images = (toy.method.total(toy.step(b).losses) for b in (given, plain))
    assert from_file.item() == pytest.approx(from_images.item(), rel=1e-5)


# 6 Seeds


@each_trained
def test_seeds(name: str) -> None:
    """The seed decides everything, streams of the whole process nothing."""
    states = []
    for seed, other in ((0, 1), (0, 2), (1, 1)):
        torch.manual_seed(other)
        np.random.seed(other)
        random.seed(other)
        streams = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
        toy = Toy(name, seed=seed)
        toy.train()
        assert torch.equal(torch.get_rng_state(), streams[0])
        assert (np.random.get_state()[1].tolist(), random.getstate()) == streams[1:]
        states.append(dict(toy.method.named_parameters()))
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    assert not any(torch.equal(states[0][key], states[2][key]) for key in states[0])


# 7 Precision


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@each_trained
def test_half_precision_backbone(name: str, dtype: torch.dtype) -> None:
    full = Toy(name).shaken()
    clip = random_clip()
    clip.text.to(dtype=dtype)
    clip.vision.to(dtype=dtype)
    half = Toy(name, on=clip)
    half.method.load_state_dict(full.method.state_dict())
    expected, found = full.scores(SHOWN), half.scores(SHOWN)
    assert found.dtype == torch.float32
    assert (expected - found).abs().max() < full.method.scale / 30
    assert not torch.equal(expected, found)
    components = half.step(half.batch()).losses
    assert all(value.dtype == torch.float32 and value.isfinite() for value in components.values())
    gradients, exact = half.gradients(), full.gradients()
    for key, parameter in half.method.named_parameters():
        assert parameter.dtype == torch.float32
        assert gradients[key].dtype == torch.float32
    ours, theirs = (torch.cat([found[key].flatten() for key in exact]) for found in (gradients, exact))
    assert F.cosine_similarity(ours, theirs, dim=0) > 0.9
    assert ours.isfinite().all()
    lost = sum(zeros(gradients[key]) - zeros(exact[key]) for key in exact)
    assert lost <= 1e-3 * len(ours), "too small for its numbers; a few are units of an adapter that switched off"


def zeros(gradient: torch.Tensor) -> int:
    """Values that are zero; a row of a matrix that is zero as a whole counts as one, a unit that is switched off."""
    zero = gradient == 0
    if gradient.dim() != 2:
        return int(zero.sum())
    off = zero.all(dim=1)
    return int(zero[~off].sum() + off.sum())


# 8 Names and sizes that do not fit


def filling(words: int) -> str:
    """A class name of so many tokens."""
    return " ".join(["cat"] * words)


@each
def test_a_name_that_fills_the_context(name: str) -> None:
    """The text-features stage lets names through whose prompts fit; the defaults of a method must take them."""
    toy = Toy(name).shaken()
    templates = ["a photo of a {}.", "a {}."]
    length = 77 - 2 - 4 - 1 - 5  # start, end, "a photo of a", ".", ", a type of thing"
    ending = "a photo of a {}, a type of thing."
    long = classes_of(toy.clip, [filling(length), filling(length - 1)], templates, dataset_template=ending)
    assert int(long.dataset_tokens.argmax(dim=1).max()) == 76
    scores = toy.scores(SHOWN, long)
    assert scores.isfinite().all()
    assert torch.allclose(scores[:, 0], scores[:, 1]) == (name == BLIND), "no name is cut"


def sizes(name: str) -> list[str]:
    """Hyperparameters that are whole numbers."""
    fields = registry.get(name).hyperparameters.model_fields
    return [field for field, info in fields.items() if info.annotation is int]


@pytest.mark.parametrize(("name", "field"), [(name, field) for name in TRAINED for field in sizes(name)])
def test_impossible_sizes_are_refused_in_one_line(name: str, field: str) -> None:
    """Every size works, or the message says which does not: the class whose prompt is too long, the block, ..."""
    try:
        toy = Toy(name, ["tench", "Boeing 737-300"], **{field: 76})
        toy.method.text_features(toy.classes)
    except CptError as error:
        message = str(error)
        assert "\n" not in message
        assert "76" in message or field in message
        assert any(fix in message for fix in ("lower", "raise", "shorten", f"set {field} to at most"))
        if "tokens" in message:
            assert message.startswith("class 'tench' with 76 context vectors")
    else:
        assert toy.scores(SHOWN).isfinite().all()


@each_trained
def test_a_prompt_longer_than_the_context_is_refused_by_the_class(name: str) -> None:
    """Five vectors in the place of ``a photo of a``: one token too many for a name that filled the context."""
    toy = Toy(name)
    long = classes_of(toy.clip, ["tench", filling(77 - 2 - 4 - 1)], ["{}"])
    assert int(long.tokens.argmax(dim=1).max()) == 76
    refused = []
    for field in sizes(name):
        try:
            features = Toy(name, **{field: 5}).method.text_features(long)
            assert features.isfinite().all(), field
        except CptError as error:
            refused.append(str(error))
    by_class = [message for message in refused if message.startswith("class 'cat cat cat")]
    assert all("5 context vectors needs 78 tokens, the backbone's context has 77;" in message for message in by_class)
    contexts = [module for module in toy.method.modules() if isinstance(module, TextPrompts)]
    if not isinstance(toy.hp, Starting):  # the sizes of a continued run are another method's
        assert bool(by_class) == bool(contexts)


# 9 The order of classes


@each
def test_permuted_classes_permute_the_logits(name: str) -> None:
    toy = Toy(name).shaken()
    order = [3, 0, 4, 2, 1]
    for trained in (True, False):
        permuted = toy.scores(SHOWN, toy.classes.take(order), trained=trained)
        assert torch.allclose(permuted, toy.scores(SHOWN, trained=trained)[:, order], atol=2e-4)


# 10 Documentation and the prior


@each
def test_documented(name: str) -> None:
    kind = registry.get(name)
    for words in (kind.title, kind.summary, kind.source, kind.__doc__):
        assert words
        assert words.strip() == words
    assert "\n" not in kind.summary
    for field, info in kind.hyperparameters.model_fields.items():
        assert info.description, field
        assert typing.cast("dict", info.json_schema_extra)["source"], field
    for layer in (*kind.hyperparameters.protocol_defaults.values(), *kind.hyperparameters.dataset_defaults.values()):
        kind.hyperparameters(**layer)


def offered(name: str, field: str) -> set[str]:
    """Values of a hyperparameter that the method has."""
    return set(typing.get_args(registry.get(name).hyperparameters.model_fields[field].annotation))


def priors(name: str) -> set[str]:
    """Class priors that the method has."""
    return offered(name, "prior")


@each_trained
def test_a_method_has_losses_for_long_tails_if_it_has_a_cross_entropy(name: str) -> None:
    toy = Toy(name)
    has_cross_entropy = "cross_entropy" in toy.step(toy.batch()).losses
    for field, plain, others in (
        ("prior", "none", {"logit_adjustment", "balanced_softmax", "compensating"}),
        ("loss", "cross_entropy", {"focal", "ldam", "lade"}),
        ("reweight", "none", {"class_balanced", "generalized"}),
    ):
        assert offered(name, field) == ({plain} | others if has_cross_entropy else {plain})
        assert getattr(toy.hp, field) in offered(name, field)


@each
def test_fields_that_came_later_have_one_default(name: str) -> None:
    """It is what a record without them means."""
    own = registry.get(name).hyperparameters
    assert set(own.added) <= own.model_fields.keys() or not registry.get(name).trains
    for layer in (*own.protocol_defaults.values(), *own.dataset_defaults.values()):
        assert not layer.keys() & set(own.added)
    for field in set(own.added):
        assert own.model_fields[field].default == TrainingHyperparameters.model_fields[field].default
    assert not own().model_dump().keys() & set(own.added)


@each_trained
def test_margins_and_weights_by_hand(name: str) -> None:
    """LDAM with class weights: margins are those of cosines, weights those of an image's class."""
    if offered(name, "loss") == {"cross_entropy"}:
        return
    given = {"loss": "ldam", "reweight": "generalized", "prior": "none", "text_share": 0.0, "batch_size": 6}
    toy = Toy(name, **given).shaken()
    plain, n, losses = toy.at(range(6)), toy.training.counts.double(), {}
    margins = toy.method.scale * 0.5 * (n / n.min()) ** -0.25
    for trained in (False, True) if toy.kind.depends_on_target else (True,):
        z = toy.scores(images(range(6)), trained=trained).double()
        z[range(6), plain.labels] -= margins[plain.labels]
        each_loss, weights = -z.log_softmax(dim=1)[range(6), plain.labels], 1 / n[plain.labels]
        losses[trained] = float((weights * each_loss).sum() / weights.sum())
    toy.method.eval()  # without dropout
    found = toy.step(plain).losses["cross_entropy"].item()
    assert any(found == pytest.approx(value, rel=1e-4) for value in losses.values())


@each_trained
def test_class_prior(name: str) -> None:
    """The prior of balanced classes changes no gradient, that of others does; two of them are the same loss."""

    def gradients(counts: list[int] | None = None, **changes: object) -> torch.Tensor:
        toy = Toy(name, counts=counts, **changes).shaken()
        return torch.cat([gradient.flatten() for gradient in toy.gradients().values()])

    def close(a: torch.Tensor, b: torch.Tensor) -> bool:
        return torch.allclose(a, b, atol=1e-4 * float(b.abs().max()))

    if (kinds := sorted(priors(name) - {"none"})) == []:
        return
    balanced = [3] * len(CLASSES)
    without = gradients(balanced, prior="none")
    assert all(close(gradients(balanced, prior=kind), without) for kind in kinds)
    plain, adjusted = gradients(prior="none"), gradients(prior="logit_adjustment")
    assert not close(adjusted, plain)
    assert close(gradients(prior="balanced_softmax"), adjusted)


@each_trained
def test_the_prior_by_hand(name: str) -> None:
    """Balanced softmax: -log(n_y exp(z_y) / sum_c n_c exp(z_c)), with the logits z for one of the targets."""
    if priors(name) == {"none"}:
        return
    toy = Toy(name, prior="balanced_softmax", text_share=0.0).shaken()  # of images alone
    plain, n = toy.at(range(6)), toy.training.counts.double()
    expected = []
    for trained in (False, True) if toy.kind.depends_on_target else (True,):
        z = toy.scores(images(range(6)), trained=trained).double()
        terms = [-torch.log(n[y] * z[i, y].exp() / (n * z[i].exp()).sum()) for i, y in enumerate(plain.labels.tolist())]
        expected.append(torch.stack(terms).mean().item())
    toy.method.eval()  # without dropout
    found = toy.step(plain).losses["cross_entropy"].item()
    assert any(found == pytest.approx(value, rel=1e-4) for value in expected)


# 12 Many classes


@each_trained
def test_a_thousand_classes(name: str) -> None:
    toy = Toy(name, THOUSAND, counts=[1] * 1000)
    optimizer = Optimizer(toy.method.parameters(), toy.hp)
    loss = toy.loss(size=1)
    loss.backward()
    optimizer.step()
    assert loss.isfinite()
    assert all(parameter.isfinite().all() for parameter in toy.method.parameters())


def test_the_toy_is_what_it_says() -> None:
    """Widths differ, so that a mistaken one is an error; open_clip's tokenizer reads the names."""
    clip = random_clip()
    widths = {clip.text.width, clip.vision.width, clip.embed_dim}
    assert len(widths) == 3
    assert len(clip.text.blocks) == len(clip.vision.blocks) == 12
    assert clip.logit_scale == pytest.approx(30)
    assert int(open_clip.tokenize([filling(10)]).argmax()) == 11
