"""The training loop: one student, one set of cached targets."""

from __future__ import annotations

import contextlib
import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib import util
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from distillscope import group
from distillscope.config.study import Arm, Training
from distillscope.data.noise import on_input
from distillscope.data.source import Source, read_batches
from distillscope.data.views import OnTop, View
from distillscope.devices import kept_memory
from distillscope.draws import keyed_seed
from distillscope.errors import UserError, unknown_name
from distillscope.files.writing import write_text
from distillscope.processes.interrupts import HeldBack, Terminated
from distillscope.students.load import StudentEncoder
from distillscope.students.networks import recompute
from distillscope.training.averaging import Averaged
from distillscope.training.checkpoints import load_checkpoint, save_checkpoint
from distillscope.training.gathered_batch import BatchGather, shared_batch_norms, untracked
from distillscope.training.health import Health, warnings_of
from distillscope.training.loss import Terms, check_arm
from distillscope.training.muon import Muon
from distillscope.training.streams import KeyedStreams

if TYPE_CHECKING:
    from accelerate import Accelerator

CHECKPOINT_SECONDS = 30.0
EXTRAS = {"tensorboard": "track", "wandb": "wandb", "mlflow": "mlflow"}
"""Tracker -> the extra that brings it."""
TRACKERS = tuple(EXTRAS)


@dataclass(frozen=True)
class TrainingSet:
    """Images, and the target embeddings (n, d) that the teacher gave for them, at each epoch's view; where they are asked for,
    what its own head says of them (n, classes)."""

    source: Source
    targets: Callable[[int], np.ndarray]
    view: Callable[[Any], View | OnTop | None] = lambda epoch: None
    logits: Callable[[int], np.ndarray] | None = None


def learning_rate_factor(schedule: str, step: int, num_steps: int) -> float:
    """What the learning rate is multiplied with at a step.

    "cosine" falls to 0; "one_cycle" rises linearly over the first 30 % and falls to 0 as a cosine. From 0 on: an only step,
    which would train nothing, is taken at the height.

    >>> [round(learning_rate_factor("one_cycle", s, 100), 2) for s in (0, 15, 30, 65, 100)]
    [0.0, 0.5, 1.0, 0.5, 0.0]
    """
    done = step / max(1, num_steps)
    if schedule == "constant" or num_steps == 1:
        return 1.0
    if schedule == "one_cycle":
        if done < 0.3:
            return done / 0.3
        done = (done - 0.3) / 0.7
    return 0.5 * (1 + math.cos(math.pi * done))


def check_tracker(track: str | None) -> None:
    """accelerate drops a tracker that is not installed with a log line; here it is an error."""
    if track is None:
        return
    if track not in TRACKERS:
        raise unknown_name("--track", "tracker", track, TRACKERS)
    if util.find_spec(track) is None:
        raise UserError(f"--track {track}", f"the package {track}", "not installed",
                        f"pip install 'distillscope[{EXTRAS[track]}]'.")


