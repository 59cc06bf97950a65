"""Making and loading backbones: the shipped one, open_clip's, own ones, where weights come from, and refusals."""

from __future__ import annotations

import hashlib
import http.server
import json
import logging
import pickle
import shutil
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import save_file

from cpt.clip.backbone import DTYPES, load_backbone
from cpt.clip.export import export, towers
from cpt.clip.make_backbone import check, load_tokenizer, make_backbone
from cpt.data.images import Resizing
from cpt.errors import CptError
from cpt.experiment.config import load
from cpt.features.templates import template_set
from cpt.features.text import make_text_features, read_text_features, tokenize
from cpt.files.stage_files import read_json
from tests.helpers.encoders import write_encoder, write_tokenizer


def test_the_shipped_backbone(results: Path) -> None:
    clip = load_backbone(results / "backbone.json")
    assert clip.logit_scale == pytest.approx(60, rel=1e-4)
    assert clip.dtype == torch.float32
    assert load_backbone(results / "backbone.json", precision="bfloat16").dtype == torch.bfloat16
    assert clip.image_size == (32, 32)


def test_a_model_of_open_clip_with_random_weights(tmp_path: Path) -> None:
    make_backbone("s32", "ViT-S-32-alt", "random", tmp_path / "backbone.json")  # the smallest
    clip = load_backbone(tmp_path / "backbone.json")
    assert (clip.text.width, clip.vision.width, len(clip.text.blocks)) == (256, 384, 10)
    tokens = load_tokenizer(tmp_path / "backbone.json")(["a photo of a cat one."])
    assert tokens[0, :10].tolist() == [49406, 320, 1125, 539, 320, 2368, 637, 269, 49407, 0]


SMALL: dict[str, Any] = {
    "embed_dim": 24,
    "quick_gelu": True,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "patch_size": 16, "head_width": 32},
    "text_cfg": {"context_length": 20, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
}
OPENAI = "models--timm--vit_base_patch16_clip_224.openai"
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def small_model(config: dict[str, Any] = SMALL) -> open_clip.CLIP:
    torch.manual_seed(1)
    return open_clip.CLIP(**config).eval().requires_grad_(False)


def written(path: Path, value: object) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")
    return str(path)


def checkpoint(path: Path, model: torch.nn.Module | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    state = (model or small_model()).state_dict()
    if path.suffix == ".safetensors":
        save_file(state, path, {"format": "pt"})
    else:
        torch.save(state, path)
    return path


def refusal(architecture: str, pretrained: object, output: Path) -> str:
    """The one line that refuses a backbone; nothing is written."""
    with pytest.raises(CptError) as refused:
        make_backbone("x", str(architecture), str(pretrained), output)
    assert not output.exists()
    assert "\n" not in str(refused.value)
    return str(refused.value)


def assert_encodes_as(path: Path, model: open_clip.CLIP, context_length: int) -> None:
    clip, tokens = load_backbone(path), load_tokenizer(path)(["a photo of a cat.", "a red boat"])
    assert tokens.shape == (2, context_length)
    images = torch.randn(3, 3, *clip.image_size, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        torch.testing.assert_close(clip.vision(images), model.encode_image(images), atol=1e-5, rtol=1e-4)
        texts = clip.text(clip.text.pack(tokens))
        torch.testing.assert_close(texts, model.encode_text(tokens), atol=1e-5, rtol=1e-4)


@pytest.fixture
def small_b16(monkeypatch: pytest.MonkeyPatch) -> None:
    """The registry's ViT-B/16 made small, both activations; tags stay."""
    for name, quick in (("ViT-B-16", False), ("ViT-B-16-quickgelu", True)):
        monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, name, SMALL | {"quick_gelu": quick})


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty hub cache, and a hub that cannot be reached."""
    folder = tmp_path / "hub"
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(folder))
    serve_at(monkeypatch, "http://127.0.0.1:9")
    return folder


def serve_at(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}")
    if transformers := sys.modules.get("transformers.utils.hub"):  # it keeps the address that it saw first
        monkeypatch.setattr(transformers, "_hf_api", None, raising=False)


def cached(hub: Path, name: str) -> Path:
    (hub / OPENAI / "refs").mkdir(parents=True, exist_ok=True)
    (hub / OPENAI / "refs/main").write_text(COMMIT)
    return checkpoint(hub / OPENAI / "snapshots" / COMMIT / name)


@pytest.fixture
def server(tmp_path: Path, hub: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A hub whose files lie in a folder, /<repository>/<file>."""
    folder = tmp_path / "served"

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self) -> bytes:
            owner, name, *_, file = self.path.strip("/").split("/")
            path = folder / owner / name / file
            held = path.read_bytes() if path.is_file() else b""
            self.send_response(200 if held else 404)
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("Content-Length", str(len(held)))
            if held:
                self.send_header("ETag", '"' + hashlib.sha256(held).hexdigest() + '"')
            else:
                self.send_header("X-Error-Code", "EntryNotFound")
            self.end_headers()
            return held

        def do_GET(self) -> None:
            self.wfile.write(self.do_HEAD())

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as served:
        threading.Thread(target=served.serve_forever, daemon=True).start()
        serve_at(monkeypatch, f"http://127.0.0.1:{served.server_port}")
        yield folder
        served.shutdown()


