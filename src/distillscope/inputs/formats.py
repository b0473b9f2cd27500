"""Suffix -> reader. A format is one function (path, where) -> what the file holds; adding one is a line here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from distillscope.errors import UserError
from distillscope.inputs.arrays import read_npy, read_npz
from distillscope.inputs.arrow import read_arrow, read_jsonl, read_parquet
from distillscope.inputs.members import Contents, readable
from distillscope.inputs.tables import read_csv, read_txt
from distillscope.inputs.tensors import read_safetensors, read_torch
from distillscope.inputs.trees import read_hdf5, read_json

READERS: dict[str, Callable[[Path, str], Contents]] = {
    ".npy": read_npy,
    ".npz": read_npz,
    ".safetensors": read_safetensors,
    ".pt": read_torch,
    ".pth": read_torch,
    ".bin": read_torch,
    ".parquet": read_parquet,
    ".feather": read_arrow,
    ".arrow": read_arrow,
    ".csv": read_csv,
    ".csv.gz": read_csv,
    ".tsv": read_csv,
    ".tsv.gz": read_csv,
    ".jsonl": read_jsonl,
    ".jsonl.gz": read_jsonl,
    ".json": read_json,
    ".h5": read_hdf5,
    ".hdf5": read_hdf5,
    ".txt": read_txt,
}
ALIASES = {".ndjson": ".jsonl", ".ndjson.gz": ".jsonl.gz", ".pq": ".parquet", ".ipc": ".arrow", ".hdf": ".h5"}
EMBEDDINGS = tuple(suffix for suffix in READERS if suffix != ".txt")
MODELS = (".onnx", ".ts", ".torchscript", ".pt2", ".tflite", ".xml", ".pte")
OTHER_MODELS = (".engine", ".plan", ".trt", ".mlmodel", ".mlpackage", ".pb", ".keras", ".pte", ".xml", ".ckpt", ".gguf",
                ".msgpack")
"""What other runtimes' models end in: nothing here runs them."""
PICKLES = (".pkl", ".pickle", ".joblib")


@dataclass(frozen=True)
class Spec:
    """What an argument names: a path, the embedding's array or columns, and the ids' column."""

    path: Path
    key: str | None = None
    ids: str | None = None


def suffix_of(path: Path) -> str:
    """The suffix that names the format; of a .gz, both.

    >>> suffix_of(Path("a.b.CSV.gz")), suffix_of(Path("run.5/a.npy"))
    ('.csv.gz', '.npy')
    """
    suffix = path.suffix.lower()
    suffix = f"{path.with_suffix('').suffix.lower()}.gz" if suffix == ".gz" else suffix
    return ALIASES.get(suffix, suffix)


def parse_spec(spec: str | Path) -> Spec:
    """FILE, FILE:array, FILE@ids or FILE:array@ids. What exists as a whole is a path, whatever is in its name.

    >>> parse_spec("vectors.npz:teacher@names")
    Spec(path=PosixPath('vectors.npz'), key='teacher', ids='names')
    """
    whole = Path(spec).expanduser()
    if whole.exists():
        return Spec(whole)
    text = str(whole)
    head, at, ids = text.rpartition("@")
    choices = [(head, ids), (text, None)] if at and head and ids else [(text, None)]
    for known in (lambda p: p.exists(), lambda p: suffix_of(p) in (*READERS, *MODELS)):
        for named, column in choices:
            if known(Path(named)):
                return Spec(Path(named), None, column)
            colon = named.find(":")
            while colon > 0:  # the first colon after which a file stands: a column's name may have one too
                if named[colon + 1 :] and known(Path(named[:colon])):
                    return Spec(Path(named[:colon]), named[colon + 1 :], column)
                colon = named.find(":", colon + 1)
    return Spec(whole)


def split_key(spec: str | Path) -> tuple[Path, str | None]:
    """A path, and the array's name after a colon: FILE.npz:key.

    >>> split_key("vectors.npz:teacher")
    (PosixPath('vectors.npz'), 'teacher')
    """
    found = parse_spec(spec)
    return found.path, found.key


def read_contents(path: Path, where: str, suffixes: Sequence[str] = tuple(READERS)) -> Contents:
    """What a file holds, by its suffix."""
    suffix = suffix_of(path)
    if suffix in MODELS:
        raise UserError(where, "embeddings", "a model", "Add --data DATA, and it embeds its images.")
    if suffix in OTHER_MODELS:
        raise UserError(where, f"embeddings, or a model that ends in {', '.join(MODELS)}",
                        f"'{suffix}', a model of another runtime",
                        "Export it to ONNX, or embed the images with it and save the rows as .npy.")
    if suffix in PICKLES:
        raise UserError(where, "arrays", "a pickle, which is never opened, since it can run any program",
                        "Save its arrays with numpy.savez, or its table with to_parquet.")
    if suffix not in suffixes:
        raise UserError(where, f"a file that ends in {', '.join(suffixes)}", f"'{suffix}'" if suffix else "no suffix",
                        "Rename it if it is one of these, or save it again as .npy.")
    with readable(where, f"a {suffix} file that can be read"):
        if not path.stat().st_size:
            raise UserError(where, f"a {suffix} file", "an empty file", "Save or fetch it again.")
        return READERS[suffix](path, where)
