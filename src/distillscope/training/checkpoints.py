"""The checkpoints that a killed run goes on from: tensors and plain values, torch's random state with them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from distillscope import progress
from distillscope.files.writing import write_atomic

KEYS = {"module", "terms", "optimizer", "history", "step", "total", "seconds", "rng"}


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write tensors and plain values; the random state of torch goes with them."""
    state = {**state, "rng": torch.random.get_rng_state()}
    if torch.cuda.is_available():
        state["rng_cuda"] = torch.cuda.get_rng_state_all()
    write_atomic(path, lambda p: torch.save(state, p))


def load_checkpoint(path: Path) -> dict[str, Any] | None:
    """The state saved last, with torch's random state restored; None where there is none, or it cannot be read."""
    if not path.exists():
        return None
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        if not isinstance(state, dict) or not state.keys() >= KEYS:
            raise TypeError("not what a checkpoint holds")
        torch.random.set_rng_state(state.pop("rng"))
    except PermissionError:
        raise
    except Exception as error:  # zip, pickle, type and runtime errors alike: the file is no checkpoint of ours
        progress.say(f"{path}: not a readable checkpoint ({type(error).__name__}); this trial starts from its beginning")
        return None
    if "rng_cuda" in state:
        states = state.pop("rng_cuda")
        if torch.cuda.is_available() and len(states) == torch.cuda.device_count():
            torch.cuda.set_rng_state_all(states)
    return state
