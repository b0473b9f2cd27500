"""A .json file: a list of objects, an object of columns, or an object of id -> embedding."""

from __future__ import annotations

import json
from pathlib import Path

from distillscope.files.json_reader import no_repeat
from distillscope.inputs.arrow import contents_of, in_memory
from distillscope.inputs.members import Contents
from distillscope.inputs.trees import members_of


def read_json(path: Path, where: str) -> Contents:
    """The lists of a JSON file. An id given twice is refused: JSON itself would keep its last embedding alone."""
    held = json.loads(path.read_text(encoding="utf-8-sig"), object_pairs_hook=no_repeat)
    if isinstance(held, list) and held and all(isinstance(item, dict) for item in held):
        import pyarrow as pa

        return contents_of(in_memory(pa.Table.from_pylist(held)), where)
    return members_of(held, lambda value, name: None)
