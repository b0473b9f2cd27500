"""Files of arrays: .npy, .npz, .safetensors, and torch files that hold tensors only. Nothing pickled is ever executed."""

from __future__ import annotations

import math
import pickle
import struct
import warnings
import zipfile
from pathlib import Path
from typing import IO, Any

import numpy as np

from distillscope.errors import UserError
from distillscope.inputs.members import UNREADABLE, Member
from distillscope.measure.rows import Stored

PLAIN = "Save it again with numpy.save, from an array of floats."
DEFLATE_RATIO = 1032
"""No deflated byte gives more: what claims to is damaged, or made to fill the memory."""


def read_npy(path: Path, where: str) -> list[Member]:
    """The one array of a .npy file, memory-mapped."""
    with open(path, "rb") as handle:
        dtype, shape, _ = _header(handle, where)
        _check_size(dtype, shape, path.stat().st_size - handle.tell(), where)
    return [Member("", shape, str(dtype), dtype.kind == "f", lambda: _mapped(path, 0, path.stat().st_size, where))]


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
    need = math.prod(shape) * dtype.itemsize
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


def read_npz(path: Path, where: str) -> list[Member]:
    """The arrays of a .npz; what numpy.savez wrote, uncompressed, is memory-mapped where it lies."""
    with zipfile.ZipFile(path) as archive:
        found = []
        for info in archive.infolist():
            if not info.filename.endswith(".npy"):
                continue
            inner = f"{where}:{info.filename.removesuffix('.npy')}"
            try:
                with archive.open(info) as handle:
                    dtype, shape, _ = _header(handle, inner)
            except UserError as error:  # said only if this array is needed
                dtype, shape, load = UNREADABLE, (0,), _raise(error)
            else:
                load = _npz_loader(path, info, inner)
            kind = getattr(dtype, "kind", "")
            found.append(Member(info.filename.removesuffix(".npy"), shape, str(dtype), kind == "f", load))
    return found


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
            data = handle.read(need)
            handle.read()  # to its end, where the checksum is compared
        _check_size(dtype, shape, len(data), where)
        return np.ndarray(shape, dtype, data, order="F" if fortran else "C")

    return load


def read_safetensors(path: Path, where: str) -> list[Member]:
    """The tensors of a .safetensors file, memory-mapped."""
    from safetensors import safe_open

    found = []
    with safe_open(path, framework="pt") as handle:
        for name in handle.keys():  # noqa: SIM118 (no mapping)
            part = handle.get_slice(name)
            dtype, shape = part.get_dtype(), tuple(part.get_shape())
            floats = dtype in ("F64", "F32", "F16", "BF16")
            found.append(Member(name, shape, dtype, floats, _tensor_loader(path, name, where)))
    return found


def _tensor_loader(path: Path, name: str, where: str) -> Any:
    def load() -> np.ndarray | Stored:
        from safetensors import safe_open

        with safe_open(path, framework="pt") as handle:
            return _array_of(handle.get_tensor(name), f"{where}:{name}")

    return load


def read_torch(path: Path, where: str) -> list[Member]:
    """The tensors of a torch file: one, or a dict of them (lists of text may be ids). Memory-mapped, with weights_only."""
    import torch

    with open(path, "rb") as handle:
        start = handle.read(2)
    if is_torchscript(path):
        raise UserError(where, "a file of tensors", "a TorchScript model", "Add --data DATA, and it embeds its images.")
    if not start:
        raise UserError(where, "a file of tensors", "an empty file", "Save it again.")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of formats and protocols that it may refuse: then it raises
        try:
            found = torch.load(path, map_location="cpu", weights_only=True, mmap=start == b"PK")  # before 1.6 it was no zip
        except pickle.UnpicklingError:
            raise UserError(where, "a file of tensors only", "pickled objects, which are never opened",
                            "Save the tensors alone with torch.save.") from None
    named = found if isinstance(found, dict) else {"": found}
    members = []
    for name, value in named.items():
        if isinstance(value, torch.Tensor):
            dtype = str(value.dtype).removeprefix("torch.")
            floats = value.dtype in (torch.float64, torch.float32, torch.float16, torch.bfloat16)
            members.append(Member(str(name), tuple(value.shape), dtype, floats,
                                  lambda v=value, n=name: _array_of(v, f"{where}:{n}" if n else where)))
        elif isinstance(value, (list, tuple)) and all(isinstance(v, (str, int)) for v in value):
            members.append(Member(str(name), (len(value),), "list", False, lambda v=value: np.array(v)))
    return members


def _array_of(tensor: Any, where: str) -> np.ndarray | Stored:
    """A tensor's memory as an array. One that repeats its storage, or has none, would claim more than the file holds."""
    import torch

    if tensor.layout is not torch.strided or tensor.is_quantized or tensor.device.type != "cpu":
        raise UserError(where, "a plain dense tensor", f"a {tensor.layout} one on {tensor.device}",
                        "Save tensor.cpu().to_dense().")
    need = tensor.numel() * tensor.element_size()
    if need > tensor.untyped_storage().nbytes():
        raise UserError(where, f"{need:,} bytes of data", f"{tensor.untyped_storage().nbytes():,}",
                        "Save tensor.contiguous().clone().")
    tensor = tensor.detach()
    if tensor.dtype is torch.bfloat16:
        bits = tensor.view(torch.int16).numpy().view(np.uint16)
        return Stored([bits]) if bits.ndim == 2 else Stored([np.atleast_2d(bits)])[:].reshape(bits.shape)
    return tensor.resolve_conj().resolve_neg().numpy()


def is_torchscript(path: Path) -> bool:
    """Whether a file is a TorchScript archive: told by the names in its zip directory, nothing is opened."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = {"/".join(n.split("/")[1:2]) for n in archive.namelist()}
    except (OSError, ValueError, zipfile.BadZipFile):
        return False
    return "constants.pkl" in names and "code" in names
