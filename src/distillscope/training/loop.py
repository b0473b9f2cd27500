"""The training loop: one student, one set of cached targets; and the checkpoints that a killed run goes on from."""

from __future__ import annotations

import contextlib
import json
import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib import util
from pathlib import Path
from typing import Any

import numpy as np
import torch

from distillscope import progress
from distillscope.config.study import Arm, Training
from distillscope.data.source import Source, read_batches
from distillscope.data.views import View
from distillscope.devices import kept_memory
from distillscope.draws import keyed_seed
from distillscope.errors import UserError, unknown_name
from distillscope.files.writing import write_atomic, write_text
from distillscope.processes.interrupts import HeldBack
from distillscope.students.load import StudentEncoder
from distillscope.training.gathered_batch import BatchGather, shared_batch_norms
from distillscope.training.health import Health, warnings_of
from distillscope.training.loss import Terms, check_arm
from distillscope.training.muon import Muon
from distillscope.training.streams import KeyedStreams

CHECKPOINT_SECONDS = 30.0
TRACKERS = ("tensorboard", "wandb", "mlflow")


@dataclass(frozen=True)
class TrainingSet:
    """Images, and the target embeddings (n, d) that the teacher gave for them, at each epoch's view."""

    source: Source
    targets: Callable[[int], np.ndarray]
    view: Callable[[Any], View | None] = lambda epoch: None


def learning_rate_factor(schedule: str, step: int, num_steps: int) -> float:
    """What the learning rate is multiplied with at a step.

    "cosine" falls to 0; "one_cycle" rises linearly over the first 30 % and falls to 0 as a cosine.

    >>> [round(learning_rate_factor("one_cycle", s, 100), 2) for s in (0, 15, 30, 65, 100)]
    [0.0, 0.5, 1.0, 0.5, 0.0]
    """
    done = step / max(1, num_steps)
    if schedule == "constant":
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
        raise UserError(f"--track {track}", f"the package {track}", "not installed", f"pip install {track}.")


