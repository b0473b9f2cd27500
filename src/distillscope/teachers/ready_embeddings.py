"""Ready-made embeddings as a teacher: made by anything, looked up by item."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np

from distillscope.data.source import Source
from distillscope.data.splits import HELD_OUT
from distillscope.errors import UserError
from distillscope.inputs.embeddings import positions, read_embeddings
from distillscope.inputs.formats import EMBEDDINGS, suffix_of
from distillscope.registry import teachers
from distillscope.teachers.rows import TeacherRows


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
