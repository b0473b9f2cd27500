"""Whether studies may be judged together: the same data, teacher, students and noise, by their settings and by fingerprint."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn, Protocol

import pandas as pd

from distillscope.config.study import Study
from distillscope.errors import UserError
from distillscope.results.arms import plain
from distillscope.results.same_study import unlike

EQUAL = ("data", "teacher", "target", "limit", "limit_test", "screen", "validation", "corrupt", "streams", "probes")
"""Keys of the config that studies must share to be judged together."""
SWEPT = ("sigmas", "draws", "ks", "bands", "items", "severities")
"""Settings of noise and stresses that may differ: they name the condition, or how many images it was measured on."""


class Read(Protocol):
    """A run directory, read: what `results.run.read_run` gives."""

    @property
    def path(self) -> Any: ...
    @property
    def study(self) -> Study: ...
    @property
    def all_results(self) -> pd.DataFrame: ...
    @property
    def trials(self) -> list[Any]: ...
    @property
    def references(self) -> list[Any]: ...
    @property
    def training(self) -> pd.DataFrame: ...
    @property
    def mapped_fit(self) -> str: ...


def check_same(first: Read, other: Read, command: str) -> None:
    """Studies that are judged together were run on the same data, with the same teacher, students and noise."""
    one, two = _judged(first.study), _judged(other.study)
    for found in unlike(one, two, axes=("stresses", "students")):
        key = found.key if found.name is None else f"{found.key}.{found.name}"
        _refuse(f"{command} {other.path} {key}", *found.apart, first)
    marks = {(r.dataset, r.teacher): r.fingerprint for r in first.references}
    for reference in other.references:
        known = marks.get((reference.dataset, reference.teacher), {})
        for what in sorted(known.keys() & reference.fingerprint.keys()):
            if known[what] != reference.fingerprint[what]:
                _refuse(f"{command} {other.path} {what} (fingerprint)", known[what], reference.fingerprint[what], first)


def _judged(study: Study) -> dict[str, Any]:
    """What studies must share to be judged together; of stresses and students, those of one name."""
    dumped = study.dump()
    named = {key: [{k: v for k, v in part.items() if k not in ("alias", "label")} for part in dumped[key]]
             for key in ("data", "teacher")}
    stresses = [{"name": name, "settings": settings} for name, settings in _stresses(study).items()]
    return {**{key: dumped.get(key) for key in EQUAL}, **named, "noise": _fixed(dumped["noise"]), "stresses": stresses,
            "students": dumped["students"]}


def _fixed(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in settings.items() if k not in SWEPT}


def _stresses(study: Study) -> dict[str, list[dict[str, Any]]]:
    """Name -> the settings of every stress of that name that decide what its conditions mean; by default the study's noise."""
    found: dict[str, list[dict[str, Any]]] = {}
    declared = study.noise.model_dump(mode="json", include={"where", "unit", "clip", "std"})
    for stress in study.stresses:
        found.setdefault(stress.name, []).append(_fixed({**declared, **stress.model_dump(mode="json")}))
    return found


def _refuse(where: str, expected: Any, got: Any, first: Read) -> NoReturn:
    raise UserError(where, f"{_short(expected)} as in {first.path}", _short(got),
                    "A verdict holds for one teacher, one data set and one noise: judge these studies apart.")


def _short(value: Any) -> str:
    text = plain(value)
    return text if len(text) <= 120 else f"{text[:117]}..."
