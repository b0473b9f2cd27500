"""Ready-made embeddings as a teacher: made by anything, looked up by item."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np

from distillscope.data.source import Source
from distillscope.errors import UserError
from distillscope.registry import teachers


class ReadyEmbeddings:
    """Embeddings of a data set's splits; `lookup` aligns them to a Source. It cannot embed views or noisy images."""

    def __init__(self, path: Path) -> None:
        self.path, self.name = path, f"embeddings/{path.name}"
        found = sorted(path.glob("*.npy")) + sorted(path.glob("*/img_emb/img_emb_0.npy"))
        if not found:
            raise UserError("teacher.path", "SPLIT.npy files or SPLIT/img_emb/*.npy", f"none in '{path}'", "Check the path.")
        self.dim = int(_load(found[0]).shape[1])

    def describe(self) -> dict[str, Any]:
        """What names these embeddings: path, dimension, and size and time of each file."""
        files = sorted(self.path.rglob("*.npy"))
        stamp = hashlib.blake2b(repr([(str(f), f.stat().st_size, f.stat().st_mtime_ns) for f in files]).encode(), digest_size=8)
        return {"name": self.name, "dim": self.dim, "files": stamp.hexdigest()}

    def lookup(self, source: Source) -> np.ndarray:
        """(n, dim) float32, row i for item i of ``source``: by id where ids were given, else by order."""
        rows, ids = self._split(source.split)
        where = f"{self.path}/{source.split}"
        if ids is None:
            if len(rows) != len(source):
                raise UserError(where, f"{len(source)} rows, one an item", str(len(rows)),
                                f"Give ids ({source.split}_ids.txt), or embed the same items in the same order.")
            picked = np.asarray(rows, dtype=np.float32)
        else:
            at = {item: i for i, item in enumerate(ids)}
            missing = [i for i in source.ids if i not in at]
            if missing:
                raise UserError(where, "an embedding for every item", f"{len(missing)} of {len(source)} missing (first {missing[0]})",
                                "Embed them too, or use a part of the data.")
            picked = np.asarray(rows[[at[i] for i in source.ids]], dtype=np.float32)
        bad = ~np.isfinite(picked).all(axis=1)
        if bad.any():
            raise UserError(where, "finite embeddings", f"NaN or infinity in {int(bad.sum())} rows, first {source.ids[int(bad.argmax())]}",
                            "Embed those items again.")
        return picked

    def _split(self, split: str) -> tuple[np.ndarray, list[str] | None]:
        single, folder = self.path / f"{split}.npy", self.path / split
        if single.is_file():
            ids = self.path / f"{split}_ids.txt"
            rows, names = _load(single), ids.read_text().splitlines() if ids.is_file() else None
        elif (folder / "img_emb").is_dir():
            import pandas as pd

            order = sorted(folder.glob("img_emb/img_emb_*.npy"), key=lambda f: int(f.stem.rsplit("_", 1)[1]))
            rows = np.concatenate([_load(f) for f in order]) if len(order) > 1 else _load(order[0])
            tables = [folder / "metadata" / f"metadata_{f.stem.rsplit('_', 1)[1]}.parquet" for f in order]
            names = [i for t in tables for i in pd.read_parquet(t)["image_path"]] if all(t.is_file() for t in tables) else None
        else:
            raise UserError(f"teacher {self.path}", f"{split}.npy or {split}/img_emb/", "neither", "Embed that split too.")
        if names is not None and len(names) != len(rows):
            raise UserError(f"{self.path}/{split}", f"{len(rows)} ids", str(len(names)), "Write one id for each row.")
        return rows, names


def _load(path: Path) -> np.ndarray:
    try:
        rows = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise UserError(str(path), "a plain .npy file", str(error).split("\n")[0][:120], "Save it again with numpy.save.") from None
    if rows.ndim != 2 or rows.dtype.kind != "f":
        raise UserError(str(path), "floats of shape (items, dimensions)", f"{rows.dtype} of shape {rows.shape}", "Save embeddings.")
    return rows


@teachers.register("embeddings")
def embeddings(*, path: Path) -> ReadyEmbeddings:
    """Ready-made embeddings: FOLDER/{train,test}.npy (+ {split}_ids.txt), or clip-retrieval folders FOLDER/{split}/."""
    path = Path(path).expanduser()
    if not path.is_dir():
        raise UserError("teacher.path", "a folder that exists", f"'{path}'", "Check the path.")
    return ReadyEmbeddings(path)
