"""The training loop that all methods share."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from cpt.clip.passes import Passes
from cpt.errors import CptError
from cpt.methods.base.method import ClassMeans, Method, Training
from cpt.metrics import geometry
from cpt.training import interruption
from cpt.training.batches import Batches
from cpt.training.interruption import StoppedError
from cpt.training.optimizers import Optimiser
from cpt.training.schedule import learning_rate
from cpt.training.state import StateFile


class Loop:
    """Epochs and steps of one run, resumable after any step.

    Args:
        method: its parameters are trained in place.
        training: what the method may know of its training set.
        batches: the training images.
        state: where an unfinished training is kept.
        progress: gets a line per epoch.
    """

    def __init__(
        self,
        method: Method,
        training: Training,
        batches: Batches,
        state: StateFile,
        progress: Callable[[str], None],
    ) -> None:
        self.method, self.batches, self.state = method, batches, state
        self.training = replace(training, take=batches.take)
        self.hp, self.progress = method.hp, progress
        self.passes = Passes(method.clip)
        self.seconds_before, self.resumed = 0.0, False
        self.encoded_per_step: dict[str, float] = {}
        self._started = time.monotonic()

    def run(self) -> tuple[list[dict[str, float]], dict[int, dict[str, Tensor]]]:
        """Train; return the history's rows and the snapshots by epoch (1-based).

        Raises:
            CptError: the loss or the text features are not finite.
            StoppedError: a signal asked for it; the state is saved if there is a place for it.
        """
        hp, method, batches = self.hp, self.method, self.batches
        optimiser = Optimiser(method.parameters(), hp)
        history: list[dict[str, float]] = []
        snapshots: dict[int, dict[str, Tensor]] = {}
        epoch, step, sums = 0, 0, {}
        method.seen = seen = self._nothing_seen()
        saved = self.state.load(self.progress)
        if saved is not None:
            method.load_state_dict(saved["parameters"])
            optimiser.load_state_dict(saved["optimiser"])
            method.load_training_state(saved["method"])
            self.passes.counts.update(saved["passes"])
            history, snapshots, sums = saved["history"], saved["snapshots"], saved["sums"]
            seen.sums, seen.counts = saved["seen"]["sums"], saved["seen"]["counts"]
            epoch, step, self.seconds_before, self.resumed = saved["epoch"], saved["step"], saved["seconds"], True
            self.progress(f"resuming at epoch {epoch + 1}, step {step}")
        total = batches.steps()
        self.progress(
            f"{method.title}: {len(batches.labels)} images of {len(self.training.classes)} classes, "
            f"{hp.epochs} epochs of {total} steps, {method.learnable_parameters():,} learned values, "
            f"{method.clip.device}"
        )
        for epoch in range(epoch, hp.epochs):  # noqa: B020 - the first epoch may be a resumed one
            rate = learning_rate(hp, epoch)
            optimiser.learning_rate = rate
            for batch in batches.epoch(epoch, step):
                self._step(optimiser, batch, sums)
                step += 1
                if step < total:
                    self._keep(optimiser, epoch, step, history, snapshots, sums)
            history.append(self._epoch_row(epoch, step, rate, sums))
            method.epoch_end(epoch + 1)
            if hp.snapshots:
                snapshots[epoch + 1] = {k: v.detach().clone() for k, v in method.state_dict().items()}
            step, sums = 0, {}
            method.seen = self._nothing_seen()
            if epoch + 1 < hp.epochs:
                self._keep(optimiser, epoch + 1, 0, history, snapshots, sums)
        method.seen = None
        method.finish()
        self.encoded_per_step = self.passes.per_step(int(sum(row["steps"] for row in history)))
        return history, snapshots

    def _step(self, optimiser: Optimiser, batch: Any, sums: dict[str, Tensor]) -> None:
        with self.passes.counting():
            components = self.method.losses(batch, self.training)
        loss = self.method.total(components)
        optimiser.zero_grad()
        loss.backward()
        gradients = [p.grad for p in self.method.parameters() if p.grad is not None]
        norm = torch.stack(torch._foreach_norm(gradients)).norm()
        optimiser.step()
        self.method.step_end()
        measured = {"loss": loss, "gradient_norm": norm}
        measured |= {f"loss_{name}": value for name, value in components.items()}
        for name, value in measured.items():  # sums stay on the device: no synchronisation per step
            sums[name] = sums.get(name, 0) + value.detach().double()

    @torch.no_grad()
    def _epoch_row(self, epoch: int, steps: int, rate: float, sums: dict[str, Tensor]) -> dict[str, float]:
        text = self.method.text_features(self.training.classes)
        row = {"epoch": epoch + 1, "steps": steps, "learning_rate": rate}
        row |= {name: float(value) / steps for name, value in sums.items()}
        if not torch.isfinite(torch.tensor(row["loss"])):
            raise CptError(
                f"{self.method.name}: the loss of epoch {epoch + 1} is {row['loss']}; lower learning_rate "
                "or a loss weight"
            )
        if not bool(text.isfinite().all()):
            raise CptError(
                f"{self.method.name}: text features are not finite after epoch {epoch + 1}; lower learning_rate"
            )
        row |= self._geometry(text)
        row["seconds"] = self.seconds_before + time.monotonic() - self._started
        self.progress(
            f"epoch {epoch + 1}/{self.hp.epochs}  lr {rate:.3g}  loss {row['loss']:.4f}  {row['seconds']:.1f} s"
        )
        return row

    def _geometry(self, text: Tensor) -> dict[str, float]:
        """Neural-collapse measures of the text features (K, D) and of the epoch's images, whose prompts moved on."""
        seen, clusters = self.method.seen, self.training.clusters
        assert seen is not None
        return geometry.collapse_measures(text, seen.means(), seen.counts, clusters) | {
            "mean_cosine": float(geometry.mean_cosine(text)),
            "drift": float(geometry.drift(text, self.training.classes.frozen)),
        }

    def _nothing_seen(self) -> ClassMeans:
        clip = self.method.clip
        return ClassMeans(len(self.training.classes), clip.embed_dim, clip.device)

    def _keep(self, optimiser: Optimiser, epoch: int, step: int, history: list, snapshots: dict, sums: dict) -> None:
        """Save the state when it is due; stop when a signal asked for it."""
        asked = interruption.received()  # before the save, so that a signal during it waits for the next step
        if self.state.due():
            try:
                self.state.save(
                    parameters=self.method.state_dict(),
                    method=self.method.training_state(),
                    passes=dict(self.passes.counts),
                    optimiser=optimiser.state_dict(),
                    epoch=epoch,
                    step=step,
                    history=history,
                    snapshots=snapshots,
                    sums=sums,
                    seen=vars(self.method.seen),
                    seconds=self.seconds_before + time.monotonic() - self._started,
                )
            except CptError as error:  # the results may lie on another disk
                if asked is None:
                    self.progress(f"the state was not saved, training goes on: {error}")
                else:
                    raise
        if asked is not None:
            where = f"{asked.name}: stopped at epoch {epoch + 1}, step {step}"
            if self.state.path is None:
                raise StoppedError(f"{where}; nothing is kept, because no --state was given")
            raise StoppedError(f"{where}; state saved, the same command goes on from {self.state.path}")