def make_optimizer(parameters: list[torch.nn.Parameter], settings: Training) -> torch.optim.Optimizer:
    """Adam, AdamW or SGD (momentum 0.9) with PyTorch's other defaults, or Muon."""
    kinds: dict[str, Callable[..., torch.optim.Optimizer]] = {
        "adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "sgd": partial(torch.optim.SGD, momentum=0.9), "muon": Muon}
    return kinds[settings.optimizer](parameters, lr=settings.learning_rate, weight_decay=settings.weight_decay)


@kept_memory()
def distill(student: StudentEncoder, training_set: TrainingSet, arm: Arm, settings: Training, streams: KeyedStreams,
            folder: Path, health: Health | None = None, *, track: str | None = None, workers: int = 0,
            advance: Callable[[int], None] = lambda count: None,
            warn: Callable[[str], None] = lambda text: None) -> list[dict[str, Any]]:
    """Train ``student`` in place; one record an epoch, also in ``folder``/metrics.jsonl, with its warnings told to ``warn``.

    A checkpoint is written every half minute, at each epoch's end and when interrupted; started again on the same
    folder it goes on from there, to the same numbers. An interrupt waits until the step is whole. Several processes
    (accelerate launch) each take their part of every batch, and the loss of the whole of it. Losses are computed in float32
    whatever the network's precision.
    """
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state()  # else a process could never train in a second precision
    source = training_set.source
    check_arm(arm, settings, source)
    batch = settings.batch_size
    per_epoch = settings.num_steps(len(source))
    if per_epoch == 0:
        raise UserError("training.batch_size", f"at most the {len(source)} training images", str(batch), "Set a smaller one.")
    mixed = {"float32": "no", "bfloat16": "bf16", "float16": "fp16"}[student.precision]
    accelerator = Accelerator(cpu=student.device.type == "cpu", mixed_precision=mixed, log_with=track, project_dir=folder)
    launched = int(os.environ.get("WORLD_SIZE", "1"))
    if accelerator.num_processes != launched:
        raise UserError("distill", f"the {launched} processes of the launcher as one group", f"{accelerator.num_processes}",
                        "Start them with torchrun --nproc-per-node 2 -m distillscope.cli distill ..., or start one alone.")
    if batch % accelerator.num_processes:
        multiple = f"a multiple of the {accelerator.num_processes} processes"
        raise UserError("training.batch_size", multiple, str(batch), "Change it.")
    rank, world, writes = accelerator.process_index, accelerator.num_processes, accelerator.is_main_process
    if not settings.drop_last and 0 < len(source) % batch < world:
        raise UserError("training.drop_last", f"true, since the last batch is smaller than the {world} processes", "false",
                        "Set it to true, or change training.batch_size.")
    if track:
        accelerator.init_trackers("distillscope")
    terms = Terms(arm, student.dim, training_set.targets(0).shape[1], num_classes(source), seed=streams.seed,
                  gather=BatchGather(rank, world)).to(student.device)
    needs, module = terms.needs, student.module
    module, optimizer = accelerator.prepare(module, make_optimizer([*module.parameters(), *terms.parameters()], settings))

    folder.mkdir(parents=True, exist_ok=True)
    checkpoint, history, start, total, seen = folder / "checkpoint.pt", [], 0, 0.0, 0.0
    torch.manual_seed(keyed_seed(streams.seed, "training"))
    if state := load_checkpoint(checkpoint):
        try:
            accelerator.unwrap_model(module).load_state_dict(state["module"])
            terms.restore(state["terms"])
            optimizer.load_state_dict(state["optimizer"])
            history, start = list(state["history"]), int(state["step"])
            total, seen = float(state["total"]), float(state["seconds"])
        except (RuntimeError, ValueError, TypeError, KeyError, AttributeError, IndexError) as error:
            another = f"another one ({str(error).splitlines()[0][:100]})"
            raise UserError(str(checkpoint), "a checkpoint of this student", another,
                            "Delete it to train from the beginning, or name another --out.") from None
        advance(start // per_epoch * settings.num_seen(len(source)) // settings.epochs + start % per_epoch * batch)
    student.module = accelerator.unwrap_model(module)
    shared = shared_batch_norms(student.module, terms) if world > 1 else contextlib.nullcontext()

    step, began = start, time.monotonic()
    saved = began

    def save() -> None:
        nonlocal saved
        if writes:
            _check_there(folder)
            seconds = seen + time.monotonic() - began
            save_checkpoint(checkpoint, {"module": student.module.state_dict(), "terms": terms.state(),
                                         "optimizer": optimizer.state_dict(), "history": history, "step": step, "total": total,
                                         "seconds": seconds})
        saved = time.monotonic()

    def embeddings_of(images: Any, ids: np.ndarray, view: View | None) -> torch.Tensor:
        if view and view.where == "source":
            images = view(images, ids)
        inputs: Any = student.preprocess(_to(images, student.device))
        if view and view.where == "input":
            inputs = view(inputs, ids)
        with accelerator.autocast():
            return module(inputs).float()

    def train_step(indices: np.ndarray, images: Any, epoch: int) -> float:
        """One batch; the loss of the whole of it, also where each process takes its part."""
        factor = learning_rate_factor(settings.schedule, step, settings.epochs * per_epoch)
        for group in optimizer.param_groups:
            group["lr"] = settings.learning_rate * factor
        ids = source.ids[indices]
        embeddings = {"student": embeddings_of(images, ids, views[0]),
                      "teacher": torch.from_numpy(np.ascontiguousarray(targets[indices])).float().to(student.device)}
        if "other" in needs:
            embeddings["other"] = embeddings_of(images, ids, views[1])
        if needs & {"labels", "logits"} and source.labels is not None:
            embeddings["labels"] = torch.from_numpy(source.labels[indices]).to(student.device)
        num_in_all = min(batch, len(source) - step % per_epoch * batch)
        loss = terms(embeddings, torch.from_numpy(indices).to(student.device), num_in_all)
        optimizer.zero_grad(set_to_none=True)
        accelerator.backward(loss)
        terms.share_gradients()
        optimizer.step()
        terms.remember()
        shown = float(accelerator.reduce(loss.detach(), "mean") if world > 1 else loss.detach())
        if not math.isfinite(shown):
            raise UserError(f"training of {student.name}, epoch {epoch + 1}, step {step + 1}", "a finite loss", str(shown),
                            "Lower training.learning_rate, or train in float32; the checkpoint before it is kept.")
        return shown

    def record(epoch: int) -> None:
        """What an epoch that is over came to."""
        nonlocal total
        seconds = seen + time.monotonic() - began
        found = {"epoch": epoch + 1, "step": step, "seconds": round(seconds, 3), "loss": total / per_epoch,
                 "lr": optimizer.param_groups[0]["lr"],
                 "images_per_second": (step - start) * batch / max(1e-9, time.monotonic() - began)}
        if health is not None:
            found.update(health.check(student))
        history.append(found)
        warned = warnings_of(history, settings.epochs)
        found.update(warnings=list(warned.values()), warned=list(warned))
        total = 0.0
        if writes:
            _check_there(folder)
            write_text(folder / "metrics.jsonl", "".join(json.dumps(r) + "\n" for r in history))
            for warning in found["warnings"]:
                warn(warning)
        if track:
            accelerator.log({k: v for k, v in found.items() if isinstance(v, (int, float))}, step=step)

    with shared, HeldBack() as interrupts:
        try:
            while True:
                epoch, first = divmod(step, per_epoch)
                if first == 0 and epoch > (history[-1]["epoch"] if history else 0):
                    record(epoch - 1)
                    save()
                    interrupts.check()
                if step == settings.epochs * per_epoch:
                    break
                order, targets = streams.order(epoch, len(source)), training_set.targets(epoch)
                views = training_set.view(epoch), training_set.view(f"{epoch} second") if "other" in needs else None
                batches = [order[i * batch : (i + 1) * batch][rank::world] for i in range(first, per_epoch)]
                module.train()
                for indices, images in interrupts.during(read_batches(source, batches, workers)):
                    loss, size = train_step(indices, images, epoch), min(batch, len(source) - step % per_epoch * batch)
                    total, step = total + loss, step + 1
                    advance(size)
                    interrupts.check()
                    if time.monotonic() - saved > CHECKPOINT_SECONDS:
                        save()
        except KeyboardInterrupt:
            if not interrupts.forced:
                save()
            raise
    if track:
        accelerator.end_training()
    student.module.eval()
    return history


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


KEYS = {"module", "terms", "optimizer", "history", "step", "total", "seconds", "rng"}


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write tensors and plain values; the random state of torch goes with them."""
    state = {**state, "rng": torch.random.get_rng_state()}
    if torch.cuda.is_available():
        state["rng_cuda"] = torch.cuda.get_rng_state_all()
    write_atomic(path, lambda p: torch.save(state, p))


def load_checkpoint(path: Path) -> dict[str, Any] | None:
    """The state saved last, with torch's random state restored; None where there is none, or it cannot be read."""
    if not path.exists():
        return None
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        if not isinstance(state, dict) or not state.keys() >= KEYS:
            raise TypeError("not what a checkpoint holds")
        torch.random.set_rng_state(state.pop("rng"))
    except PermissionError:
        raise
    except Exception as error:  # zip, pickle, type and runtime errors alike: the file is no checkpoint of ours
        progress.say(f"{path}: not a readable checkpoint ({type(error).__name__}); this trial starts from its beginning")
        return None
    if "rng_cuda" in state:
        states = state.pop("rng_cuda")
        if torch.cuda.is_available() and len(states) == torch.cuda.device_count():
            torch.cuda.set_rng_state_all(states)
    return state
