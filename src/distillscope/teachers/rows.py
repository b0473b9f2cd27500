"""A teacher as studies and audits ask it: its embeddings of the items of a source, by a network or ready-made by anything."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from distillscope import progress, registry
from distillscope.config.parts import Teacher
from distillscope.data.source import Source
from distillscope.data.splits import HELD_OUT
from distillscope.devices import choose_device
from distillscope.errors import UserError
from distillscope.inputs.embeddings import positions, read_embeddings
from distillscope.inputs.formats import EMBEDDINGS, suffix_of
from distillscope.registry import teachers

if TYPE_CHECKING:
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


class ReadyEmbeddings(TeacherRows):
    """Embeddings of a data set's splits; `lookup` aligns them to a Source. It cannot embed views or noisy images."""

    def __init__(self, path: Path) -> None:
        self.path, self.name = path, f"embeddings/{path.name}"
        found = self._files()
        if not found:
            raise UserError("teacher.path", "SPLIT.npy (or another format) or SPLIT/img_emb/*.npy", f"none in '{path}'",
                            "Check the path.")
        first = min(found, key=lambda f: f.stem not in ("train", "test"))  # labels may lie beside
        self.dim = int(read_embeddings(first).rows.shape[1])

    def _files(self) -> list[Path]:
        """Files of embeddings, or folders of shards, in a fixed order."""
        files = sorted(f for f in self.path.glob("*") if suffix_of(f) in EMBEDDINGS and f.is_file())
        return files + sorted(f.parent for pattern in ("img_emb", "*/img_emb") for f in self.path.glob(pattern) if f.is_dir())

    def describe(self) -> dict[str, Any]:
        """What names these embeddings: path, dimension, and size and time of each file."""
        files = sorted(f for f in self.path.rglob("*") if suffix_of(f) in EMBEDDINGS)
        stamps = repr([(str(f), f.stat().st_size, f.stat().st_mtime_ns) for f in files]).encode()
        return {"name": self.name, "dim": self.dim, "files": hashlib.blake2b(stamps, digest_size=8).hexdigest()}

    def lookup(self, source: Source) -> np.ndarray:
        """(n, dim) float32, row i for item i of ``source``: by id where ids were given, else by order."""
        split = source.split.removesuffix(HELD_OUT)
        found, where = read_embeddings(self.path, split=split), f"{self.path}/{split}"
        if found.ids is not None:
            found = found.take(positions(found.ids, source.ids, where))
        elif len(found) != len(source):
            raise UserError(where, f"{len(source)} rows, one an item", str(len(found)),
                            f"Give ids ({split}_ids.txt), or embed the same items in the same order.")
        picked = np.asarray(found.rows, dtype=np.float32)
        bad = ~np.isfinite(picked).all(axis=1)
        if bad.any():
            raise UserError(where, "finite embeddings", f"NaN or infinity in {int(bad.sum())} rows, first "
                            f"{source.ids[int(bad.argmax())]}", "Embed those items again.")
        return picked


@teachers.register("embeddings")
def embeddings(*, path: Path) -> ReadyEmbeddings:
    """Ready-made embeddings: FOLDER/{split}.npy or another format (+ {split}_ids.txt), or clip-retrieval's FOLDER/{split}/."""
    path = Path(path).expanduser()
    if not path.is_dir():
        raise UserError("teacher.path", "a folder that exists", f"'{path}'", "Check the path.")
    return ReadyEmbeddings(path)