def test_an_architecture_that_is_nested_without_end(tmp_path: Path) -> None:
    (tmp_path / "deep.json").write_text("[" * 100_000)
    message = refusal(tmp_path / "deep.json", "random", tmp_path / "backbone.json")
    assert "backbone.architecture: " in message
    assert "deep.json: not JSON: " in message


@pytest.mark.parametrize(
    ("architecture", "pretrained", "message"),
    [
        ("config.yaml", "openai", "unknown model 'config.yaml'; give one of open_clip.list_models(), or a .json file"),
        ("ViT-B-16-quickgleu", "openai", "unknown model 'ViT-B-16-quickgleu'; did you mean 'ViT-B-16-quickgelu'"),
        ("ViT-B-16", "opanai", "unknown tag 'opanai' for ViT-B-16; did you mean 'openai'"),
        ("ViT-B-16", "nowhere.safetensors", "nowhere.safetensors: no such file"),
        ("nowhere.json", "random", "nowhere.json: No such file"),
        ("ViT-B-16-SigLIP", "webli", "backbone: tokenizer timm/ViT-B-16-SigLIP "),
        ("nllb-clip-base", "v1", "backbone: text tower facebook/nllb-200-distilled-600M "),
        ("coca_ViT-B-32", "random", "a captioning decoder (CoCa)"),
        ("ViT-L-14-CLIPA", "datacomp1b", "backbone: tokenizer bert-base-uncased "),
    ],
)
def test_refusals(tmp_path: Path, hub: Path, architecture: str, pretrained: str, message: str) -> None:
    assert message in refusal(architecture, pretrained, tmp_path / "backbone.json")


OVERLAYS = ("vit_b_32", "vit_l_14", "laion_vit_b_16")


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_shipped_overlays(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, overlay: str) -> None:
    """The configuration is valid, its weights exist and fit, and its architecture exports, here made small."""
    monkeypatch.chdir(root)
    for base in ("config", "paper"):
        config = load([Path(f"config/{base}.yaml"), Path(f"config/backbones/{overlay}.yaml")])
        assert (config.experiment, config.printed) == (f"paper_{overlay}", False)
    architecture, tag = config.backbone.architecture, config.backbone.pretrained
    registered = open_clip.pretrained.get_pretrained_cfg(architecture, tag)
    shape = open_clip.get_model_config(architecture)
    assert registered["hf_hub"]
    assert bool(registered.get("quick_gelu")) == bool(shape.get("quick_gelu"))
    shape["embed_dim"] //= 4
    for part in (shape["vision_cfg"], shape["text_cfg"]):
        part["layers"] = 2
        part["width"] //= 4
    shape["text_cfg"]["heads"] //= 4
    path = written(tmp_path / "small.json", shape)
    make_backbone(config.backbone.name, path, "random", tmp_path / "backbone.json")
    torch.manual_seed(0)
    assert_encodes_as(tmp_path / "backbone.json", open_clip.CLIP(**shape).eval(), 77)


@pytest.mark.parametrize("suffix", [".safetensors", ".pt", ".pth", ".bin", ".ckpt"])
def test_a_local_checkpoint(tmp_path: Path, suffix: str) -> None:
    model = small_model()
    path = checkpoint(tmp_path / f"own{suffix}", model)
    if suffix == ".ckpt":  # as open_clip's training writes it
        held = {"epoch": 3, "state_dict": {f"module.{name}": value for name, value in model.state_dict().items()}}
        torch.save(held, path)
    make_backbone("own", written(tmp_path / "small.json", SMALL), str(path), tmp_path / "backbone.json")
    assert read_json(tmp_path / "backbone.json", "cpt.backbone/1")["source"] == {
        "file": path.name,
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
    }
    assert_encodes_as(tmp_path / "backbone.json", model, 20)


