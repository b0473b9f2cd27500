"""What a study keeps beside its numbers: embeddings and predictions of the test images."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from distillscope.data.source import Source, labels_of
from distillscope.files.writing import write_atomic


def save_embeddings(folder: Path, embeddings: np.ndarray, source: Source, dtype: type = np.float16) -> None:
    """clip-retrieval's layout, with ids (and labels); float16 unless asked otherwise."""
    write_atomic(folder / "img_emb" / "img_emb_0.npy", lambda p: np.save(p, embeddings.astype(dtype), allow_pickle=False))
    table = {"image_path": source.ids} | ({} if source.labels is None else {"label": source.labels})
    write_atomic(folder / "metadata" / "metadata_0.parquet", lambda p: pd.DataFrame(table).to_parquet(p, index=False))


def save_predictions(path: Path, predictions: Mapping[tuple, np.ndarray], source: Source) -> None:
    """One column for each probe, condition and draw, beside id and label."""
    columns: dict[str, Any] = {"id": source.ids, "label": labels_of(source).astype(np.int32)}
    for (probe, condition, draw), predicted in predictions.items():
        columns[f"{probe}|{condition}|{'' if draw is None else draw}"] = predicted.astype(np.int32)
    write_atomic(path, lambda p: pd.DataFrame(columns).to_parquet(p, index=False))
