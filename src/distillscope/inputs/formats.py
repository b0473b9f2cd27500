"""Suffix -> reader. A format is one function (path, where) -> its arrays; adding one is a line here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from distillscope.errors import UserError
from distillscope.inputs.arrays import read_npy, read_npz, read_safetensors, read_torch
from distillscope.inputs.members import Member, readable
from distillscope.inputs.tables import read_csv, read_parquet, read_txt

READERS: dict[str, Callable[[Path, str], list[Member]]] = {
    ".npy": read_npy,
    ".npz": read_npz,
    ".safetensors": read_safetensors,
    ".pt": read_torch,
    ".pth": read_torch,
    ".bin": read_torch,
    ".parquet": read_parquet,
    ".csv": read_csv,
    ".txt": read_txt,
}
EMBEDDINGS = tuple(suffix for suffix in READERS if suffix != ".txt")
MODELS = (".onnx", ".ts", ".torchscript")


def split_key(spec: str | Path) -> tuple[Path, str | None]:
    """A path, and the array's name after a colon: FILE.npz:key.

    >>> split_key("vectors.npz:teacher")
    (PosixPath('vectors.npz'), 'teacher')
    """
    path = Path(spec).expanduser()
    head, colon, key = str(path).rpartition(":")
    if colon and key and not path.exists() and Path(head).suffix.lower() in (*READERS, *MODELS):
        return Path(head), key
    return path, None


def read_members(path: Path, where: str, suffixes: Sequence[str] = tuple(READERS)) -> list[Member]:
    """The arrays of a file, by its suffix."""
    suffix = path.suffix.lower()
    if suffix in MODELS:
        raise UserError(where, "embeddings", "a model", "Add --data DATA, and it embeds its images.")
    if suffix not in suffixes:
        raise UserError(where, f"a file that ends in {', '.join(suffixes)}", f"'{suffix}'" if suffix else "no suffix",
                        "Rename it if it is one of these, or save it again as .npy.")
    with readable(where, f"a {suffix} file that can be read"):
        if not path.stat().st_size:
            raise UserError(where, f"a {suffix} file", "an empty file", "Save or fetch it again.")
        return READERS[suffix](path, where)
