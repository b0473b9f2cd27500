"""Device, precision and allocator, decided in one place, through accelerate."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import sys

import torch

from distillscope import group
from distillscope.errors import UserError

PRECISIONS = {"float32": None, "bfloat16": torch.bfloat16, "float16": torch.float16}


def choose_device(device: str = "auto") -> torch.device:
    """The device asked for, or the best there is. An absent one is an error, never replaced in silence.

    Of several processes that a launcher started each has its own GPU, so none can be asked for by number.
    """
    device, several = device or "auto", group.launched() > 1
    if several and ":" in device:
        raise UserError("--device", "auto, cpu or cuda, since each process of the launcher has a GPU of its own",
                        f"'{device}'", "Leave it out; CUDA_VISIBLE_DEVICES says which GPUs there are.")
    if device == "auto" or (several and device != "cpu" and torch.accelerator.is_available()):
        from accelerate import PartialState

        # Told so where there is no accelerator, else it would not join the processes that a launcher started on CPUs.
        return PartialState(cpu=not torch.accelerator.is_available()).device
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
        raise UserError("precision", " or ".join(PRECISIONS), f"'{precision}'", "If in doubt, use float32.")
    dtype = PRECISIONS[precision]
    if dtype is None:
        return contextlib.nullcontext()
    if dtype is torch.float16 and device.type == "cpu":
        raise UserError("precision", "float32 or bfloat16 on a CPU", "'float16'", "Set --precision bfloat16.")
    try:
        return torch.autocast(device.type, dtype)
    except RuntimeError as error:
        raise UserError("precision", f"one that {device} computes in", f"'{precision}' ({str(error).splitlines()[0][:100]})",
                        "Use float32.") from None


_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4  # glibc's names for mallopt
_depth = 0


@contextlib.contextmanager
def kept_memory():
    """While a network runs, let glibc keep freed blocks instead of giving each back to the system at once.

    Activations are freed and asked for again at every layer; by default glibc maps and unmaps the large ones, and the
    page faults take up to half of a forward pass on a CPU. Afterwards the memory is given back, so that it is there
    for the large arrays of probes and measures. Also a decorator; may be nested; elsewhere than on glibc it does nothing.
    """
    global _depth
    _depth += 1
    if _depth == 1:
        _mallopt({_TRIM_THRESHOLD: 2**31 - 1, _MMAP_MAX: 0})
    try:
        yield
    finally:
        _depth -= 1
        libc = _libc()
        if _depth == 0 and libc and _mallopt({_TRIM_THRESHOLD: 2**27, _MMAP_THRESHOLD: 2**25, _MMAP_MAX: 65_536}):
            libc.malloc_trim(0)


@functools.cache
def _libc() -> ctypes.CDLL | None:
    """glibc, where this is Linux and has it."""
    try:
        libc = ctypes.CDLL("libc.so.6") if sys.platform.startswith("linux") else None
        return libc if libc is not None and libc.mallopt and libc.malloc_trim else None
    except (OSError, AttributeError):
        return None


def _mallopt(options: dict[int, int]) -> bool:
    libc = _libc()
    return libc is not None and all(libc.mallopt(option, value) for option, value in options.items())
