"""The training loop that all methods share."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace

import torch
from torch import Tensor

from cpt.clip.passes import Passes
from cpt.errors import CptError
from cpt.methods.base.method import Batch, Method, TrainingSet
from cpt.metrics import geometry
from cpt.metrics.geometry import ClassMeans
from cpt.metrics.widest import widest
from cpt.training import interruption
from cpt.training.batches import Batches
from cpt.training.checkpoint import Checkpoint, CheckpointFile
from cpt.training.graphs import GraphedSteps, Record
from cpt.training.interruption import StoppedError
from cpt.training.optimizers import Optimizer
from cpt.training.progress import Progress
from cpt.training.schedule import learning_rate, reweighted


class Sums:
    """Sums of scalars over the steps of an epoch, in one tensor of the widest precision that stays on the device."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.total = torch.zeros(0)

    def add(self, scalars: Mapping[str, Tensor]) -> None:
        """Add 0-dimensional tensors, under the same names in every step."""
        values = torch.stack([value.detach() for value in scalars.values()])
        if not self.names:
            self.names = list(scalars)
            self.total = torch.zeros(len(values), dtype=widest(values.device), device=values.device)
        self.total += values

    def values(self) -> dict[str, float]:
        """The sums by name; waits for the device."""
        return dict(zip(self.names, self.total.tolist(), strict=True))

    def clear(self) -> None:
        """Begin anew, in place."""
        self.total.zero_()

    def state_dict(self) -> dict[str, Tensor]:
        """The sums by name."""
        return dict(zip(self.names, self.total.unbind(), strict=True))

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take back saved sums."""
        self.names = list(state)
        self.total = torch.stack(list(state.values())) if state else self.total


class Loop:
    """Epochs and steps of one run, resumable after any step.

    Args:
        method: its parameters are trained in place.
        training_set: what the method may use of its training set.
        batches: the training images.
        file: the checkpoint file.
        log: called with one line per epoch.
        record: captures steps as CUDA graphs; None: every operator is launched by itself.
        progress: is given every epoch's row; None: nobody.
    """

    def __init__(
        self,
        method: Method,
        training_set: TrainingSet,
        batches: Batches,
        file: CheckpointFile,
        log: Callable[[str], None],
        record: Record | None = None,
        progress: Progress | None = None,
    ) -> None:
        self.method, self.hp, self.batches = method, method.hp, batches
        self.training_set = replace(training_set, take=batches.take)
        self.file, self.log, self.progress = file, log, progress or Progress(None, None)
        self.optimizer = Optimizer(method.parameters(), self.hp, scaled=method.clip.loss_scaling)
        self.passes = Passes(method.clip)
        self.history: list[dict[str, float]] = []
        self.snapshots: dict[int, dict[str, Tensor]] = {}
        self.resumed = False
        self.seconds_before = 0.0
        self.encoded_per_step: dict[str, float] = {}
        self._started = time.monotonic()
        clip = method.clip
        self.sums = Sums()
        self.class_means = ClassMeans(len(training_set.classes), method.feature_width, clip.device)
        counts = self.passes.counts
        self.graphs = GraphedSteps(self._step, self._changing, counts, log, record) if record else None

    def run(self) -> tuple[list[dict[str, float]], dict[int, dict[str, Tensor]]]:
        """Train; return the history's rows and the snapshots by epoch (1-based).

        Raises:
            CptError: the loss or the text features are not finite.
            StoppedError: a signal asked to stop; the checkpoint is saved if it has a path.
        """
        method, epochs, steps = self.method, self.hp.epochs, self.batches.steps()
        first_epoch, first_step = self._resume()
        self.progress.begin(self.history)
        self.log(
            f"{method.title}: {len(self.batches.labels)} images of {len(self.training_set.classes)} classes, "
            f"{epochs} epochs of {steps} steps, {method.learnable_parameters():,} learned values, {method.clip.device}"
        )
        for epoch in range(first_epoch, epochs):
            deferred = not reweighted(self.hp, epoch)
            for step, batch in enumerate(self.batches.epoch(epoch, first_step), start=first_step):
                self.optimizer.learning_rate = learning_rate(self.hp, epoch, step, steps)
                self.step(replace(batch, reweighted=False) if deferred else batch)
                if step + 1 < steps:
                    self._checkpoint(epoch, step + 1)
            self.history.append(self._epoch_row(epoch, steps))
            self.progress.add(self.history[-1])
            method.epoch_end(epoch + 1)
            if self.hp.snapshots:
                self.snapshots[epoch + 1] = {k: v.detach().clone() for k, v in method.state_dict().items()}
            self.sums.clear()
            self.class_means.clear()
            first_step = 0
            if epoch + 1 < epochs:
                self._checkpoint(epoch + 1, 0)
        method.finish()
        self.encoded_per_step = self.passes.per_step(int(sum(row["steps"] for row in self.history)))
        return self.history, self.snapshots

    @property
    def cuda_graphs(self) -> str:
        """How steps were launched: ``captured``, ``off``, or why graphs were given up."""
        if self.graphs is None:
            return "off"
        return self.graphs.problem or "captured"

    def step(self, batch: Batch) -> None:
        """Do one step on a batch."""
        with self.passes.counting():
            drawn = self.method.draw(batch, self.training_set)
        (self.graphs or self._step)(drawn)

    def _changing(self) -> list[Tensor]:
        """Everything that a step changes."""
        learned = [*self.method.parameters(), *self.method.buffers(), *self.optimizer.tensors()]
        return [value.detach() for value in (*learned, self.sums.total, self.class_means.sums, self.class_means.counts)]

    def _step(self, batch: Batch) -> None:
        """The device's part of a step; no value is read back."""
        with self.passes.counting():
            components, image, labels = self.method.step(batch, self.training_set)
        loss = self.method.total(components)
        self.optimizer.zero_grad()
        self.optimizer.backward(loss)
        gradients = [p.grad for p in self.method.parameters() if p.grad is not None]
        norm = torch.stack(torch._foreach_norm(gradients)).norm()
        scalars = {"loss": loss, "gradient_norm": norm}
        if self.optimizer.scale is not None:  # a step that overflows counts with none
            skipped = self.optimizer.scale.overflow
            scalars = {"loss": loss, "gradient_norm": norm.where(skipped == 0, 0), "skipped": skipped}
        self.optimizer.step()
        self.method.step_end()
        self.class_means.add(image, labels)
        self.sums.add(scalars | {f"loss_{k}": v for k, v in components.items()})

    @torch.no_grad()
    def _epoch_row(self, epoch: int, steps: int) -> dict[str, float]:
        """Measures of a finished epoch: means over its steps, and the geometry of text and image features after it."""
        classes, rate = self.training_set.classes, self.optimizer.learning_rate
        text = self.method.text_features(classes)
        row = {"epoch": epoch + 1, "steps": steps, "learning_rate": rate}
        row |= {name: value / steps for name, value in self.sums.values().items()}
        half = ", or set precision: float32" if self.method.clip.dtype == torch.float16 else ""
        if not torch.isfinite(torch.tensor(row["loss"])):
            raise CptError(
                f"{self.method.name}: the loss of epoch {epoch + 1} is {row['loss']}; lower learning_rate "
                f"or a loss weight{half}"
            )
        if not bool(text.isfinite().all()):
            raise CptError(
                f"{self.method.name}: text features are not finite after epoch {epoch + 1}; lower learning_rate{half}"
            )
        means = self.class_means
        row |= geometry.collapse_measures(text, means.means(), means.counts, self.training_set.clusters)
        row |= {
            "mean_cosine": float(geometry.mean_cosine(text)),
            "drift": float(geometry.drift(text, self.method.reference(classes))),
            "seconds": self._seconds(),
        }
        loss = f"loss {row['loss']:.4f}{self._composition(row)}"
        self.log(f"epoch {epoch + 1}/{self.hp.epochs}  lr {rate:.3g}  {loss}  {row['seconds']:.1f} s")
        return row

    def _composition(self, row: Mapping[str, float]) -> str:
        """What the loss is the sum of, for the log; empty if it is one."""
        weights = self.method.weights()
        parts = {name.removeprefix("loss_"): row[name] for name in row if name.startswith("loss_")}
        terms = [
            f"{weights[name]:g} × {value:.4f} {name}" if name in weights else f"{value:.4f} {name}"
            for name, value in parts.items()
        ]
        return f" = {' + '.join(terms)}" if len(terms) > 1 else ""

    def _seconds(self) -> float:
        return self.seconds_before + time.monotonic() - self._started

    def _resume(self) -> tuple[int, int]:
        """Restore the checkpoint, if there is one; return the first epoch and step to run."""
        values = self.file.load(self.log)
        if values is None:
            return 0, 0
        saved = Checkpoint(**values)
        self.method.load_state_dict(saved.parameters)
        self.method.load_training_state(saved.method)
        self.optimizer.load_state_dict(saved.optimizer)
        self.passes.counts.update(saved.passes)
        self.history, self.snapshots = saved.history, saved.snapshots
        self.sums.load_state_dict(saved.sums)
        self.class_means.load_state_dict(saved.class_means)
        self.seconds_before, self.resumed = saved.seconds, True
        self.log(f"resuming at epoch {saved.epoch + 1}, step {saved.step}")
        return saved.epoch, saved.step

    def _checkpoint(self, epoch: int, step: int) -> None:
        """Save the checkpoint if it is due; stop if a signal asked for it.

        Args:
            epoch, step: of the next step, from 0.
        """
        asked = interruption.received()  # read before the save, so that a signal during it stops the next step
        if self.file.due():
            checkpoint = Checkpoint(
                parameters=self.method.state_dict(),
                method=self.method.training_state(),
                optimizer=self.optimizer.state_dict(),
                passes=dict(self.passes.counts),
                epoch=epoch,
                step=step,
                history=self.history,
                snapshots=self.snapshots,
                sums=self.sums.state_dict(),
                class_means=self.class_means.state_dict(),
                seconds=self._seconds(),
            )
            try:
                self.file.save(**vars(checkpoint))
            except CptError as error:  # the results may be on another disk
                if asked is not None:
                    raise
                self.log(f"the checkpoint was not saved, training goes on: {error}")
        if asked is not None:
            where = f"{asked.name}: stopped at epoch {epoch + 1}, step {step}"
            if self.file.path is None:
                raise StoppedError(f"{where}; nothing is kept, because no --checkpoint was given")
            raise StoppedError(f"{where}; checkpoint saved, the same command resumes from {self.file.path}")
