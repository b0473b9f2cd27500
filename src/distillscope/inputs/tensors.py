"""Files of tensors: .safetensors, and what torch.save wrote, as people save it. Nothing pickled is ever executed.

torch's own unpickler makes tensors, dicts, lists and text alone (``weights_only``). NumPy arrays and paths in such a file are
rebuilt here from their plain parts, so that no code of NumPy's or pathlib's sees what the file says of itself.
"""

from __future__ import annotations

import pickle
import re
import warnings
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import numpy as np

from distillscope.errors import UserError
from distillscope.inputs.arrays import is_torchscript, kind_of
from distillscope.inputs.members import Contents, Member, as_table
from distillscope.inputs.trees import members_of
from distillscope.measure.rows import Stored

FLOATS = ("F64", "F32", "F16", "BF16")
ORDERS: tuple[Literal["<", ">", "|", "="], ...] = ("<", ">", "|", "=")
PLAIN_DTYPE = r"[<>=|]?(b1|[iu][1248]|f[248]|[US]\d{1,6}|O8?)"


def read_safetensors(path: Path, where: str) -> Contents:
    """The tensors of a .safetensors file, memory-mapped."""
    from safetensors import safe_open

    found = []
    with safe_open(path, framework="pt") as handle:
        for name in handle.keys():  # noqa: SIM118 (no mapping)
            part = handle.get_slice(name)
            dtype, shape = part.get_dtype(), tuple(part.get_shape())
            kind = "f" if dtype in FLOATS else "b" if dtype == "BOOL" else "i" if re.fullmatch(r"[IU]\d+", dtype) else "O"
            found.append(Member(name, shape, dtype, kind, _tensor_loader(path, name, where)))
    return Contents(found, by_name=True)


def _tensor_loader(path: Path, name: str, where: str) -> Any:
    def load() -> np.ndarray | Stored:
        from safetensors import safe_open

        with safe_open(path, framework="pt") as handle:
            return _array_of(handle.get_tensor(name), f"{where}:{name}")

    return load


def read_torch(path: Path, where: str) -> Contents:
    """The tensors and arrays of a torch file, in dicts, lists and tuples. Memory-mapped, with weights_only."""
    import torch

    with open(path, "rb") as handle:
        start = handle.read(2)
    if is_torchscript(path):
        raise UserError(where, "a file of tensors", "a TorchScript model", "Add --data DATA, and it embeds its images.")
    if not start:
        raise UserError(where, "a file of tensors", "an empty file", "Save it again.")
    with warnings.catch_warnings(), torch.serialization.safe_globals(SAFE):
        warnings.simplefilter("ignore")  # of formats and protocols that it may refuse: then it raises
        try:
            found = torch.load(path, map_location="cpu", weights_only=True, mmap=start == b"PK")  # before 1.6 it was no zip
        except pickle.UnpicklingError:
            raise UserError(where, "a file of tensors only", "pickled objects, which are never opened",
                            "Save only the tensors, with torch.save; a model with torch.jit.save, or as ONNX.") from None

    def leaf(value: Any, name: str) -> Member | None:
        if isinstance(value, _Array):
            value = value.value
        if isinstance(value, torch.Tensor):
            dtype = str(value.dtype).removeprefix("torch.")
            floats = value.dtype in (torch.float64, torch.float32, torch.float16, torch.bfloat16)
            kind = "f" if floats else "b" if dtype == "bool" else "i" if re.fullmatch(r"u?int\d+", dtype) else "O"
            return Member(name, tuple(value.shape), dtype, kind, lambda: _array_of(value, f"{where}:{name}" if name else where))
        if isinstance(value, np.ndarray):
            return Member(name, value.shape, str(value.dtype), kind_of(value.dtype), lambda: value)
        return None

    return members_of(found, leaf)


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
        table = as_table(bits.shape)
        return Stored([bits.reshape(table)]) if table is not None else Stored([np.atleast_2d(bits)])[:].reshape(bits.shape)
    return tensor.resolve_conj().resolve_neg().numpy()


# -- NumPy arrays and paths inside a torch file, from their plain parts ------------------------------------------------------


class _Dtype:
    """Stands in for numpy.dtype: a name of a plain kind and a byte order, or it is refused."""

    def __init__(self, name: Any, *_: Any) -> None:
        if not isinstance(name, str) or not re.fullmatch(PLAIN_DTYPE, name):
            raise pickle.UnpicklingError("a dtype that is not plain")
        self.name = name
        self.order: Literal["<", ">", "|", "="] = "="

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, tuple) or len(state) < 5 or any(part is not None for part in state[2:5]):
            raise pickle.UnpicklingError("a dtype with fields")
        self.order = next((order for order in ORDERS if order == state[1]), "=")

    @property
    def plain(self) -> np.dtype:
        return np.dtype(self.name).newbyteorder(self.order)


class _Array:
    """Stands in for numpy.ndarray: rebuilt from its bytes, which must be as many as its shape says."""

    value: np.ndarray

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, fortran, data = state
        plain = isinstance(dtype, _Dtype) and isinstance(shape, tuple)
        if not plain or not all(isinstance(n, int) and n >= 0 for n in shape):
            raise pickle.UnpicklingError("an array that is not plain")
        if isinstance(data, list):
            if not all(isinstance(v, (str, int, float, type(None))) for v in data):
                raise pickle.UnpicklingError("an array of objects")
            flat = np.empty(len(data), object)
            flat[:] = data
        else:
            data = data.encode("latin1") if isinstance(data, str) else data
            flat = np.frombuffer(data, dtype.plain)  # refuses objects, and bytes that are no multiple
        self.value = flat.reshape(shape, order="F" if fortran else "C")


def _reconstruct(*_: Any) -> _Array:
    return _Array()


def _scalar(dtype: _Dtype, data: Any) -> Any:
    return np.frombuffer(data.encode("latin1") if isinstance(data, str) else data, dtype.plain)[0].item()


def _path(*parts: Any) -> str:
    return str(PurePosixPath(*map(str, parts)))


SAFE: list[Any] = [
    *((_reconstruct, f"numpy.{core}.multiarray._reconstruct") for core in ("core", "_core")),
    *((_scalar, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),
    (_Array, "numpy.ndarray"), (_Dtype, "numpy.dtype"),
    *((_path, f"{module}.{kind}") for module in ("pathlib", "pathlib._local")
      for kind in ("PosixPath", "WindowsPath", "PurePosixPath")),
]
"""What torch's unpickler may call beside its own: all of it here."""
