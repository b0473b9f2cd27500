"""Sets of images as users have them on disk, and read as every command reads them."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from distillscope.config.resolve import named_dataset
from distillscope.data.splits import load_split


def tar(path, items):
    """A tar of (name, content), and the folder that it is in."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as out:
        for name, content in items:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            out.addfile(info, io.BytesIO(content))
    return path.parent


def load(path, split="test", **options):
    """The images of one split of what `--data` may name."""
    part = named_dataset(path if isinstance(path, dict) else str(path))
    return load_split(part.name, part.settings, split, **options)


def write_parquet(folder: Path, label: str | None = "label") -> Path:
    """Two small splits in the Hub's layout, with two classes in that column."""
    rng = np.random.default_rng(0)
    folder.mkdir()
    for split, count in (("train", 60), ("test", 20)):
        rows = []
        for i in range(count):
            buffer = io.BytesIO()
            Image.fromarray(rng.integers(0, 256, (12, 12, 3), dtype=np.uint8)).save(buffer, "PNG")
            rows.append({"img": {"bytes": buffer.getvalue(), "path": f"{i}.png"}} | ({label: i % 2} if label else {}))
        pd.DataFrame(rows).to_parquet(folder / f"{split}.parquet")
    return folder