def test_weights_published_in_float16_are_kept_in_half_the_bytes(tmp_path: Path) -> None:
    """The towers are those of the same weights in float32, in every precision."""
    model = small_model()
    for parameter in model.parameters():
        parameter.copy_(parameter.half())  # what a published float16 file holds
    unlike = small_model()
    sizes = {}
    for name, weights in {"half": model, "full": unlike}.items():
        folder = tmp_path / name
        path = checkpoint(folder / "own.safetensors", weights)
        make_backbone("own", written(folder / "small.json", SMALL), str(path), folder / "backbone.json")
        assert_encodes_as(folder / "backbone.json", weights, 20)
        sizes[name] = (folder / "backbone.safetensors").stat().st_size
    assert sizes["half"] < 0.55 * sizes["full"]

    exported, spec = export(model)
    for precision, dtype in DTYPES.items():
        clip = load_backbone(tmp_path / "half" / "backbone.json", precision=precision)
        for read, built in zip((clip.text, clip.vision), towers(exported, spec), strict=True):
            for name, tensor in built.to(dtype).state_dict().items():
                assert torch.equal(read.state_dict()[name], tensor), (precision, name)


class Trap:
    """A pickle that leaves a mark when it is read."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.mark,)


@pytest.mark.parametrize("form", ["zip", "legacy", "plain"])
def test_pickled_code_never_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str) -> None:
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    mark, path = tmp_path / "mark", tmp_path / "own.pt"
    held = {"state_dict": small_model().state_dict(), "args": Trap(mark)}
    if form == "plain":
        path.write_bytes(pickle.dumps(held, protocol=2))
    else:
        torch.save(held, path, _use_new_zipfile_serialization=form == "zip")
    message = refusal(written(tmp_path / "small.json", SMALL), path, tmp_path / "backbone.json")
    assert "own.pt: refused: it is damaged or holds more than tensors" in message
    assert "give a .safetensors file" in message
    assert not mark.exists()


@pytest.mark.filterwarnings("ignore")
def test_a_torchscript_program_is_refused(tmp_path: Path) -> None:
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), tmp_path / "own.pt")
    message = refusal(written(tmp_path / "small.json", SMALL), tmp_path / "own.pt", tmp_path / "backbone.json")
    assert "own.pt: refused: it is a TorchScript program, not a state dict; give a .safetensors file" in message


def _without(state: dict[str, Any]) -> None:
    del state["visual.conv1.weight"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"visual.conv1.weight": torch.zeros(64, 3, 8, 8)},
            "visual.conv1.weight is 64 x 3 x 8 x 8 in the file, 64 x 3 x 16 x 16 in the model",
        ),
        (_without, "it lacks visual.conv1.weight (1 missing, 0 unknown)"),
        ({"logit_bias": torch.zeros(())}, "the model has no logit_bias (0 missing, 1 unknown)"),
        ({"ln_final.bias": torch.zeros(32, dtype=torch.int8)}, "ln_final.bias is int8"),
        ({"ln_final.bias": torch.full((32,), float("nan"))}, "damaged: ln_final.bias has values that are not finite"),
    ],
)
def test_a_checkpoint_that_does_not_fit(tmp_path: Path, change: Any, message: str) -> None:
    state = small_model().state_dict()
    change(state) if callable(change) else state.update(change)
    save_file(state, tmp_path / "own.safetensors")
    architecture = written(tmp_path / "small.json", SMALL)
    assert message in refusal(architecture, tmp_path / "own.safetensors", tmp_path / "backbone.json")


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_damaged_checkpoints(tmp_path: Path, suffix: str) -> None:
    architecture, path = written(tmp_path / "small.json", SMALL), checkpoint(tmp_path / f"own{suffix}")
    whole = path.read_bytes()
    for held in (whole[: len(whole) // 2], b"", b"version https://git-lfs.github.com/spec/v1\n"):
        path.write_bytes(held)
        assert "damaged" in refusal(architecture, path, tmp_path / "backbone.json")


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("ln_final.weight", lambda value: value * 1e38, "the weights give text features without a direction"),
        ("ln_final.weight", lambda value: value * 3e38, "the weights give text features without a direction"),
        ("visual.ln_post.weight", lambda value: value * 1e38, "the weights give image features without a direction"),
        ("token_embedding.weight", lambda value: value.double() * 1e300, "hold values that are no finite numbers"),
        ("logit_scale", lambda value: value * 0 + 1000, "logit scale is inf, not a positive number; get them again"),
    ],
)
def test_weights_that_compute_no_numbers(tmp_path: Path, name: str, change: Any, message: str) -> None:
    """Neither tower may: what it computes would only be missed after all trainings."""
    state = small_model().state_dict()
    save_file(state | {name: change(state[name]).contiguous()}, tmp_path / "w.safetensors")
    architecture, output = written(tmp_path / "small.json", SMALL), tmp_path / "backbone.json"
    assert message in refusal(architecture, str(tmp_path / "w.safetensors"), output)
    assert not (tmp_path / "backbone.json").exists()


def test_a_file_without_a_state_dict(tmp_path: Path) -> None:
    architecture = written(tmp_path / "small.json", SMALL)
    for held in ([torch.zeros(2)], {}, {"epoch": 3}):
        torch.save(held, tmp_path / "own.pt")
        assert "is not a state dict" in refusal(architecture, tmp_path / "own.pt", tmp_path / "backbone.json")


@pytest.mark.usefixtures("small_b16")
@pytest.mark.parametrize("name", ["open_clip_model.safetensors", "open_clip_pytorch_model.bin"])
def test_a_cached_tag_needs_no_hub(tmp_path: Path, hub: Path, name: str) -> None:
    path = cached(hub, name)
    make_backbone("b16", "ViT-B-16-quickgelu", "openai", tmp_path / "backbone.json")
    assert read_json(tmp_path / "backbone.json", "cpt.backbone/1")["source"] == {
        "repository": "timm/vit_base_patch16_clip_224.openai",
        "revision": COMMIT,
        "file": name,
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
    }
    assert_encodes_as(tmp_path / "backbone.json", small_model(), 20)


@pytest.mark.usefixtures("small_b16")
def test_safetensors_come_first_and_a_cached_pickle_is_read_as_tensors_only(tmp_path: Path, hub: Path) -> None:
    torch.save({"trap": Trap(tmp_path / "mark")}, cached(hub, "open_clip_pytorch_model.bin"))
    assert "holds more than tensors" in refusal("ViT-B-16-quickgelu", "openai", tmp_path / "backbone.json")
    cached(hub, "open_clip_model.safetensors")
    make_backbone("b16", "ViT-B-16-quickgelu", "openai", tmp_path / "backbone.json")
    assert not (tmp_path / "mark").exists()


@pytest.mark.usefixtures("small_b16", "hub")
@pytest.mark.parametrize("offline", [True, False])
def test_a_tag_out_of_reach(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, offline: bool) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", offline)
    began = time.monotonic()
    message = refusal("ViT-B-16-quickgelu", "openai", tmp_path / "backbone.json")
    assert time.monotonic() - began < 10
    assert "'openai': open_clip_model.safetensors of the hub's timm/vit_base_patch16_clip_224.openai" in message
    assert ("HF_HUB_OFFLINE is set" if offline else "cannot be fetched (ConnectError") in message
    assert "run `cpt backbone` once where there is internet, set HF_HOME" in message
    assert "the path of a .safetensors file" in message


@pytest.mark.usefixtures("small_b16")
def test_a_tag_is_downloaded_into_the_cache(
    tmp_path: Path, hub: Path, server: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = server / "timm/vit_base_patch16_clip_224.openai"
    message = refusal("ViT-B-16-quickgelu", "openai", tmp_path / "backbone.json")
    assert "has no open_clip_model.safetensors or open_clip_pytorch_model.bin" in message
    checkpoint(folder / "open_clip_pytorch_model.bin")
    make_backbone("b16", "ViT-B-16-quickgelu", "openai", tmp_path / "pickle.json")
    shutil.rmtree(hub)
    checkpoint(folder / "open_clip_model.safetensors")
    make_backbone("b16", "ViT-B-16-quickgelu", "openai", tmp_path / "backbone.json")
    sources = [read_json(tmp_path / f"{name}.json", "cpt.backbone/1")["source"] for name in ("pickle", "backbone")]
    assert [source["file"] for source in sources] == ["open_clip_pytorch_model.bin", "open_clip_model.safetensors"]
    assert sources[1]["revision"] == COMMIT
    serve_at(monkeypatch, "http://127.0.0.1:9")
    make_backbone("b16", "ViT-B-16-quickgelu", "openai", tmp_path / "again.json")


def test_published_models_with_encoders_are_accepted(server: Path) -> None:
    """As the registry has them, with what the hub has of their encoders made small: nothing but the weights is left."""
    models = {
        "roberta-ViT-B-32": ("laion2b_s12b_b32k", "roberta-base/resolve", "roberta"),
        "xlm-roberta-base-ViT-B-32": ("laion5b_s13b_b90k", "xlm-roberta-base/resolve", "xlm-roberta"),
        "nllb-clip-base": ("v1", "facebook/nllb-200-distilled-600M", "m2m_100"),
    }
    for architecture, (tag, place, kind) in models.items():
        write_encoder(server / place, kind)
        write_tokenizer(server / place)
        tokenizer, length = check(architecture, tag)
        assert length == 77
        assert tokenizer(["a cat"], context_length=length).argmax() == 5


def test_an_encoder_and_its_tokenizer_are_fetched_once(
    tmp_path: Path, server: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Afterwards both come from the hub's cache, though the hub is gone."""
    write_encoder(server / "cpt/encoder", "bert")
    write_tokenizer(server / "cpt/encoder", pad=0)
    text = {"hf_model_name": "cpt/encoder", "hf_tokenizer_name": "cpt/encoder", "hf_proj_type": "linear"}
    (tmp_path / "own.json").write_text(json.dumps(SMALL | {"text_cfg": text}))
    for address in (None, "http://127.0.0.1:9"):
        if address:
            serve_at(monkeypatch, address)
        output = tmp_path / f"{address is None}.json"
        assert make_backbone("x", str(tmp_path / "own.json"), "random", output)[1] < 1e-5
        rows = load_tokenizer(output)(["a photo of x"], context_length=7)
        assert rows.tolist() == [[135, 6, 4, 5, 29, 136, 0]], "the vocabulary of the hub, not one made from nothing"


