"""An arm's loss: its weighted objectives, and what is trained or kept beside the student and thrown away."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator
from functools import partial
from typing import Any

import numpy as np
import torch

from distillscope import group
from distillscope.config.parts import Objective, Part
from distillscope.config.resolve import check_arm_parts
from distillscope.config.study import Arm, Training
from distillscope.data.source import Source
from distillscope.draws import keyed_seed
from distillscope.errors import UserError, unknown_name
from distillscope.objectives import GIVEN, LARGEST_SCALE
from distillscope.registry import objectives, projectors, targets
from distillscope.training.gathered_batch import BatchGather

HIGHEST = float(np.nextafter(np.float32(math.log(LARGEST_SCALE)), np.float32(0)))
"""Of a learned log scale: the highest float32 below what the loss cuts it to, where it still has a gradient."""


class Memory:
    """Target rows of earlier batches: the newest ``capacity``, each item once."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.rows, self.items = torch.empty(0, 0), torch.empty(0, dtype=torch.int64)

    def without(self, items: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
        """The rows (q, k) once those of ``items`` are forgotten: no image is its own negative."""
        if not len(self.rows):
            return like.new_empty((0, like.shape[1]))
        stale = torch.isin(self.items, items)
        if stale.any():
            self.rows, self.items = self.rows[~stale], self.items[~stale]
        return self.rows

    def add(self, rows: torch.Tensor, items: torch.Tensor) -> None:
        """Keep the rows of a batch, and let the oldest go."""
        if self.capacity:
            before, names = (self.rows, self.items) if len(self.rows) else (rows[:0], items[:0])
            self.rows, self.items = torch.cat([before, rows])[-self.capacity :], torch.cat([names, items])[-self.capacity :]


class Term(torch.nn.Module):
    """One objective with its weight, settings and, where it asks for them, head, learned scale and memory."""

    def __init__(self, objective: Objective, where: str, dim: int, num_classes: int | None,
                 teacher_classes: int | None = None) -> None:
        super().__init__()
        settings = settings_of(objective, where)
        self.weight, self.projected = objective.weight, objective.projected
        self.begins, self.ends = objective.during or (0.0, 1.0)
        self.function, self.needs = partial(objectives.get(objective.name), **settings), objectives.needs(objective.name)
        for need in self.needs:
            if need not in GIVEN:
                raise unknown_name(f"objective {objective.name}", "name of what an objective may ask for", need, GIVEN)
        if num_classes is None and needs_labels(self.needs):
            raise UserError(where, "data with labels", "none", "Name the label column, or use an objective without labels.")
        if teacher_classes is None and "teacher_logits" in self.needs:
            raise no_head(where, "none")
        outputs = teacher_classes if "teacher_logits" in self.needs else num_classes
        self.head = torch.nn.Linear(dim, outputs) if "logits" in self.needs and outputs is not None else None
        self.log_scale: torch.nn.Parameter | None = None
        if "log_scale" in self.needs:
            self.log_scale = torch.nn.Parameter(torch.tensor(min(-math.log(settings["temperature"]), HIGHEST)))
        self.memory = Memory(capacity(objective, where)) if "earlier" in self.needs else None


    def counts(self, done: float) -> bool:
        """Whether it is part of the loss when a share ``done`` of the training is over."""
        return self.begins <= done < self.ends or done == self.ends == 1


class Terms(torch.nn.Module):
    """The loss of an arm; its parameters (projector, heads, scales) are optimised with the student and not saved with it.

    ``done`` is the share of the training that is over, which says what terms count.
    """

    place: torch.Tensor

    def __init__(self, arm: Arm, dim: int, target_dim: int, num_classes: int | None = None, *,
                 teacher_classes: int | None = None, seed: int = 0, gather: BatchGather = BatchGather()) -> None:
        super().__init__()
        self.gather, self.done = gather, 0.0
        self._latest: tuple[torch.Tensor, torch.Tensor] | None = None
        self.register_buffer("place", torch.empty(0), persistent=False)  # says on which device memories belong
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(keyed_seed(seed, "projector"))
            self.projector: torch.nn.Module | None = None
            shown = dim
            if arm.projector is not None:
                where = f"arms.{arm.name}.projector"
                projector = projectors.call(arm.projector.name, arm.projector.settings, dim, target_dim, where=where)
                projector.eval()
                with torch.no_grad():
                    shown = projector(torch.zeros(2, dim)).shape[1]
                self.projector = projector.train()
            torch.manual_seed(keyed_seed(seed, "heads"))
            self.terms = torch.nn.ModuleList(
                Term(o, f"arms.{arm.name}.objective ({o.name})", shown if o.projected else dim, num_classes, teacher_classes)
                for o in arm.objective if o.weight)

    def __iter__(self) -> Iterator[Term]:
        return (term for term in self.terms if isinstance(term, Term))

    @property
    def needs(self) -> set[str]:
        """What the terms ask for, of all that `GIVEN` lists."""
        return {need for term in self for need in term.needs}

    def forward(self, given: dict[str, torch.Tensor], items: torch.Tensor, total: int) -> torch.Tensor:
        """The weighted sum over the whole batch of ``total`` images.

        ``given``: student, teacher and, where they are needed, other, labels and teacher_logits: this process's rows;
        ``items``: their places in the training set.
        """
        with torch.autocast(given["student"].device.type, enabled=False):
            batch = _Batch(given, items, total, self.projector, self.gather)
            first, *others = (term.weight * term.function(*(batch.get(need, term) for need in term.needs)) for term in self
                              if term.counts(self.done))
            loss: torch.Tensor = sum(others, first)
        self._latest = (batch.target(), batch.items()) if any(term.memory for term in self) else None
        return loss

    @torch.no_grad()
    def hold_scales(self) -> None:
        """Learned scales that a step took beyond the largest come back to it: held in the loss alone they would stay there."""
        for scale in (term.log_scale for term in self if term.log_scale is not None):
            scale.clamp_(max=HIGHEST)

    def remember(self) -> None:
        """Let the memories take in the batch that the last loss was of."""
        for term in self:
            if term.memory is not None and self._latest is not None:
                rows, items = self._latest
                term.memory.without(items, rows)  # where the term does not count yet, its loss did not ask for this
                term.memory.add(rows, items)

    def share_gradients(self) -> None:
        """The mean over processes of the gradients of what stands beside the student."""
        if self.gather.world > 1:
            for gradient in [p.grad for p in self.parameters() if p.grad is not None]:
                torch.distributed.all_reduce(gradient)
                gradient.div_(self.gather.world)

    def state(self) -> dict[str, Any]:
        """Tensors for a checkpoint, memories among them."""
        memories = [None if term.memory is None else (term.memory.rows, term.memory.items) for term in self]
        return {"parameters": self.state_dict(), "memories": memories}

    def restore(self, state: dict[str, Any]) -> None:
        """What `state` gave."""
        self.load_state_dict(state["parameters"])
        for term, kept in zip(self, state["memories"], strict=True):
            if kept is not None and term.memory is not None:
                term.memory.rows, term.memory.items = (k.to(self.place.device) for k in kept)


class _Batch:
    """The whole batch under the names that objectives use, each gathered once and only if asked for."""

    def __init__(self, given: dict[str, torch.Tensor], items: torch.Tensor, total: int,
                 projector: torch.nn.Module | None, gather: BatchGather) -> None:
        self.given, self.part, self.total, self.projector, self.gather = given, items, total, projector, gather
        self.ready: dict[Any, torch.Tensor] = {}

    def get(self, need: str, term: Term) -> torch.Tensor:
        memory, head = term.memory, term.head
        if need == "log_scale" and term.log_scale is not None:
            return term.log_scale
        if need == "earlier" and memory is not None:
            return memory.without(self.items(), self.target())
        if need == "logits" and head is not None:
            return self._gathered(term, lambda: head(self._shown("student", term.projected)))
        if need in ("student", "other"):
            return self._gathered((need, term.projected), lambda: self._shown(need, term.projected))
        return self._gathered(need, lambda: self.given[need])

    def target(self) -> torch.Tensor:
        return self._gathered("teacher", lambda: self.given["teacher"])

    def items(self) -> torch.Tensor:
        return self._gathered("items", lambda: self.part)

    def _shown(self, name: str, projected: bool) -> torch.Tensor:
        projector = self.projector
        if projector is None or not projected:
            return self.given[name]
        return self._once(("projected", name), lambda: projector(self.given[name]))

    def _gathered(self, key: Any, make: Any) -> torch.Tensor:
        return self._once(("whole", key), lambda: self.gather(make(), self.total))

    def _once(self, key: Any, make: Any) -> torch.Tensor:
        if key not in self.ready:
            self.ready[key] = make()
        return self.ready[key]


def needs_labels(needs: Collection[str]) -> bool:
    """Whether an objective that asks for ``needs`` asks for the data's labels: a head may be for the teacher's classes."""
    return "labels" in needs or ("logits" in needs and "teacher_logits" not in needs)


def no_head(where: str, got: str) -> UserError:
    """The one line for a teacher without classes of its own."""
    return UserError(where, "a teacher with a linear head of its own, as efficientnet_lite0 and timm's classifiers have", got,
                     "Use another objective, or such a teacher.")


def settings_of(objective: Objective, where: str) -> dict[str, Any]:
    """All settings of a term: those given, checked, over the defaults."""
    defaults = {k: p.default for k, p in objectives.settings(objective.name).items()}
    return {**defaults, **objectives.check(objective.name, objective.settings, where)}


def capacity(objective: Objective, where: str) -> int:
    """How many earlier targets a term keeps: its setting `queue` or `memory`."""
    settings = settings_of(objective, where)
    sizes = [settings[key] for key in ("queue", "memory") if key in settings]
    if len(sizes) != 1:
        raise TypeError(f"objective {objective.name} asks for `earlier`, and so needs one setting `queue` or `memory`")
    return sizes[0]


def check_arm(arm: Arm, training: Training, source: Source) -> None:
    """What the arm, the data or the batch cannot give to its objectives, said before any work."""
    check_arm_parts(arm)
    count, batch = len(source), training.batch_size
    for objective in (o for o in arm.objective if o.weight):
        where, needs = f"arms.{arm.name}.objective ({objective.name})", objectives.needs(objective.name)
        if source.labels is None and needs_labels(needs):
            raise UserError(where, "data with labels", f"{source.name}/{source.split} without",
                            "Name the label column, or use an objective without labels.")
        if "earlier" in needs and capacity(objective, where) > max(0, count - batch):
            key = "queue" if "queue" in objectives.settings(objective.name) else "memory"
            raise UserError(f"{where} {key}",
                            f"at most {max(0, count - batch)}, the {count} training images less a batch of {batch}",
                            str(capacity(objective, where)), f"Set a smaller {key}.")
    world = group.launched()
    if not training.drop_last and 0 < count % batch < world:
        raise UserError("training.drop_last", f"true, since the last batch is smaller than the {world} processes", "false",
                        "Set it to true, or change training.batch_size.")
    if not training.drop_last and count % batch == 1:
        raise UserError("training.drop_last",
                        "true, since the last batch would be one image, which nothing can be compared with",
                        f"false with {count} images in batches of {batch}", "Set it to true, or change training.batch_size.")


def target_dim(target: Part, teacher_dim: int) -> int:
    """The dimension of a target's output: its setting `dim`, by default the teacher's own."""
    setting = targets.settings(target.name).get("dim")
    asked = target.settings.get("dim", None if setting is None else setting.default)
    if asked is not None and asked > teacher_dim:
        raise UserError("target.dim", f"1 to the teacher's {teacher_dim} dimensions", str(asked),
                        f"Set target.dim={teacher_dim} or less.")
    return teacher_dim if asked is None else asked


def check_dims(arm: Arm, target: Part, teacher_dim: int) -> None:
    """Whether each of the arm's objectives can compare what it will see, tried on four random rows."""
    dim = target_dim(target, teacher_dim)
    generator = torch.Generator().manual_seed(0)
    given = {name: torch.randn(4, dim, generator=generator) for name in ("student", "teacher", "other")}
    for objective in (o for o in arm.objective if o.weight):
        alone = {"objective": (objective.model_copy(update={"during": None}),)}
        terms = Terms(arm.model_copy(update=alone), dim, dim, num_classes=2, teacher_classes=2)
        labels = {"labels": torch.tensor([0, 1, 0, 1]), "teacher_logits": torch.zeros(4, 2)}
        try:
            terms({**given, **labels}, torch.arange(4), 4)
        except UserError as error:
            where = f"arms.{arm.name}.{error.where} ({objective.name})"
            raise UserError(where, error.expected, error.got, error.todo) from None
