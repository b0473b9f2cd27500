"""What a path stands for: the data set that reads it, or the teacher that runs it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

FILE_KINDS = {".parquet": "parquet", ".tar": "webdataset",
              **dict.fromkeys((".csv", ".tsv", ".jsonl", ".ndjson"), "manifest")}
"""Suffix of a file that holds or lists images -> the data set that reads it."""

DESCRIPTION = "student.json"
"""The file of a distilled student's folder that says what the student is."""
MODEL_FILES = {".onnx": "onnx", ".ts": "torchscript", ".torchscript": "torchscript", ".pt2": "exported", ".tflite": "tflite"}
"""Suffix of a file that holds a whole model -> the teacher that runs it."""


def data_kind(text: str) -> str | None:
    """Which data set function reads what a path or a Hub name points to; None where it is neither."""
    path = Path(text).expanduser()
    suffix = "".join(path.suffixes[-2:] if path.suffix.lower() == ".gz" else path.suffixes[-1:]).lower()
    if path.is_dir():
        return _folder_kind(path)
    kind = FILE_KINDS.get(suffix.removesuffix(".gz"))
    if kind or path.exists():
        return kind
    return "hub" if text.count("/") == 1 and not text.startswith((".", "/", "~")) else None


def _folder_kind(path: Path) -> str:
    if (path / "dataset_dict.json").is_file() or ((path / "state.json").is_file() and (path / "dataset_info.json").is_file()):
        return "saved"
    if any(not f.name.startswith(".") for pattern in ("*.parquet", "data/*.parquet") for f in path.glob(pattern)):
        return "parquet"
    if any(not f.name.startswith(".") for pattern in ("*.tar", "*/*.tar") for f in path.glob(pattern)):
        return "webdataset"
    return "image_folder"


def model_file(text: str) -> dict[str, Any] | None:
    """The teacher that runs the model file that ``text`` names, as plain values; None where it names none.

    FILE:OUTPUT names an output, FILE:OUTPUT@first and FILE:OUTPUT@mean say what to take of its tokens. A `.pt` or `.pth` file
    is held to be TorchScript.

    >>> model_file("clip.onnx:image_embeds")
    {'name': 'onnx', 'path': 'clip.onnx', 'output': 'image_embeds'}
    """
    path, key = Path(text).expanduser(), ""
    head, _, rest = text.partition(":")
    if rest and not path.exists() and Path(head).suffix.lower() in (*MODEL_FILES, ".pt", ".pth"):
        path, key = Path(head).expanduser(), rest
    kind = MODEL_FILES.get(path.suffix.lower())
    if kind is None and path.suffix.lower() in (".pt", ".pth") and path.is_file():
        kind = "torchscript"
    if kind is None:
        return None
    output, at, pool = key.rpartition("@")
    if not at or pool not in ("first", "mean"):
        output, pool = key, ""
    return {"name": kind, "path": str(path), **({"output": output} if output else {}), **({"pool": pool} if pool else {})}
