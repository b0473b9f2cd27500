"""Recall at 1 of each student as it is in the teacher's own space (no map), a line of JSON each: python raw_recall.py RUN.

From the test embeddings that a run keeps and an archive does not, in float16; the teacher's under the study's target.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

from distillscope.measure.functional import recall_at_k


def rows(folder: Path) -> np.ndarray:
    return np.load(next((folder / "embeddings_test" / "img_emb").glob("*.npy"))).astype(np.float32)


def main(run: Path) -> None:
    teacher = rows(next(p for p in (run / "references").iterdir() if not p.name.endswith("--none")))
    for folder in sorted((run / "trials").iterdir()):
        trial = json.loads((folder / "complete.json").read_text())["trial"]
        print(json.dumps({"arm": trial["arm"], "seed": trial["seed"], "recall_at_1": recall_at_k(teacher, rows(folder), 1)}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
