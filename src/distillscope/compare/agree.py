"""What two studies do not share, and what follows for their differences: unpaired, or left out with the reason."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from distillscope.compare.read import StudySide
from distillscope.results.keys import TRAIN_RANK
from distillscope.results.models import Model
from distillscope.results.run_files import EVERY

ALL = "all"
"""Tag of every quantity that is measured."""
COUNT = "count"
"""Tag of what depends on the number of test items: ranks, recall, R² (its map is fitted to the test items of other folds)."""
NOISE, TEACHER, TARGET, FITTED = "noise", "teacher", "target", "mapped"
"""Tags of what depends on the noise, the teacher, the target that students learn, and how the map to the teacher was fitted."""
ITEMS = "items"
"""Tag of the interval over items, for which both runs must have been measured on the same ones."""
LABELS = {"students": "label"}
"""What the parts of a list are called by, where it is not their name."""
WEIGHTS = "teacher's weights"
"""What names them in a fingerprint; all else there names images."""
IGNORED = {"name", "description", "published", "spread", "seeds"}
"""Settings that change no number, and the seeds, which the n of every difference tells."""


@dataclass(frozen=True)
class Match:
    """One model in both runs: the same data set, arm and student; the teachers may differ where neither run has the other's."""

    first: Model
    second: Model

    @property
    def name(self) -> str:
        """Arm and student, as short as can be."""
        return self.first.student if not self.first.arm else f"{self.first.student} ({self.first.arm})"


@dataclass(frozen=True)
class Mismatch:
    """Something that two runs do not share. ``unpaired`` and ``left_out`` are tags of the quantities that it concerns."""

    what: str
    first: str
    second: str
    follows: str
    unpaired: frozenset[str] = frozenset()
    left_out: frozenset[str] = frozenset()


def matches(a: StudySide, b: StudySide) -> tuple[list[Match], list[str], list[str]]:
    """The models of both runs, and the names of those that only the first and only the second has.

    Models are matched by data set, teacher, arm and student; then, by data set, arm and student, those whose teacher the other
    run does not have, where that leaves no choice.
    """
    ours, theirs = ([m for s in side.settings for m in s.students] for side in (a, b))
    found: dict[Model, Model] = {}
    for parts in (("dataset", "teacher", "arm", "student"), ("dataset", "arm", "student")):
        for model in ours:
            free = [m for m in theirs if m not in found.values() and _same(m, model, parts)]
            rivals = [m for m in ours if m not in found and _same(m, model, parts)]
            if model not in found and len(free) == 1 and len(rivals) == 1:
                found[model] = free[0]
    taken = list(found.values())
    return ([Match(m, found[m]) for m in ours if m in found], [_full(m) for m in ours if m not in found],
            [_full(m) for m in theirs if m not in taken])


def _same(one: Model, other: Model, parts: tuple[str, ...]) -> bool:
    return all(getattr(one, p) == getattr(other, p) for p in parts)


def _full(model: Model) -> str:
    return " / ".join(p for p in (model.dataset, model.teacher, model.arm, model.student) if p)


