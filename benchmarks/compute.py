"""Lines ``text`` and ``step``: the text path, and a whole training step by its parts."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from benchmarks import naive
from benchmarks.counters import Cost, cost, forward_and_backward
from benchmarks.problem import Problem, make_problem
from benchmarks.rows import Row
from benchmarks.steps import PARTS, NaiveStep, OurStep, Seconds, close, difference
from benchmarks.timing import Pairs, Settings, alternate, available_memory, not_deterministic, now
from cpt.features.text import Classes
from cpt.methods.base.method import Method

TEXT_TARGET = 12.0
STEP_TARGETS = {500: 8.0, 50: 3.0, 5: 1.2}
CUDA_TARGETS = {500: 8.0, 1000: 10.0, 24: 3.0}
TOLERANCE = 1e-4
HALF_TOLERANCE = 0.1
"""Of losses in half precision, whose rounding differs; gradients are compared in float32 only."""
GRAPH = 18
"""Numbers that the naive graph keeps for each position and block, in widths d: 8 of them the MLP's activation, the rest
layer norms, q, k, v and the attention. Measured between K=40 and 100 (line ``memory``)."""
SHARE = 0.5
"""Share of the available memory that a naive graph may take; torch's own temporaries come on top."""


def chunk_size(problem: Problem, count: int, available: float) -> int:
    """Classes whose naive graph fits the share of memory: all of them, or as many equal chunks as it takes."""
    positional = problem.clip.text.positional_embedding
    length, width = positional.shape
    per_class = GRAPH * width * length * len(problem.clip.text.blocks) * positional.element_size()
    chunks = -(-count * per_class // int(SHARE * available))
    return -(-count // max(int(chunks), 1))


def _how(chunk: int, count: int) -> str:
    return "" if chunk >= count else f"naive in chunks of {chunk} classes: memory"


# The text path


def text_lines(settings: Settings) -> list[Row]:
    """Text tower forward and backward, for a sum of features with random weights."""
    problem, count = make_problem(quick=settings.quick), 20 if settings.quick else 500
    classes = problem.classes(count)
    method = problem.method(classes)
    chunk = chunk_size(problem, count, available_memory())
    weight = torch.randn(count, problem.clip.embed_dim)
    learned = {name: p for name, p in method.named_parameters() if name.startswith("text.")}
    gradients: dict[str, list[Tensor]] = {}

    def collect(kind: str) -> None:
        gradients[kind] = [p.grad for p in learned.values() if p.grad is not None]
        for p in learned.values():
            p.grad = None

    def ours() -> float:
        began = now()
        _raw_text(method, classes).mul(weight).sum().backward()
        ended = now()
        collect("ours")
        return ended - began

    context, *rest = learned.values()
    deep = {i + 1: p for i, p in enumerate(rest)}

    def slow() -> float:
        with not_deterministic():
            began = now()
            for tokens, part in zip(classes.tokens.split(chunk), weight.split(chunk), strict=True):
                naive.text_features(problem.model, tokens, context, deep).mul(part).sum().backward()
            ended = now()
        collect("naive")
        return ended - began

    forward, backward = forward_and_backward(lambda: _raw_text(method, classes))
    collect("counted")
    ours(), slow()  # the first pair warms up
    errors = [float((a - b).norm() / b.norm()) for a, b in zip(gradients["ours"], gradients["naive"], strict=True)]
    _require(max(errors) <= TOLERANCE, f"text: gradients differ by {max(errors):.1e}")
    settings.log(f"  gradients of {len(errors)} prompts agree within {max(errors):.1e}")
    pairs = alternate(settings.repeats, ours, slow, lambda line: settings.log(f"  {line}"))
    what = f"text path, forward and backward, K={count}"
    found = pairs.row() | (forward + backward)._asdict()
    note = "; ".join(filter(None, [f"gradients agree within {max(errors):.0e}", _how(chunk, count)]))
    target = None if settings.quick else TEXT_TARGET
    return [Row("text", what, "s", target=target, classes=count, part="text", note=note, **found)]


def _raw_text(method: Method, classes: Classes) -> Tensor:
    return method.raw_text_features(classes)


# The whole step


def step_lines(settings: Settings) -> list[Row]:
    """Steps with 4 images by number of classes, and their parts."""
    targets = {20: None, 5: None} if settings.quick else STEP_TARGETS
    rows: list[Row] = []
    for count, target in targets.items():
        settings.log(f"  K={count}")
        rows += one_step(settings, make_problem(quick=settings.quick), count, target)
    return rows


def one_step(settings: Settings, problem: Problem, count: int, target: float | None) -> list[Row]:
    """A step of so many classes on the CPU in float32: whole, then its parts."""
    classes = problem.classes(count)
    method = problem.method(classes)
    costs = _costs(method, problem, classes)
    chunk = chunk_size(problem, count, available_memory())
    steps = settings.repeats + 1
    slow = NaiveStep(problem, method, classes, problem.batches(classes, steps, settings.threads), chunk)
    fast = OurStep(problem, method, classes, problem.batches(classes, steps, settings.threads))
    error = _first_steps(fast, slow, settings)
    ours: list[Seconds] = []
    slower: list[Seconds] = []
    alternate(
        settings.repeats, lambda: _kept(ours, fast), lambda: _kept(slower, slow), lambda line: settings.log(f"  {line}")
    )
    rows = []
    for part in ("whole", *PARTS):
        pairs = Pairs([s[part] for s in ours], [s[part] for s in slower])
        found = pairs.row()
        if part in costs:
            found |= costs[part]._asdict()
        whole = part == "whole"
        note = "; ".join(filter(None, [f"gradients agree within {error:.0e}", _how(chunk, count)])) if whole else ""
        what = f"training step, K={count}" if whole else f"K={count}: {part}"
        rows.append(
            Row("step", what, "s", target=target if whole else None, classes=count, part=part, note=note, **found)
        )
    return rows


def _kept(seconds: list[Seconds], step: OurStep | NaiveStep) -> float:
    if isinstance(step, NaiveStep):
        with not_deterministic():
            seconds.append(step()[0])
    else:
        seconds.append(step()[0])
    return seconds[-1]["whole"]


def _first_steps(fast: OurStep, slow: NaiveStep, settings: Settings, *, half: bool = False) -> float:
    """Make a first step of both, which warms up, and require that they agree; return the difference."""
    with not_deterministic():
        (_, theirs) = slow()
    (_, mine) = fast()
    _require(close(mine, theirs, HALF_TOLERANCE if half else TOLERANCE), f"step: losses {mine}, naive {theirs}")
    error = difference(fast, slow)
    if not half:
        _require(error <= TOLERANCE, f"step: gradients differ by {error:.1e}")
    settings.log(f"  losses {mine:.5f} and {theirs:.5f}, gradients agree within {error:.1e}")
    return error


def _costs(method: Method, problem: Problem, classes: Classes) -> dict[str, Cost]:
    """Operations and bytes of our step by part."""
    images = torch.randn(4, 3, *problem.clip.image_size).to(problem.clip.device)
    text = forward_and_backward(lambda: method.text_features(classes))
    image = forward_and_backward(lambda: method.image_features(images))
    features = torch.randn(len(classes), problem.clip.embed_dim).to(problem.clip.device)
    logits = cost(lambda: method.logits(features[:4], features))
    method.zero_grad(set_to_none=True)
    named = zip(PARTS[:4], (*text, *image), strict=True)
    found = dict(named)
    found["whole"] = sum(found.values(), logits.times(3))  # the logits and the gradients of both their factors
    return found


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise AssertionError(message)


# On a GPU


def cuda_lines(settings: Settings, device: str = "cuda", precision: str = "bfloat16") -> list[Row]:
    """Whole steps in half precision on a GPU; one line of progress where there is none."""
    if device == "cuda" and not torch.cuda.is_available():
        settings.log("  not measured: this machine has no CUDA device")
        return []
    rows = []
    for count, target in ({20: None} if settings.quick else CUDA_TARGETS).items():
        problem = make_problem(quick=settings.quick, device=device, dtype=getattr(torch, precision))
        classes = problem.classes(count)
        method, steps = problem.method(classes), settings.repeats + 3
        free = torch.cuda.mem_get_info()[0] if device == "cuda" else available_memory()
        chunk = chunk_size(problem, count, free)
        work = _costs(method, problem, classes)["whole"]
        batches: Callable = lambda: problem.batches(classes, steps, settings.threads)  # noqa: B023, E731
        slow = NaiveStep(problem, method, classes, batches(), chunk, parts=False)
        fast = OurStep(problem, method, classes, batches(), parts=False)
        for _ in range(3):  # a graph or a compiled step needs some before it is fast
            error = _first_steps(fast, slow, settings, half=True)
        ours: list[Seconds] = []
        slower: list[Seconds] = []
        pairs = alternate(settings.repeats, lambda: _kept(ours, fast), lambda: _kept(slower, slow))  # noqa: B023
        found = pairs.row() | work._asdict()
        note = "; ".join(filter(None, [f"{precision}, gradients differ by {error:.0e}", _how(chunk, count)]))
        what = f"training step, K={count}, {precision}"
        rows.append(
            Row("cuda", what, "s", target=target, classes=count, part="whole", note=note, device=device, **found)
        )
    return rows
