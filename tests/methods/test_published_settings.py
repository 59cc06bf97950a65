"""The settings that every method gets without an experiment's overrides, typed from the papers and their repositories.

Sources: the configuration files that the fields' ``source`` names; CPT: section 4.1 and supplement 6.1.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import pytest

from cpt.data.catalog import load_catalog
from cpt.methods.base import registry
from cpt.methods.base.describe import published
from cpt.methods.base.hyperparameters import TrainingHyperparameters, resolve

PAPER = (
    "imagenet", "caltech101", "oxford_pets", "stanford_cars", "oxford_flowers", "food101", "fgvc_aircraft", "sun397",
    "dtd", "eurosat", "ucf101",
)  # fmt: skip
PROTOCOLS = ("base_to_new", "all_classes", "few_shot")

DASSL = {
    "optimizer": "sgd",
    "momentum": 0.9,
    "weight_decay": 5e-4,
    "warmup_epochs": 1,
    "warmup_learning_rate": 1e-5,
    "prior": "none",
    "snapshots": False,
}
IVLP = DASSL | {"batch_size": 4, "learning_rate": 0.0025, "text_prompts": 4, "visual_prompts": 4, "words": True}
COOP = DASSL | {"learning_rate": 0.002, "context_length": 4, "words": True}
KGCOOP = {"learning_rate": 0.002, "context_length": 4, "guidance_weight": 8}
DEKG = KGCOOP | {"epochs": 100, "independence_weight": 6}
TCP = DASSL | {"optimizer": "adam", "batch_size": 32, "block": 8, "reduction": 4, "templates": "tcp"}
MAPLE = DASSL | {"batch_size": 4, "prompts": 2, "words": True}
PROBE = DASSL | {"epochs": 300, "batch_size": 256, "learning_rate": 0.1, "weight_decay": 0, "templates": "dataset"}
TIP = {"beta": 1, "mean_values": False, "templates": "dataset"}

EVERYWHERE: dict[str, dict[str, Any]] = {
    "zeroshot": {"templates": "dataset"},
    "coop": COOP | {"batch_size": 32, "class_position": "end", "per_class": False},
    "cocoop": COOP | {"batch_size": 1, "epochs": 10, "reduction": 16},
    "ivlp": IVLP,
    "cpt": IVLP
    | {"tetf_weight": 0.25, "cc_weight": 0.15, "rs_weight": 0.10, "clustering": "spherical"}
    | {"classes_per_cluster": 16, "clusters": None, "cluster_seed": None, "templates": "ensemble"}
    | {"tetf_reading": "sum", "tetf_by_size": False, "contrast": "cross_entropy"}
    | {"cc_reading": "present", "cc_detach_text": False, "rs_features": "raw"},
    "promptsrc": IVLP | {"text_weight": 25, "image_weight": 10, "logits_weight": 1, "templates": "ensemble"},
    "maple": MAPLE,
    "npt": MAPLE,
    "zs_lp": PROBE,
    "clap": PROBE | {"constraint": "l2", "multipliers": "zero_shot"},
    "prior_only": {"templates": "single"},
    "shuffled_labels": PROBE,
    "taskres": PROBE | {"residual_scale": 0.5},
    "cross_modal": PROBE | {"text_share": 0.5},
    "clip_adapter": PROBE | {"ratio": 0.2, "reduction": 4},
    "ss_text": {"text_weight": "uniform", "repel": False, "templates": "dataset"},
    "tip_adapter": TIP,
    "tip_adapter_f": TIP | {"batch_size": 256, "optimizer": "adamw", "learning_rate": 1e-3, "weight_decay": 0.01},
    "coprompt": DASSL
    | {"batch_size": 4, "learning_rate": 0.0035, "words": True, "distance": "cosine"}
    | {"text_adapter": 0.2, "image_adapter": 0.1, "reduction": 4},
    "candle": DASSL
    | {"epochs": 50, "batch_size": 128, "learning_rate": 3e-4, "templates": "dataset", "prototype_scale": 1}
    | {"heads": 8, "compensating": True, "shared_storage": True, "batch_attention": True, "chunk": 100},
    "dekg": COOP | DEKG | {"batch_size": 128, "templates": "texture"},
    "kgcoop": COOP | KGCOOP | {"epochs": 100, "batch_size": 128, "templates": "texture"},
    "dekg_tcp": TCP | DEKG,
    "tcp": TCP | KGCOOP | {"epochs": 50, "words": False},
    "lift": DASSL
    | {"epochs": 10, "batch_size": 128, "learning_rate": 0.01, "warmup_epochs": 0, "prior": "logit_adjustment"}
    | {"scale": 25, "adapter_width": None, "blocks": None, "test_crops": 1, "templates": "single"},
    "mma": DASSL
    | {"epochs": 5, "batch_size": 16, "learning_rate": 0.0015, "warmup_epochs": 0}
    | {"adapter_width": 32, "adapter_scale": 0.001, "first_block": 4, "last_block": 11},
    "gla": {"start": "coop", "correction": "published", "solver": "exact", "tuned_temperature": "one"},
    "mmrl": DASSL
    | {"optimizer": "adamw", "learning_rate": 0.001, "templates": "dataset", "tokens": 5}
    | {"first_block": 5, "last_block": 11, "class_share": 0.7},
    "lamp": DASSL
    | {"optimizer": "adamw", "templates": "dataset", "shared_prompts": 2, "dimension": 32, "pool_size": 3}
    | {"first_block": 2, "last_block": 11, "bias_step": 0.001},
    "clip_lora": DASSL
    | {"optimizer": "adamw", "learning_rate": 2e-4, "weight_decay": 0.01, "warmup_epochs": 0, "batch_size": 32}
    | {"templates": "dataset", "encoder": "both", "matrices": "qkv", "rank": 2, "alpha": 1.0, "dropout": 0.25},
    "dpc": DASSL
    | {"start": "promptsrc", "epochs": 20, "batch_size": 4, "learning_rate": 0.002}
    | {"candidates": 8, "base_weight": 0.2, "new_weight": 0.0},
}
"""The same for all protocols and datasets."""

DEEP = {"depth_text": 9, "depth_vision": 9}
SHALLOW = {"depth_text": 3, "depth_vision": 3}
BY_PROTOCOL: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    "ivlp": (DEEP | {"epochs": 12}, SHALLOW | {"epochs": 8}, DEEP | {"epochs": 25}),
    "cpt": (DEEP | {"epochs": 12}, SHALLOW | {"epochs": 8}, DEEP | {"epochs": 25}),
    "promptsrc": (DEEP | {"epochs": 20}, SHALLOW | {"epochs": 20}, DEEP | {"epochs": 50}),
    **dict.fromkeys(
        ("maple", "npt"),
        (
            {"epochs": 5, "learning_rate": 0.0035, "depth": 9},
            {"epochs": 2, "learning_rate": 0.0026, "depth": 3},
            {"epochs": 5, "learning_rate": 0.0035, "depth": 9},
        ),
    ),
}
"""Base-to-new, all classes, few-shot."""

COPROMPT = {
    "imagenet": (12, 4, 8.0, 8),
    "caltech101": (12, 4, 4.0, 8),
    "oxford_pets": (12, 2, 0.1, 8),
    "stanford_cars": (12, 4, 4.0, 8),
    "oxford_flowers": (9, 4, 8.0, 8),
    "food101": (9, 4, 0.5, 5),
    "fgvc_aircraft": (9, 4, 2.0, 8),
    "sun397": (12, 4, 8.0, 8),
    "dtd": (12, 2, 8.0, 8),
    "eurosat": (12, 2, 0.1, 8),
    "ucf101": (12, 4, 2.0, 8),
}
"""Depth, prompts, weight and epochs by trained dataset."""

MMRL = {
    "imagenet": 0.5,
    "caltech101": 0.5,
    "oxford_pets": 0.2,
    "stanford_cars": 7.0,
    "oxford_flowers": 4.0,
    "food101": 5.0,
    "fgvc_aircraft": 6.0,
    "sun397": 6.0,
    "dtd": 6.0,
    "eurosat": 0.01,
    "ucf101": 3.0,
}
"""Weight of the distance to frozen features by trained dataset."""

LORA_EPOCHS = {
    "imagenet": (32, 16),
    "caltech101": (320, 160),
    "oxford_pets": (889, 444),
    "stanford_cars": (163, 82),
    "oxford_flowers": (320, 157),
    "food101": (320, 160),
    "fgvc_aircraft": (320, 160),
    "sun397": (81, 40),
    "dtd": (667, 348),
    "eurosat": (4000, 1600),
    "ucf101": (320, 160),
}
"""Passes that make 8,000 steps of 32 images, 16 of each class: of the base half, of all classes."""

GAUSSIAN = {"base_to_new": (15, 1), "all_classes": (6, 10), "few_shot": (30, 30)}
LATE = ("stanford_cars", "oxford_flowers", "fgvc_aircraft", "dtd", "eurosat")
"""Datasets whose few-shot average is (45, 5)."""


def expected(name: str, protocol: str, dataset: str) -> dict[str, Any]:
    found = EVERYWHERE[name] | dict(zip(PROTOCOLS, BY_PROTOCOL.get(name, ({}, {}, {})), strict=True))[protocol]
    if name == "coprompt":
        own = COPROMPT.get(dataset, COPROMPT["imagenet"])
        found |= dict(zip(("depth", "prompts", "consistency_weight", "epochs"), own, strict=True))
    if name == "promptsrc":
        late = protocol == "few_shot" and dataset in LATE
        found |= dict(zip(("average_mean", "average_std"), (45, 5) if late else GAUSSIAN[protocol], strict=True))
    if name.startswith("tip_adapter"):
        found |= {"alpha": {"dtd": 2, "eurosat": 2, "fgvc_aircraft": 5}.get(dataset, 1.17)}
    if name == "tip_adapter_f":
        found |= {"epochs": 100 if dataset == "eurosat" else 20}
    if name == "mmrl":
        small = {"epochs": 5 if dataset == "imagenet" else 10, "batch_size": 32 if dataset == "imagenet" else 4}
        few = {"epochs": 5 if dataset == "imagenet" else 50, "batch_size": 32}
        other = {"epochs": 1, "batch_size": 32, "warmup_epochs": 0, "consistency_weight": 0.2}
        found |= {"dimension": 2048 if dataset == "eurosat" else 512, "consistency_weight": MMRL.get(dataset)}
        found |= {"base_to_new": small, "few_shot": few, "all_classes": other}[protocol]
    if name == "lamp":
        small = {"epochs": 50, "batch_size": 4, "learning_rate": 0.003}
        small |= {"epochs": 5, "batch_size": 32, "learning_rate": 0.001} if dataset == "imagenet" else {}
        few = {"epochs": 50, "batch_size": 32, "learning_rate": 0.001}
        other = {"epochs": 1, "batch_size": 32, "learning_rate": 0.001, "warmup_epochs": 0}
        found |= {"base_to_new": small, "few_shot": few, "all_classes": other}[protocol]
    if name == "clip_lora":
        found |= {"epochs": LORA_EPOCHS.get(dataset, (160, 160))[0 if protocol == "base_to_new" else 1]}
    if name == "coop":
        found |= {"epochs": 50 if protocol == "all_classes" or dataset == "imagenet" else 200}
    return found


@pytest.mark.parametrize("name", EVERYWHERE)
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_settings_are_the_published_ones(name: str, protocol: str) -> None:
    for dataset in ("imagenet", "world") if protocol == "all_classes" else PAPER:  # the paper's and another
        given, wanted = published(name, protocol, dataset).model_dump(), expected(name, protocol, dataset)
        assert {key: given[key] for key in wanted} == wanted, dataset


def test_dpc_starts_from_promptsrc_as_published_for_the_dataset() -> None:
    start = published("dpc", "few_shot", "dtd").start_hyperparameters
    assert (start["epochs"], start["average_mean"], start["average_std"], start["depth_text"]) == (50, 45, 5, 9)
    assert published("dpc", "base_to_new", "dtd").start_hyperparameters["average_mean"] == 15


@pytest.mark.parametrize("name", registry.names())
def test_settings_by_dataset_are_of_datasets_that_there_are(name: str, root: Path) -> None:
    """A misspelled one would silently get the settings of all others."""
    catalog = load_catalog(root / "config/datasets.yaml")
    for key in registry.get(name).hyperparameters.dataset_defaults:
        *protocol, dataset = key.split("/")
        assert dataset in catalog
        assert set(protocol) <= set(PROTOCOLS)


class Nested(TrainingHyperparameters):
    """Every layer sets one field less than the one before."""

    protocol_defaults: ClassVar[dict] = {"few_shot": {"epochs": 2, "batch_size": 2, "momentum": 0.2, "weight_decay": 2}}
    dataset_defaults: ClassVar[dict] = {
        "few_shot/dtd": {"momentum": 0.4, "weight_decay": 4},
        "dtd": {"batch_size": 3, "momentum": 0.3, "weight_decay": 3},
    }


def test_the_narrower_default_wins_and_an_override_over_all() -> None:
    hp = resolve(Nested, "few_shot", "dtd", {"weight_decay": 5}, {"weight_decay": 6})
    assert (hp.learning_rate, hp.epochs, hp.batch_size, hp.momentum, hp.weight_decay) == (0.0025, 2, 3, 0.4, 6)
    hp = resolve(Nested, "all_classes", "dtd")
    assert (hp.epochs, hp.batch_size, hp.momentum, hp.weight_decay) == (12, 3, 0.3, 3)


def test_every_method_with_a_publication_is_here() -> None:
    assert set(registry.names()) - EVERYWHERE.keys() == {"lamp_abstract"}, "an abstract has no settings"


def test_tip_adapter_f_trains_by_a_cosine_of_steps() -> None:
    hp = published("tip_adapter_f", "base_to_new")
    assert isinstance(hp, TrainingHyperparameters)
    assert (hp.schedule, hp.final_learning_rate, hp.epsilon) == ("step", 0, 1e-4)
