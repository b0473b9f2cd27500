"""Files of arrays: .npy and .npz. Nothing pickled is ever executed."""

from __future__ import annotations

import re
import struct
import zipfile
from pathlib import Path
from typing import IO, Any

import numpy as np

from distillscope.errors import UserError
from distillscope.inputs.members import UNREADABLE, Contents, Member, check_memory, size_of

PLAIN = "Save it again from an array of numbers or text (np.array(names, dtype=str) of a list of names)."
DEFLATE_RATIO = 1032
"""No deflated byte gives more: what claims to is damaged, or made to fill the memory."""


def read_npy(path: Path, where: str) -> Contents:
    """The one array of a .npy file, memory-mapped."""
    with open(path, "rb") as handle:
        dtype, shape, _ = _header(handle, where)
        _check_size(dtype, shape, path.stat().st_size - handle.tell(), where)
    return Contents([Member("", shape, str(dtype), kind_of(dtype), lambda: _mapped(path, 0, path.stat().st_size, where))])


def kind_of(dtype: np.dtype) -> str:
    """NumPy's kind of a dtype, one for all whole numbers and one for all text."""
    return {"u": "i", "S": "U", "T": "U"}.get(dtype.kind, dtype.kind)


def _header(handle: IO[bytes], where: str) -> tuple[np.dtype, tuple[int, ...], bool]:
    """dtype, shape and Fortran order of a .npy; objects are refused here, since only unpickling could read them."""
    start = handle.read(6)
    if start != b"\x93NUMPY":
        known = {b"": "an empty file", b"P": "a zip archive", b"\x80": "a pickle, which is never opened"}
        raise UserError(where, "a plain .npy file", known.get(start[:1], f"one that begins with {start!r}"), PLAIN)
    version = handle.read(2)
    parse = {b"\x01\x00": np.lib.format.read_array_header_1_0, b"\x02\x00": np.lib.format.read_array_header_2_0}.get(version)
    if parse is None:
        raise UserError(where, "a plain .npy file of format 1.0 or 2.0", f"version {tuple(version)}", PLAIN)
    shape, fortran, dtype = parse(handle)
    if dtype.hasobject:
        raise UserError(where, "a plain .npy file", "pickled objects, which are never opened", PLAIN)
    if any(n < 0 for n in shape):
        raise UserError(where, "a plain .npy file", f"shape {shape}", PLAIN)
    return dtype, shape, fortran


def _check_size(dtype: np.dtype, shape: tuple[int, ...], have: int, where: str) -> int:
    need = size_of(shape, dtype.itemsize)
    if need > have:
        raise UserError(where, f"{need:,} bytes of data, as its header says ({dtype} {shape})", f"{have:,}",
                        "The file was cut short or damaged: save or fetch it again.")
    return need


def _mapped(path: Path, start: int, size: int, where: str) -> np.ndarray:
    """The .npy that fills ``size`` bytes of a file from ``start``, memory-mapped."""
    with open(path, "rb") as handle:
        handle.seek(start)
        dtype, shape, fortran = _header(handle, where)
        offset = handle.tell()
    need = _check_size(dtype, shape, start + size - offset, where)
    if not need:
        return np.empty(shape, dtype)
    return np.memmap(path, dtype, "r", offset, shape, "F" if fortran else "C")


def read_npz(path: Path, where: str) -> Contents:
    """The arrays of a .npz; what numpy.savez wrote, uncompressed, is memory-mapped where it lies."""
    with zipfile.ZipFile(path) as archive:
        found = [_npz_member(path, archive, info, where) for info in archive.infolist() if info.filename.endswith(".npy")]
    return Contents(found)


def _npz_member(path: Path, archive: zipfile.ZipFile, info: zipfile.ZipInfo, where: str) -> Member:
    name = info.filename.removesuffix(".npy")
    unnamed = re.fullmatch(r"arr_\d+", name) is not None
    try:
        with archive.open(info) as handle:
            dtype, shape, _ = _header(handle, f"{where}:{name}")
    except UserError as error:  # raised only if this array is needed
        return Member(name, (0,), UNREADABLE, "O", _raise(error), unnamed=unnamed)
    return Member(name, shape, str(dtype), kind_of(dtype), _npz_loader(path, info, f"{where}:{name}"), unnamed=unnamed)


def _raise(error: UserError) -> Any:
    def load() -> np.ndarray:
        raise error

    return load


def _npz_loader(path: Path, info: zipfile.ZipInfo, where: str) -> Any:
    def load() -> np.ndarray:
        if info.compress_type == zipfile.ZIP_STORED:
            with open(path, "rb") as handle:
                handle.seek(info.header_offset + 26)  # lengths of name and extra field, in the local header of 30 bytes
                start = info.header_offset + 30 + sum(struct.unpack("<HH", handle.read(4)))
            return _mapped(path, start, min(info.file_size, path.stat().st_size - start), where)
        if info.compress_type != zipfile.ZIP_DEFLATED or info.file_size > DEFLATE_RATIO * info.compress_size + 1024:
            raise UserError(where, "an array that numpy.savez_compressed wrote", "another compression, or a false size", PLAIN)
        with zipfile.ZipFile(path) as archive, archive.open(info) as handle:
            dtype, shape, fortran = _header(handle, where)
            need = _check_size(dtype, shape, info.file_size - handle.tell(), where)
            check_memory(need, info.compress_size, where, "Save it with numpy.savez, which is memory-mapped.")
            data = handle.read(need)
            handle.read()  # to its end, where the checksum is compared
        _check_size(dtype, shape, len(data), where)
        return np.ndarray(shape, dtype, data, order="F" if fortran else "C")

    return load


def is_torchscript(path: Path) -> bool:
    """Whether a file is a TorchScript archive: told by the names in its zip directory, nothing is opened."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = {"/".join(n.split("/")[1:2]) for n in archive.namelist()}
    except (OSError, ValueError, zipfile.BadZipFile):
        return False
    return "constants.pkl" in names and "code" in names