def mismatches(a: StudySide, b: StudySide, match: Match) -> list[Mismatch]:
    """What the two runs do not share that matters to this model, most serious first."""
    one, other = a.config, b.config
    found: list[Mismatch] = []

    def compared(what: str, first: Mapping[str, Any], second: Mapping[str, Any], follows: str,
                 unpaired: set[str] | None = None, left_out: set[str] | None = None) -> None:
        unlike = [k for k in first if k in second and first[k] != second[k]]  # what one did not record is no difference
        if unlike:
            found.append(Mismatch(what, short({k: first[k] for k in unlike}), short({k: second[k] for k in unlike}), follows,
                                  frozenset(unpaired or ()), frozenset(left_out or ())))

    compared("data", _data(a, match.first), _data(b, match.second),
             "seeds are not paired, and probes and neighbours are fitted to other images too, so that what an accuracy gains "
             "or loses need not be the student's", {ALL})
    compared("test items", _tested(a, match.first), _tested(b, match.second), "seeds are not paired", {ALL})
    compared("number of test items", _count(a, match.first), _count(b, match.second),
             "seeds are not paired, and what depends on that number (ranks, R², recall) is left out", {ALL}, {COUNT})
    settled = {m.what for m in found}
    (tested, others), (trained, trained_other) = (_images(a, b, match, test) for test in (True, False))
    if not settled & {"test items", "number of test items"}:
        compared("content of the test images", tested, others,
                 "both were measured on other images, so that a difference need not be the student's; seeds are not paired",
                 {ALL}, {ITEMS})
    if "data" not in settled:
        compared("content of the train images", trained, trained_other,
                 "seeds are not paired, and probes and neighbours are fitted to other images too, so that what an accuracy "
                 "gains or loses need not be the student's", {ALL})
    compared("teacher", _teacher(one, match.first.teacher), _teacher(other, match.second.teacher),
             "seeds are not paired, and what is measured against the teacher is left out", {ALL}, {TEACHER, TARGET})
    if match.first.teacher == match.second.teacher and "teacher" not in {m.what for m in found}:
        compared("content of the teacher's weights", _only(_marks(a, match.first), WEIGHTS),
                 _only(_marks(b, match.second), WEIGHTS),
                 "seeds are not paired, and what is measured against the teacher is left out", {ALL}, {TEACHER, TARGET})
    compared("target", {"target": match.first.target}, {"target": match.second.target},
             "what is measured against the target is left out; R² is that of the student in the teacher's space", None,
             {TARGET})
    compared("fit of the map to the teacher", _fit(a), _fit(b), "what is measured after that map (mapped.*) is left out",
             None, {FITTED})
    noise, noises = one["noise"], other["noise"]
    apart = ("sigmas", "seed", "draws")
    compared("noise", _without(noise, *apart), _without(noises, *apart), "accuracy under noise is left out", None, {NOISE})
    compared("draws of the noise", _only(noise, "seed", "draws"), _only(noises, "seed", "draws"),
             "under noise, seeds are not paired", {NOISE})
    first, second = _student(one, match.first.student), _student(other, match.second.student)
    at_input = noise["where"] == "input"
    input_noise = ", and accuracy under noise, which was added to the input, is left out" if at_input else ""
    compared("input size", _only(first, "image_size"), _only(second, "image_size"), f"seeds are not paired{input_noise}",
             {ALL}, {NOISE} if at_input else None)
    compared("streams of random draws", _only(one, "streams"), _only(other, "streams"), "seeds are not paired", {ALL})
    compared(f"network of {match.first.student}", _without(first, "image_size", "label"),
             _without(second, "image_size", "label"),
             "seeds pair the order of training and the noise, not the initial weights")
    return found


def _fit(side: StudySide) -> dict[str, Any]:
    return {"mapped.*": side.run.mapped_fit} if side.run.mapped_fit else {}


def _only(settings: Mapping[str, Any], *keys: str) -> dict[str, Any]:
    return {k: settings[k] for k in keys if k in settings}


def _without(settings: Mapping[str, Any], *keys: str) -> dict[str, Any]:
    return {k: v for k, v in settings.items() if k not in keys}


def _data(side: StudySide, model: Model) -> dict[str, Any]:
    """The data set's own settings, which part of it trains, and how many images that part had."""
    study, rows = side.config, side.run.all_results
    kept = {k: study[k] for k in ("validation", "corrupt")}
    counts = rows.loc[(rows["measure"] == TRAIN_RANK) & (rows["dataset"] == model.dataset), "n"].dropna()
    own = _without(_part(study, "data", model.dataset), "alias", "label", "test_split")
    return {**own, "limit": study.get("limit"), **kept, **({"train images": int(counts.max())} if len(counts) else {})}


def _tested(side: StudySide, model: Model) -> dict[str, Any]:
    own = _part(side.config, "data", model.dataset)
    split = {"test_split": own["test_split"]} if "test_split" in own else {}
    return {**split, "screen": side.config["screen"], "split": side.run.split}


