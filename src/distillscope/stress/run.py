"""Run the stresses that a study asks for, or only find out what they would look at."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from distillscope.data.source import Source
from distillscope.errors import UserError
from distillscope.files.writing import write_atomic
from distillscope.registry import stresses
from distillscope.results.rows import NONE, Condition, Row
from distillscope.stress.subject import Findings, Subject


class Asked(Protocol):
    """One entry of the study's ``stresses``."""

    @property
    def name(self) -> str: ...

    @property
    def settings(self) -> dict[str, Any]: ...


def run_stresses(asked: Sequence[Asked], model: Subject, test: Source, seed: int, folder: Path | None = None) -> Findings:
    """Everything that the stresses found on one model; their arrays are saved as ``folder``/stress/NAME.npy."""
    found = Findings()
    for part in asked:
        found.add(stresses.call(part.name, part.settings, model, test, test.labels, seed, where=f"stresses.{part.name}"))
    found.rows = _each_once(found.rows)
    if folder is not None:
        for name, array in found.arrays.items():
            write_atomic(folder / "stress" / f"{name}.npy", partial(np.save, arr=array, allow_pickle=False))
    return found


def _each_once(rows: Sequence[Row]) -> list[Row]:
    """The rows, the clean ones that several stresses share once; two numbers under one name would be averaged later."""
    kept: dict[tuple, Row] = {}
    for row in map(Row._make, rows):
        key = row.measure, row.condition, row.draw
        if key in kept and not (Condition.parse(row.condition).what == NONE and row == kept[key]):
            raise UserError("stresses", "conditions that differ by name", f"'{row.condition}' twice",
                            "Merge the two entries of `stresses`, or run them in two studies.")
        kept[key] = row
    return list(kept.values())


class _Constant:
    """A probe that always says 0."""

    def predict(self, z: np.ndarray) -> np.ndarray:
        return np.zeros(len(z), np.int64)


def rehearse(asked: Sequence[Asked], train: Source, test: Source, seed: int,
             side: str = "teacher") -> tuple[list[tuple[Source, Any]], Findings]:
    """What the stresses would show to a model, (items, perturbation) in order, without a model; wrong settings are said.

    The same functions run on a model that embeds nothing, so a plan cannot drift from what is done. The findings hold
    the conditions in both units; their numbers mean nothing.
    """
    wanted: list[tuple[Source, Any]] = []

    def embed(items: Source, perturbation: Any, label: str) -> np.ndarray:
        wanted.append((items, perturbation))
        return np.zeros((len(items), 2), np.float32)

    probes = {"paper.probe": _Constant()}
    found = run_stresses(asked, Subject(side, embed, probes, train, lambda z, labels: probes), test, seed)
    return wanted, found
