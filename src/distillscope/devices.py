"""Device, precision and allocator, decided in one place, through accelerate."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import sys

import torch

from distillscope.errors import UserError

PRECISIONS = {"float32": None, "bfloat16": torch.bfloat16, "float16": torch.float16}


def choose_device(device: str = "auto") -> torch.device:
    """The device asked for, or the best there is. An absent one is an error, never replaced in silence."""
    if device in ("auto", None):
        from accelerate import PartialState

        return PartialState().device
    try:
        chosen = torch.device(device)
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError) as error:
        raise UserError("--device", "a device of this machine (auto, cpu, cuda, cuda:1, mps)", f"'{device}'",
                        f"{str(error).splitlines()[0][:100]}. `distillscope doctor` lists what is there.") from None
    return chosen


def autocast(device: torch.device, precision: str):
    """A context in which a network computes in ``precision``; float32 changes nothing."""
    if precision not in PRECISIONS:
        raise UserError("precision", " or ".join(PRECISIONS), f"'{precision}'", "Use float32 where in doubt.")
    dtype = PRECISIONS[precision]
    if dtype is None:
        return contextlib.nullcontext()
    if dtype is torch.float16 and device.type == "cpu":
        raise UserError("precision", "float32 or bfloat16 on a CPU", "'float16'", "Set --precision bfloat16.")
    return torch.autocast(device.type, dtype)


@functools.cache
def keep_freed_memory() -> bool:
    """Let glibc keep freed blocks up to 32 MiB instead of giving them back to the system at once. True where it could.

    A network's activations are freed and asked for again at every layer; by default glibc maps and unmaps each, and the
    page faults take up to half of a forward pass on a CPU. Blocks above 32 MiB, glibc's limit, are still given back, so
    that the large arrays of the probes do not stay: batches of 8 at 224 px keep a teacher's activations below it.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        libc = ctypes.CDLL("libc.so.6")
        trim_threshold, mmap_threshold = -1, -3
        return bool(libc.mallopt(trim_threshold, 2**31 - 1) and libc.mallopt(mmap_threshold, 2**25))
    except (OSError, AttributeError):
        return False
