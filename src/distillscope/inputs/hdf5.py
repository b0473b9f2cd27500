"""HDF5 files, by h5py (extra hdf5): every data set that lies in the file itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from distillscope.errors import UserError
from distillscope.inputs.arrays import kind_of
from distillscope.inputs.members import Contents, Member, check_memory, size_of


def read_hdf5(path: Path, where: str) -> Contents:
    """The data sets of a file, called by their paths; memory-mapped where they are neither packed nor in chunks.

    Links out of the file are not followed, and data that lie elsewhere are not read.
    """
    try:
        import h5py
    except ImportError:
        raise UserError(where, "h5py, which reads HDF5", "an installation without it",
                        "pip install 'distillscope[hdf5]'") from None
    found: list[Member] = []

    def visit(name: str, item: Any) -> None:
        if not isinstance(item, h5py.Dataset):
            return
        if item.external is not None or item.is_virtual:
            found.append(Member(name, item.shape or (), "kept in another file", "O", lambda: _refuse(where, name)))
            return
        text = h5py.check_string_dtype(item.dtype) is not None
        dtype, kind = ("text", "U") if text else (str(item.dtype), kind_of(item.dtype))
        found.append(Member(name, item.shape or (), dtype, kind, lambda: _load(path, name, where)))

    with h5py.File(path, "r") as file:
        file.visititems(visit)
    return Contents(found, by_name=True)


def _refuse(where: str, name: str) -> np.ndarray:
    raise UserError(f"{where}:{name}", "data in the file itself", "a link to another file", "Copy the data into one file.")


def _load(path: Path, name: str, where: str) -> np.ndarray:
    import h5py

    with h5py.File(path, "r") as file:
        data = file[name]
        offset = data.id.get_offset()
        need = size_of(data.shape, data.dtype.itemsize)
        if offset is not None and data.dtype.kind in "fiu" and need and path.stat().st_size >= offset + need:
            return np.memmap(path, data.dtype, "r", offset, data.shape)
        check_memory(need, max(1, data.id.get_storage_size()), f"{where}:{name}", "Save it without compression.")
        return data[()]