def _count(side: StudySide, model: Model) -> dict[str, Any]:
    known = side.summary.get(model, "student.effective_rank")
    return {"n": int(known.n)} if known and known.n else {"limit_test": side.config.get("limit_test")}


def _marks(side: StudySide, model: Model) -> Mapping[str, str]:
    """The fingerprint of the images and the teacher's weights that a model was made of; nothing in older runs."""
    return next((r.fingerprint for r in side.run.references
                 if (r.dataset, r.teacher) == (model.dataset, model.teacher) and r.fingerprint), {})


def _images(a: StudySide, b: StudySide, match: Match, test: bool) -> tuple[dict[str, str], dict[str, str]]:
    """What names the images of the test split, or of the others, in both runs: of all images where both kept that, else of
    those that older versions looked at."""
    both = _marks(a, match.first), _marks(b, match.second)
    every = any(k.startswith(EVERY) for k in both[0] if k in both[1])
    splits = a.run.split, b.run.split

    def named(marks: Mapping[str, str], split: str) -> dict[str, str]:
        shown = {k: (k.removeprefix(EVERY).rpartition(" ")[0], v) for k, v in marks.items()
                 if k != WEIGHTS and k.startswith(EVERY) == every}
        return {name: mark for name, mark in shown.values() if (name == split) == test}

    return named(both[0], splits[0]), named(both[1], splits[1])


def _teacher(study: Mapping[str, Any], title: str) -> dict[str, Any]:
    return {"name": title, **_without(_part(study, "teacher", title), "name", "alias", "label")}


def _student(study: Mapping[str, Any], label: str) -> dict[str, Any]:
    return next((s for s in study["students"] if s["label"] == label), {})


def _part(study: Mapping[str, Any], key: str, title: str) -> dict[str, Any]:
    """The entry of a list that results call ``title``; the only entry where none has that name."""
    parts = study[key]
    named = [p for p in parts if title in (p.get("alias"), p.get("label"), p.get("name"))]
    return dict(named[0] if named else parts[0] if len(parts) == 1 else {})


def settings_that_differ(studies: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, dict[str, str]]]:
    """(setting, {run: value}) of every setting in which the configurations differ; '' where a run does not have it.

    >>> settings_that_differ({"a": {"training": {"epochs": 5}}, "b": {"training": {"epochs": 20}}})
    [('training.epochs', {'a': '5', 'b': '20'})]
    """
    flat = {label: {k: v for key, value in study.items() if key not in IGNORED for k, v in _flat(key, value)}
            for label, study in studies.items()}
    keys = list(dict.fromkeys(k for settings in flat.values() for k in settings))
    rows = [(key, {label: short(settings[key]) if key in settings else "" for label, settings in flat.items()}) for key in keys]
    return [(key, values) for key, values in rows if len(set(values.values())) > 1]


def _flat(key: str, value: Any):
    """Leaves by their dotted names; the parts of a list are known by their own names."""
    if isinstance(value, Mapping) and value:
        for k, v in value.items():
            yield from _flat(f"{key}.{k}", v)
    elif isinstance(value, list) and value and all(isinstance(v, Mapping) and "name" in v for v in value):
        for part in value:
            name = part.get(LABELS.get(key, "name")) or part["name"]
            yield from _flat(f"{key}.{name}", {k: v for k, v in part.items() if k != "label"} or None)
    else:
        yield key, value


def short(value: Any, room: int = 160) -> str:
    """A setting in one line.

    >>> short({"name": "digits", "limit": 200}), short(None)
    ('name: digits, limit: 200', 'none')
    """
    if isinstance(value, Mapping):
        text = ", ".join(f"{k}: {short(v)}" for k, v in value.items())
    else:
        written = yaml.safe_dump(value, default_flow_style=True, width=10_000).strip().removesuffix("\n...")
        text = "none" if value is None else written
    return text if len(text) <= room else f"{text[: room - 1]}…"