def make_optimizer(parameters: list[torch.nn.Parameter], settings: Training) -> torch.optim.Optimizer:
    """Adam, AdamW or SGD (momentum 0.9) with PyTorch's other defaults, or Muon."""
    kinds: dict[str, Callable[..., torch.optim.Optimizer]] = {
        "adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "sgd": partial(torch.optim.SGD, momentum=0.9), "muon": Muon}
    return kinds[settings.optimizer](parameters, lr=settings.learning_rate, weight_decay=settings.weight_decay)


@kept_memory()
def distill(student: StudentEncoder, training_set: TrainingSet, arm: Arm, settings: Training, streams: KeyedStreams,
            folder: Path, health: Health | None = None, *, track: str | None = None,
            advance: Callable[[int], None] = lambda count: None,
            warn: Callable[[str], None] = lambda text: None) -> list[dict[str, Any]]:
    """Train ``student`` in place; one record per epoch, also in ``folder``/metrics.jsonl, with its warnings told to ``warn``.

    A checkpoint is written every half minute, at each epoch's end and when interrupted; started again on the same
    folder it goes on from there, to the same numbers. An interrupt waits until the step is whole. Several processes
    (accelerate launch) each take their part of every batch, and the loss of the whole of it. Losses are computed in float32
    whatever the network's precision.
    """
    check_arm(arm, settings, training_set.source)
    accelerator = _accelerator(student, len(training_set.source), settings, folder, track, arm.name)
    loop = _Loop(accelerator, student, training_set, arm, settings, streams, folder)
    advance(loop.resume())
    shared = shared_batch_norms(student.module, loop.terms) if accelerator.num_processes > 1 else contextlib.nullcontext()
    with shared, HeldBack() as interrupts:
        try:
            while True:
                if loop.epoch_is_over():
                    record = loop.record(health)
                    for warning in record["warnings"] if accelerator.is_main_process else ():
                        warn(warning)
                    if track:
                        accelerator.log({k: v for k, v in record.items() if isinstance(v, (int, float))}, step=loop.step)
                    loop.save()
                    loop.stop(interrupts)
                if loop.step == loop.num_steps:
                    break
                loop.begin_epoch()
                for indices, images in interrupts.during(read_batches(loop.source, loop.batches_left())):
                    advance(loop.train_on(indices, images, interrupts.number))
                    loop.stop(interrupts)
                    if time.monotonic() - loop.saved > CHECKPOINT_SECONDS:
                        loop.save()
        except KeyboardInterrupt:
            if not interrupts.forced:
                loop.save()
            raise
    for tracker in accelerator.trackers:  # accelerate's end_training would part the processes too
        tracker.finish()
    if loop.averaged is not None:
        loop.averaged.give(student.module)
    student.module.eval()
    return loop.history


def _accelerator(student: StudentEncoder, num_images: int, settings: Training, folder: Path, track: str | None,
                 arm: str) -> Accelerator:
    """The processes that train as one."""
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state()  # else a process could never train in a second precision
    batch = settings.batch_size
    if settings.num_steps(num_images) == 0:
        raise UserError("training.batch_size", f"at most the {num_images} training images", str(batch), "Set a smaller one.")
    mixed = {"float32": "no", "bfloat16": "bf16", "float16": "fp16"}[student.precision]
    accelerator = Accelerator(cpu=student.device.type == "cpu", mixed_precision=mixed, log_with=track, project_dir=folder)
    group.check_joined(accelerator.num_processes)
    if track:
        told = {"student": student.name, "arm": arm, "folder": str(folder.resolve()), **settings.model_dump()}
        accelerator.init_trackers("distillscope", told, {"wandb": {"name": folder.name}, "mlflow": {"run_name": folder.name}})
    return accelerator


class _Loop:
    """Where a training stands: network, loss, optimizer, steps done; what one step does, and what a checkpoint holds of it."""

    def __init__(self, accelerator: Accelerator, student: StudentEncoder, training_set: TrainingSet, arm: Arm,
                 settings: Training, streams: KeyedStreams, folder: Path) -> None:
        self.accelerator, self.student, self.training_set = accelerator, student, training_set
        self.settings, self.streams, self.folder = settings, streams, folder
        self.source, self.batch = training_set.source, settings.batch_size
        self.per_epoch = settings.num_steps(len(self.source))
        self.num_steps = settings.epochs * self.per_epoch
        gather = BatchGather(accelerator.process_index, accelerator.num_processes)
        classes = None if training_set.logits is None else training_set.logits(0).shape[1]
        self.terms = Terms(arm, student.dim, training_set.targets(0).shape[1], num_classes(self.source),
                           teacher_classes=classes, seed=streams.seed, gather=gather).to(student.device)
        optimizer = make_optimizer([*student.module.parameters(), *self.terms.parameters()], settings)
        if settings.recompute:
            recompute(student.module, student.name)
        self.module, self.optimizer = accelerator.prepare(student.module, optimizer)
        self.averaged = Averaged(student.module, settings.average) if settings.average else None
        self.checkpoint = folder / "checkpoint.pt"
        self.history: list[dict[str, Any]] = []
        self.step, self.first_step = 0, 0  # done in all; where this process began
        self.total, self.seconds_before = 0.0, 0.0  # summed loss of the epoch; seconds of earlier processes
        self.signal: int | None = None  # that some process was sent
        folder.mkdir(parents=True, exist_ok=True)

    def resume(self) -> int:
        """Go on from the folder's checkpoint, if there is one; images that were already seen."""
        torch.manual_seed(keyed_seed(self.streams.seed, "training"))
        state = load_checkpoint(self.checkpoint)
        if state:
            try:
                self.accelerator.unwrap_model(self.module).load_state_dict(state["module"])
                self.terms.restore(state["terms"])
                self.optimizer.load_state_dict(state["optimizer"])
                if self.averaged is not None:
                    self.averaged.restore(state["averaged"])
                if self.accelerator.scaler is not None and "scaler" in state:
                    self.accelerator.scaler.load_state_dict(state["scaler"])
                self.history, self.step = list(state["history"]), int(state["step"])
                self.total, self.seconds_before = float(state["total"]), float(state["seconds"])
            except (RuntimeError, ValueError, TypeError, KeyError, AttributeError, IndexError) as error:
                another = f"another one ({str(error).splitlines()[0][:100]})"
                raise UserError(str(self.checkpoint), "a checkpoint of this student", another,
                                "Delete it to train from the beginning, or name another --out.") from None
        self.student.module = self.accelerator.unwrap_model(self.module)
        self.first_step, self.began = self.step, time.monotonic()
        self.saved = self.began
        epochs, steps = divmod(self.step, self.per_epoch)
        return epochs * self.settings.num_seen(len(self.source)) // self.settings.epochs + steps * self.batch

    def seconds(self) -> float:
        return self.seconds_before + time.monotonic() - self.began

    def save(self) -> None:
        if self.accelerator.is_main_process:
            _check_there(self.folder)
            scaler = self.accelerator.scaler  # of float16
            save_checkpoint(self.checkpoint, {"module": self.student.module.state_dict(), "terms": self.terms.state(),
                                              "optimizer": self.optimizer.state_dict(), "history": self.history,
                                              "step": self.step, "total": self.total, "seconds": self.seconds(),
                                              **({} if scaler is None else {"scaler": scaler.state_dict()}),
                                              **({} if self.averaged is None else {"averaged": self.averaged.state()})})
        self.saved = time.monotonic()

    def epoch_is_over(self) -> bool:
        """An epoch has ended that has no record yet."""
        epoch, steps = divmod(self.step, self.per_epoch)
        return steps == 0 and epoch > (self.history[-1]["epoch"] if self.history else 0)

    def record(self, health: Health | None) -> dict[str, Any]:
        """What the epoch that is over came to, also written to metrics.jsonl."""
        here = time.monotonic() - self.began
        found = {"epoch": self.step // self.per_epoch, "step": self.step, "seconds": round(self.seconds(), 3),
                 "loss": self.total / self.per_epoch, "lr": self.optimizer.param_groups[0]["lr"],
                 "images_per_second": (self.step - self.first_step) * self.batch / max(1e-9, here)}
        if health is not None:
            found.update(health.check(self.student))
        self.history.append(found)
        warned = warnings_of(self.history, self.settings.epochs)
        found.update(warnings=list(warned.values()), warned=list(warned))
        self.total = 0.0
        if self.accelerator.is_main_process:
            _check_there(self.folder)
            write_text(self.folder / "metrics.jsonl", "".join(json.dumps(r) + "\n" for r in self.history))
        return found

    def begin_epoch(self) -> None:
        epoch, needs = self.step // self.per_epoch, self.terms.needs
        self.targets = self.training_set.targets(epoch)
        self.logits = None if self.training_set.logits is None else self.training_set.logits(epoch)
        self.view = self.training_set.view(epoch)
        self.other_view = self.training_set.view(f"{epoch} second") if "other" in needs else None
        self.module.train()

    def batches_left(self) -> list[np.ndarray]:
        """This process's part of each batch that the epoch has left."""
        epoch, first = divmod(self.step, self.per_epoch)
        order = self.streams.order(epoch, len(self.source))
        rank, world = self.accelerator.process_index, self.accelerator.num_processes
        return [order[i * self.batch : (i + 1) * self.batch][rank::world] for i in range(first, self.per_epoch)]

    def stop(self, interrupts: HeldBack) -> None:
        """Raise what a signal asked for, in all processes after the same step."""
        if self.accelerator.num_processes == 1:
            interrupts.check()
        elif self.signal is not None:
            raise Terminated(self.signal)

    def train_on(self, indices: np.ndarray, images: Any, signal: int | None = None) -> int:
        """One step on a batch; the number of images in the whole of it. ``signal``: what this process was sent meanwhile."""
        factor = learning_rate_factor(self.settings.schedule, self.step, self.num_steps)
        for parameters in self.optimizer.param_groups:
            parameters["lr"] = self.settings.learning_rate * factor
        size = min(self.batch, len(self.source) - self.step % self.per_epoch * self.batch)
        self.optimizer.zero_grad(set_to_none=True)
        self.terms.done = self.step / self.num_steps
        loss = self.gradients(indices, images, size)
        self.terms.share_gradients()
        self.optimizer.step()
        self.terms.hold_scales()
        self.terms.remember()
        shown = self.shared(loss.detach(), signal)
        if not math.isfinite(shown):
            where = f"training of {self.student.name}, epoch {self.step // self.per_epoch + 1}, step {self.step + 1}"
            raise UserError(where, "a finite loss", str(shown),
                            "Lower training.learning_rate, or train in float32; the checkpoint before it is kept.")
        self.total, self.step = self.total + shown, self.step + 1
        if self.averaged is not None:
            self.averaged.update(self.student.module, self.step)
        return size

    def gradients(self, indices: np.ndarray, images: Any, size: int) -> torch.Tensor:
        """The loss of the whole batch of ``size`` images, its gradient left in all parameters.

        In parts (`Training.accumulate`): all embeddings first, without what a backward pass needs; then the loss and its
        gradient by each of them; then each part again, which takes the gradient on (Gao et al. 2021, arXiv:2101.06983). So
        every objective sees the whole batch, and one part at a time lies in memory.
        """
        module, items = self.student.module, torch.from_numpy(indices).to(self.student.device)
        pieces = np.array_split(np.arange(len(indices)), self.settings.num_parts(size))
        if len(pieces) == 1:
            loss = self.terms(self.embeddings(indices, images), items, size)
            with untracked(module) if self.settings.recompute else contextlib.nullcontext():
                self.accelerator.backward(loss)
            return loss
        parts = [(indices[piece], images[piece] if isinstance(images, torch.Tensor) else [images[i] for i in piece])
                 for piece in pieces]
        devices = [self.student.device] if self.student.device.type == "cuda" else []
        with torch.no_grad(), untracked(module), torch.random.fork_rng(devices):  # the same draws again below
            found = [self.embeddings(*part) for part in parts]
        given = {name: torch.cat([one[name] for one in found]) for name in found[0]}
        ends = {name: given[name].requires_grad_() for name in ("student", "other") if name in given}
        loss = self.terms(given, items, size)
        self.accelerator.backward(loss)
        for number, (part, piece) in enumerate(zip(parts, pieces, strict=True)):
            last = number == len(parts) - 1
            with contextlib.nullcontext() if last else self.accelerator.no_sync(self.module):
                again = self.embeddings(*part)
                onward = {name: end.grad[piece] for name, end in ends.items() if end.grad is not None}
                with untracked(module) if self.settings.recompute else contextlib.nullcontext():
                    torch.autograd.backward([again[name] for name in onward], list(onward.values()))
        return loss

    def shared(self, loss: torch.Tensor, signal: int | None) -> float:
        """The loss, the mean of what the processes found of it; the highest signal that any of them was sent is kept."""
        if self.accelerator.num_processes == 1:
            return float(loss)
        found = self.accelerator.gather(torch.stack([loss.float(), loss.new_tensor(signal or 0, dtype=torch.float32)])[None])
        self.signal = int(found[:, 1].max()) or None
        return float(found[:, 0].mean())

    def embeddings(self, indices: np.ndarray, images: Any) -> dict[str, torch.Tensor]:
        """What the loss compares: the student's and the teacher's (b, d), and what else it asks for."""
        ids, needs = self.source.ids[indices], self.terms.needs
        targets = np.ascontiguousarray(self.targets[indices])
        found = {"student": self.student_sees(images, ids, self.view),
                 "teacher": torch.from_numpy(targets).float().to(self.student.device)}
        if "other" in needs:
            found["other"] = self.student_sees(images, ids, self.other_view)
        if "teacher_logits" in needs and self.logits is not None:
            logits = np.ascontiguousarray(self.logits[indices])
            found["teacher_logits"] = torch.from_numpy(logits).float().to(self.student.device)
        if needs & {"labels", "logits"} and self.source.labels is not None:
            found["labels"] = torch.from_numpy(self.source.labels[indices]).to(self.student.device)
        return found

    def student_sees(self, images: Any, ids: np.ndarray, view: View | OnTop | None) -> torch.Tensor:
        """The student's embeddings (b, d) of a view of the images."""
        if view and view.where == "source":
            images = view(images, ids)
        inputs: Any = self.student.preprocess(_to(images, self.student.device))
        if view and view.where == "input":
            inputs = on_input(view, inputs, ids, self.student.preprocess.std)
        with self.accelerator.autocast():
            return self.module(inputs).float()


def num_classes(source: Source) -> int | None:
    """How many classes the labels name; None without labels."""
    if source.labels is None:
        return None
    return max(len(source.class_names or ()), int(source.labels.max()) + 1)


def _check_there(folder: Path) -> None:
    """A folder that somebody deletes in the middle is not made again, as if all were well."""
    if not folder.is_dir():
        raise UserError(str(folder), "a folder that stays while it is trained into", "deleted", "Run it again.")


def _to(images: Any, device: torch.device) -> Any:
    return images.to(device) if isinstance(images, torch.Tensor) else [i.to(device) for i in images]