@pytest.mark.usefixtures("small_b16", "server")
def test_a_cached_file_that_is_not_what_the_hub_gave_is_not_read(tmp_path: Path, hub: Path, server: Path) -> None:
    """The cache calls a file by its SHA-256; what was put there since, here a pickle with code, is refused unread."""
    checkpoint(server / "timm/vit_base_patch16_clip_224.openai/open_clip_pytorch_model.bin")
    make_backbone("b16", "ViT-B-16-quickgelu", "openai", tmp_path / "backbone.json")
    (kept,) = hub.glob("*/snapshots/*/open_clip_pytorch_model.bin")
    torch.save({"trap": Trap(tmp_path / "mark")}, kept.resolve())
    message = refusal("ViT-B-16-quickgelu", "openai", tmp_path / "again.json")
    assert f"instead of {kept.resolve().name[:8]}; delete it and get it again" in message
    assert not (tmp_path / "mark").exists()


@pytest.mark.usefixtures("small_b16")
@pytest.mark.parametrize("form", ["releases/download/v0.2/b16-{:.8}.pt", "clip/models/{}/b16.pt"])
def test_a_published_file_has_its_published_checksum(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    """The addresses of open_clip's releases and of OpenAI tell it."""
    path = checkpoint(tmp_path / "made.pt")
    tags = open_clip.pretrained._PRETRAINED["ViT-B-16"]
    for digest, good in ((hashlib.sha256(path.read_bytes()).hexdigest(), True), ("0" * 64, False)):
        address = "https://example.org/" + form.format(digest)
        monkeypatch.setitem(tags, "laion400m_e32", tags["laion400m_e32"] | {"url": address})
        named = shutil.copy(path, tmp_path / address.rsplit("/", 1)[-1])
        if good:
            make_backbone("x", "ViT-B-16", str(named), tmp_path / "backbone.json")
        else:
            assert "instead of 00000000" in refusal("ViT-B-16", named, tmp_path / "again.json")


def test_eight_digits_in_the_name_of_an_own_file_are_no_checksum(tmp_path: Path) -> None:
    path = checkpoint(tmp_path / "own-20260101.pt")
    make_backbone("x", written(tmp_path / "small.json", SMALL), str(path), tmp_path / "backbone.json")


@pytest.mark.usefixtures("hub")
@pytest.mark.parametrize(
    ("architecture", "tag", "message"),
    [
        ("ViT-B-16", "openai", "trained with QuickGELU, ViT-B-16 has GELU; use ViT-B-16-quickgelu"),
        ("ViT-B-16-quickgelu", "laion2b_s34b_b88k", "with GELU, ViT-B-16-quickgelu has QuickGELU; use ViT-B-16"),
        ("ViT-L-14-quickgelu", "dfn2b_s39b", "with GELU, ViT-L-14-quickgelu has QuickGELU; use ViT-L-14"),
    ],
)
def test_a_tag_of_the_other_activation(tmp_path: Path, architecture: str, tag: str, message: str) -> None:
    assert message in refusal(architecture, tag, tmp_path / "backbone.json")


@pytest.mark.usefixtures("small_b16")
@pytest.mark.parametrize(
    ("name", "trained"),
    [
        ("mine-quickgelu.safetensors", True),
        ("b16_400m.pt", True),  # MetaCLIP's address
        ("models--timm--vit_base_patch16_clip_224.openai/snapshots/x/open_clip_model.safetensors", True),
        ("CLIP-ViT-B-16-laion2B-s34B-b88K/open_clip_model.safetensors", False),
        ("mine.safetensors", None),
    ],
)
def test_a_file_whose_name_tells_the_activation(tmp_path: Path, name: str, trained: bool | None) -> None:
    path = checkpoint(tmp_path / name)
    for architecture, built in (("ViT-B-16", False), ("ViT-B-16-quickgelu", True)):
        if trained is None or trained == built:
            make_backbone("x", architecture, str(path), tmp_path / f"{architecture}.json")
        else:
            assert "were trained with" in refusal(architecture, path, tmp_path / f"{architecture}.json")


@pytest.mark.usefixtures("small_b16")
def test_preprocessing_is_that_of_the_weights(tmp_path: Path, hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tags = open_clip.pretrained._PRETRAINED["ViT-B-16-quickgelu"]
    cached(hub, "open_clip_model.safetensors")
    monkeypatch.setitem(tags, "openai", tags["openai"] | {"mean": (0.1, 0.2, 0.3)})
    make_backbone("x", "ViT-B-16-quickgelu", "openai", tmp_path / "backbone.json")
    assert load_backbone(tmp_path / "backbone.json").mean == (0.1, 0.2, 0.3)
    assert load_backbone(tmp_path / "backbone.json").resizing == Resizing("shortest", "bicubic")
    monkeypatch.setitem(tags, "openai", tags["openai"] | {"resize_mode": "squash", "interpolation": "bilinear"})
    make_backbone("x", "ViT-B-16-quickgelu", "openai", tmp_path / "squashed.json")
    assert load_backbone(tmp_path / "squashed.json").resizing == Resizing("squash", "bilinear")
    monkeypatch.setitem(tags, "openai", tags["openai"] | {"resize_mode": "longest"})
    assert "resizes by longest, bilinear; supported: " in refusal("ViT-B-16-quickgelu", "openai", tmp_path / "x.json")


def test_an_own_architecture(tmp_path: Path) -> None:
    """Its record is enough: the tokenizer needs neither the file nor open_clip's registry."""
    path, weights = tmp_path / "own.json", checkpoint(tmp_path / "own.safetensors")
    held = {"model_cfg": SMALL, "preprocess_cfg": {"mean": [0.5, 0.5, 0.5], "std": [0.2, 0.2, 0.2]}}
    make_backbone("own", written(path, held), str(weights), tmp_path / "backbone.json")
    path.unlink()
    assert_encodes_as(tmp_path / "backbone.json", small_model(), 20)
    clip = load_backbone(tmp_path / "backbone.json")
    assert (clip.mean, clip.std, clip.image_size) == ((0.5,) * 3, (0.2,) * 3, (32, 32))


def test_open_clip_gives_the_root_logger_no_handler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Snakemake checks the backbone in its own process: with a handler there, each of its lines would appear twice."""
    path = written(tmp_path / "own.json", SMALL)
    monkeypatch.setattr(logging.root, "handlers", [])
    check(path, "random", None)
    make_backbone("own", path, "random", tmp_path / "backbone.json")
    load_tokenizer(tmp_path / "backbone.json")
    assert logging.root.handlers == []


@pytest.mark.parametrize(
    ("vision", "text", "more"),
    [
        ({"ls_init_value": 0.5}, {"ls_init_value": 0.3}, {}),
        ({"no_ln_pre": True, "mlp_ratio": 2.0}, {"mlp_ratio": 3.0}, {}),
        ({"pos_embed_type": "sin_cos_2d"}, {"proj_bias": True}, {}),
        ({"act_kwargs": {"approximate": "tanh"}}, {"proj_type": "none", "width": 24}, {"quick_gelu": False}),
        ({"norm_kwargs": {"eps": 1e-3}}, {"norm_kwargs": {"eps": 1e-2}}, {"custom_text": True}),
        ({"patch_dropout": 0.5}, {"pool_type": "eos", "eos_id": 49407}, {}),
        ({"pool_type": "avg"}, {"no_causal_mask": True}, {"init_logit_bias": -10}),
        ({"pool_type": "avg", "final_ln_after_pool": True, "no_ln_pre": True}, {"pool_type": "last"}, {}),
    ],
)
def test_variants_of_the_towers(tmp_path: Path, vision: dict, text: dict, more: dict) -> None:
    """Exported and proved equal to open_clip's."""
    config = SMALL | {"vision_cfg": SMALL["vision_cfg"] | vision, "text_cfg": SMALL["text_cfg"] | text} | more
    make_backbone("x", written(tmp_path / "own.json", config), "random", tmp_path / "backbone.json")
    assert load_tokenizer(tmp_path / "backbone.json")(["a cat"]).shape == (1, 20)


@pytest.mark.parametrize(
    ("vision", "text", "more", "message"),
    [
        ({"attentional_pool": True}, {}, {}, "attention pooling"),
        ({"qk_norm": True}, {}, {}, "blocks CustomResidualAttentionBlock (supported: plain residual blocks)"),
        ({"image_size": [32, 48]}, {}, {}, "images of 32 x 48 pixels (supported: square ones)"),
        ({}, {"embed_cls": True}, {"custom_text": True}, "text class embedding"),
        ({}, {"pool_type": "none"}, {}, "text pooling 'none'"),
        ({}, {"pool_type": "eos", "eos_id": 2}, {}, "text_cfg.eos_id 2 is not the end token"),
        ({}, {"vocab_size": 1000}, {}, "text_cfg.vocab_size 1000 is less than the 49408 of CLIP's tokenizer"),
        ({"depth": 3}, {}, {}, "open_clip cannot build it: TypeError: "),
        ({"width": 65}, {}, {}, "open_clip cannot build it: "),
        ({}, {"tokenizer_kwargs": {"clean": "so"}}, {}, "open_clip cannot build it: "),
        ({"timm_model_name": "vit_of_mars"}, {}, {}, "open_clip cannot build it: "),
        ({"timm_model_name": "vit_tiny_patch16_224"}, {}, {}, "cannot build it: AssertionError: Input height (32)"),
    ],
)
def test_own_architectures_that_are_refused(tmp_path: Path, vision: dict, text: dict, more: dict, message: str) -> None:
    config = SMALL | {"vision_cfg": SMALL["vision_cfg"] | vision, "text_cfg": SMALL["text_cfg"] | text} | more
    assert message in refusal(written(tmp_path / "own.json", config), "random", tmp_path / "backbone.json")


@pytest.mark.parametrize(
    ("held", "message"),
    [
        ("{", "; write it as open_clip does (docs/backbones.md)"),
        ("[]", "own.json: lacks embed_dim, vision_cfg, text_cfg"),
        ('{"embed_dim": 8, "text_cfg": {}}', "own.json: lacks vision_cfg; it must be a model configuration"),
        ('{"model_cfg": {"embed_dim": 8, "text_cfg": {}}}', "own.json: lacks vision_cfg"),
        ('{"embed_dim": 8, "text_cfg": {}, "vision_cfg": 3}', "vision_cfg and text_cfg must be objects"),
        (
            json.dumps({"model_cfg": SMALL, "preprocess_cfg": {"mean": 0.5}}),
            "preprocess_cfg.mean must be three numbers",
        ),
        (
            json.dumps({"model_cfg": SMALL, "preprocess_cfg": {"std": [0.5, float("nan"), 0.5]}}),
            "preprocess_cfg.std must be three numbers",
        ),
        ("[" * 100_000, "own.json: not JSON: "),
        (json.dumps(SMALL), "unknown tag 'openai' for "),
    ],
)
def test_architecture_files_that_are_refused(tmp_path: Path, held: str, message: str) -> None:
    (tmp_path / "own.json").write_text(held)
    assert message in refusal(str(tmp_path / "own.json"), "openai", tmp_path / "backbone.json")


def test_an_own_architecture_against_the_name_of_its_weights(tmp_path: Path) -> None:
    path = checkpoint(tmp_path / "mine-quickgelu.safetensors")
    architecture = written(tmp_path / "own.json", SMALL | {"quick_gelu": False})
    assert "has GELU; set quick_gelu: true in it" in refusal(architecture, path, tmp_path / "backbone.json")


def test_weights_that_are_not_the_recorded_ones(results: Path, tmp_path: Path) -> None:
    (tmp_path / "backbone.json").write_bytes((results / "backbone.json").read_bytes())
    weights = bytearray((results / "backbone.safetensors").read_bytes())
    weights[-1] ^= 1
    (tmp_path / "backbone.safetensors").write_bytes(weights)
    with pytest.raises(CptError, match=r"backbone\.safetensors: has changed since it was written"):
        load_backbone(tmp_path / "backbone.json")


def test_template_sets() -> None:
    assert template_set("single", "x {}", {}) == ("a photo of a {}.",)
    assert template_set("dataset", "{} texture.", {}) == ("{} texture.",)
    assert template_set("mine", "x", {"mine": ["the {}"]}) == ("the {}",)
    ensemble = template_set("ensemble", "x", {})
    assert len(set(ensemble)) == 60
    assert all(template.count("{}") == 1 for template in ensemble)
    with pytest.raises(CptError, match="unknown template set 'ensembel'; did you mean 'ensemble'"):
        template_set("ensembel", "x", {})


def test_text_features_average_templates(results: Path, tmp_path: Path) -> None:
    clip, tokenizer = load_backbone(results / "backbone.json"), load_tokenizer(results / "backbone.json")
    for name, templates in (("a", ["a photo of a {}."]), ("b", ["the {}"]), ("both", ["a photo of a {}.", "the {}"])):
        make_text_features(
            clip, tokenizer, ["river", "beach"], templates, "a photo of a {}.", tmp_path / f"{name}.safetensors"
        )
    a, b, both = (read_text_features(tmp_path / f"{name}.safetensors")[0] for name in ("a", "b", "both"))
    assert torch.allclose(both.frozen, (a.frozen + b.frozen) / 2, atol=1e-6)
    unit = torch.nn.functional.normalize((a.directions + b.directions) / 2, dim=-1)
    assert torch.allclose(both.directions, unit, atol=1e-6)
    assert both.phrase_length == 4
    assert both.take([1]).names == ("beach",)


def test_a_prompt_that_does_not_fit_is_refused(results: Path) -> None:
    tokenizer = load_tokenizer(results / "backbone.json")
    with pytest.raises(CptError, match=r"prompt 'a photo of a .*' needs \d+ tokens, the backbone's context has 16"):
        tokenize(tokenizer, ["a photo of a red star", "a photo of a " + "very " * 20 + "red star."], 16)


@pytest.mark.usefixtures("small_b16")
def test_a_checksum_of_the_configuration_is_compared(tmp_path: Path, hub: Path) -> None:
    """Also where nothing else tells: of a local file, and of a plain file in the hub's cache."""
    local, plain, output = (
        checkpoint(tmp_path / "own.safetensors"),
        cached(hub, "open_clip_model.safetensors"),
        tmp_path / "backbone.json",
    )
    for pretrained, file in ((str(local), local), ("openai", plain)):
        sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
        with pytest.raises(
            CptError, match=rf"backbone\.sha256: \S+{file.name}: damaged, or another file: .* {sha256}; "
        ):
            make_backbone("x", "ViT-B-16-quickgelu", pretrained, output, "0" * 64)
        assert not output.exists()
        make_backbone("x", "ViT-B-16-quickgelu", pretrained, output, sha256.upper())
        output.unlink()
    for architecture, pretrained in (("ViT-B-16", "random"), ("embedded", "shipped")):
        with pytest.raises(CptError, match=r"backbone\.sha256: .* no file to compare"):
            make_backbone("x", architecture, pretrained, output, "0" * 64)
