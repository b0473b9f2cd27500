"""A teacher as studies and audits ask it: its embeddings of the items of a source, whatever makes them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

import numpy as np

from distillscope import progress, registry
from distillscope.config.parts import Teacher
from distillscope.data.source import Source
from distillscope.devices import choose_device
from distillscope.errors import UserError

if TYPE_CHECKING:  # an Encoder is a teacher, so its file imports this one
    from distillscope.teachers.encoder import Encoder, Perturbation


class TeacherRows(ABC):
    """A teacher that has rows and no network: it cannot embed views or noisy images. `Encoder` is the one that can.

    A teacher of one's own gives ``name``, ``dim`` (of its embeddings), `describe` and `lookup`; the rest follows.
    """

    name: str
    dim: int
    precision: str = "float32"
    num_parameters: int = 0
    reading: str = ""
    """What was decided about weights or a file that do not say it themselves, in one line for the user."""

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """Plain values that decide the embeddings: they name what is stored, and ``weights`` what is judged together."""

    def lookup(self, source: Source) -> np.ndarray:
        """(n, dim) float32, row i for item i of ``source``; an `Encoder` makes its rows from the images instead."""
        raise UserError(f"teacher {self.name}", "a method `lookup` that gives its rows", "none", "Write one in its class.")

    @property
    def network(self) -> Encoder | None:
        """What embeds images anew; None where there are only rows."""
        return None

    @property
    def place(self) -> str:
        """Where its embeddings are kept, for the user."""
        return self.name

    def rows(self, source: Source, perturbation: Perturbation | None = None, *, label: str | None = None,
             workers: int = 0) -> np.ndarray:
        """Embeddings (n, dim) float32 of every item of a source as ``perturbation`` shows it; ``label`` for the progress."""
        if perturbation is not None:
            raise UserError(f"teacher {self.name}", "a model, since views and noise need new embeddings",
                            "ready-made embeddings", "Leave noise out (noise.sigmas: []) and use arms without a view.")
        return self.lookup(source)

    def num_missing(self, source: Source, perturbation: Perturbation | None = None) -> int:
        """How many images of ``source`` must still be embedded; nothing is."""
        return 0


def load_teacher(teacher: Teacher, device: str, precision: str | None) -> TeacherRows:
    """The teacher, frozen and on its device; a preset's own precision gives way to what the user asks for.

    "float16_on_cuda" is the notebook's: float16 on a CUDA device, float32 elsewhere.
    """
    found: TeacherRows = registry.teachers.call(teacher.name, teacher.settings, where="teacher")
    if found.network:
        chosen, own = choose_device(device), teacher.precision or "float32"
        if own == "float16_on_cuda":
            own = "float16" if chosen.type == "cuda" else "float32"
        found.network.to(chosen, precision or own)
        if found.reading:
            progress.say(found.reading)
    return found
