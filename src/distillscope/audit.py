"""A teacher's and a student's embeddings -> every measurement."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace
from typing import Any

import numpy as np

from distillscope.errors import UserError, unknown_name
from distillscope.measure.intervals import bootstrap_interval, jackknife_interval, wilson_interval
from distillscope.measure.pair import Pair, resolve
from distillscope.measure.pool import Scan, Settings, Side, scan
from distillscope.measure.quantity import CURVES, GROUPS, NotMeasured, definition
from distillscope.measure.results import Audit, Curve, Value
from distillscope.measure.rows import Rows, content_order
from distillscope.registry import measures

FEWEST = 10
SIDE_GROUPS = {"spectrum"}


def audit(teacher: Any, student: Any, labels: Any = None, *, train_teacher: Any = None, train_student: Any = None,
          train_labels: Any = None, normalize: str | None = None, groups: Collection[str] | None = None,
          intervals: bool = True, seed: int = 0, settings: Settings | None = None) -> Audit:
    """Everything that can be measured on row-aligned embeddings ``teacher`` (n, d) and ``student`` (n, d').

    Arrays of floats (NumPy, memory-mapped, or tensors); a teacher that is compared with many students may be passed as
    ``prepare(teacher)``, so that its own work is done once. ``labels`` (n,) and training embeddings with labels add probes
    and k-nearest neighbours. ``normalize="l2"`` scales rows to unit norm first; otherwise embeddings are measured as
    given. ``groups`` picks among spectrum, alignment, contrastive, paper, similarity, retrieval, probe and knn;
    ``intervals=False`` skips the 95 % intervals over items. What does not apply is named in ``left_out`` with the reason.

    >>> rng = np.random.default_rng(0)
    >>> teacher = rng.normal(size=(200, 8))
    >>> found = audit(teacher, teacher @ np.diag([1, 1, 0, 0, 0, 0, 0, 0]), groups={"spectrum"}, intervals=False)
    >>> round(found["teacher.effective_rank"], 1), round(found["student.effective_rank"], 1)
    (7.8, 2.0)
    """
    settings = replace(settings or Settings(), seed=seed)
    pool = Pair(*_two_sides(teacher, student, normalize, settings, ("teacher", "student")))
    return _measure(pool, _chosen(groups), intervals)


def audit_one(embeddings: Any, labels: Any = None, side: str = "teacher", *, normalize: str | None = None,
              intervals: bool = True, seed: int = 0, settings: Settings | None = None) -> Audit:
    """What can be measured on one set of embeddings (n, d) alone, under keys that begin with ``side``.

    >>> found = audit_one(np.random.default_rng(0).normal(size=(100, 4)), intervals=False)
    >>> sorted(found.values)[:2]
    ['teacher.algebraic_rank', 'teacher.dims_90']
    """
    settings = replace(settings or Settings(), seed=seed)
    pool = prepare(embeddings, side, normalize=normalize, settings=settings)
    return _measure(pool, {"spectrum"}, intervals, side)


def prepare(embeddings: Any, name: str = "teacher", *, normalize: str | None = None,
            settings: Settings | None = None) -> Side:
    """Checked embeddings (n, d) whose moments and spectrum are kept for every audit that they are passed to."""
    settings = settings or Settings()
    rows = _rows(embeddings, name, normalize)
    found = _check(rows, name, settings)
    return Side(rows, settings, content_order(found.keys))


def _two_sides(teacher: Any, student: Any, normalize: str | None, settings: Settings,
               names: tuple[str, str]) -> tuple[Side, Side]:
    """Both sides, sharing the teacher's order of items."""
    first = teacher if isinstance(teacher, Side) else None
    if first is not None and (first.settings != settings or first.rows.normalize != normalize):
        raise UserError(names[0], "a side prepared with the same settings, seed and normalize", "another",
                        "Pass the same settings and normalize to prepare().")
    rows = first.rows if first else _rows(teacher, names[0], normalize)
    other = student.rows if isinstance(student, Side) else _rows(student, names[1], normalize)
    if rows.count != other.count:
        raise UserError(names[1], f"{rows.count} rows like the {names[0].replace('_', ' ')}", f"{other.count}",
                        "Pass embeddings of the same items in the same order.")
    if first is None:
        first = Side(rows, settings, content_order(_check(rows, names[0], settings).keys))
    _check(other, names[1], settings)
    return first, Side(other, settings, first.order)


def _rows(embeddings: Any, name: str, normalize: str | None) -> Rows:
    """``embeddings`` as rows, or the line that says what is wrong with them."""
    if normalize not in (None, "l2"):
        raise unknown_name("normalize", "normalization", str(normalize), ["l2"])
    if hasattr(embeddings, "detach"):  # a tensor, told without importing torch
        embeddings = embeddings.detach().cpu()
        embeddings = (embeddings.float() if str(embeddings.dtype) == "torch.bfloat16" else embeddings).numpy()
    z = embeddings if isinstance(embeddings, np.ndarray) else np.asarray(embeddings)
    if z.ndim != 2:
        raise UserError(name, "an array of shape (items, dimensions)", f"shape {z.shape}",
                        "Pass one embedding a row.")
    if z.dtype.kind != "f":
        raise UserError(name, "an array of floats", f"dtype {z.dtype}", "Convert it with .astype('float32') if that is meant.")
    if len(z) < FEWEST:
        raise UserError(name, f"at least {FEWEST} rows", f"{len(z)}", "Pass embeddings of more items.")
    if z.shape[1] < 2:
        raise UserError(name, "at least 2 dimensions", f"{z.shape[1]}", "A single number has no geometry to measure.")
    return Rows(z, normalize)


def _check(rows: Rows, name: str, settings: Settings) -> Scan:
    found = scan(rows, settings.seed)
    if found.bad_values:
        raise UserError(name, "finite values", f"{found.bad_values} NaN or infinite, first in row {found.first_bad_row}",
                        "Find out what made them; they are not measured around.")
    if found.zero_rows:
        raise UserError(name, "rows with a direction", f"{found.zero_rows} all-zero rows, first row {found.first_zero_row}",
                        "Drop these items on both sides, or find out why they are empty.")
    return found


def _chosen(groups: Collection[str] | None) -> set[str]:
    for group in groups or ():
        if group not in GROUPS:
            raise unknown_name("groups", "group of measures", group, GROUPS)
    return set(GROUPS if groups is None else groups)


def _measure(pool: Pair | Side, groups: set[str], intervals: bool, side: str | None = None) -> Audit:
    """Every registered measure and curve of ``groups``: those of one side once a side, the others once."""
    result, jackknifed = Audit(), {}
    for name in measures:
        function = measures[name]
        for key, at in _targets(name, function, pool, groups, side):
            try:
                result.values[key] = _value(function, _part(pool, at), intervals)
            except NotMeasured as reason:
                result.left_out[key] = str(reason)
                continue
            if intervals and function.quantity.interval == "jackknife":
                jackknifed[key] = (function, at)
    for key, found in _left_out_values(pool, jackknifed).items():
        low, high = jackknife_interval(result.values[key].value, found)
        result.values[key] = replace(result.values[key], low=low, high=high)
    for name, function in CURVES.items():
        for key, at in _targets(name, function, pool, groups, side):
            try:
                points = function(*resolve(_part(pool, at), function))
                result.curves[key] = Curve(*points, function.quantity.unit, definition(function))
            except NotMeasured as reason:
                result.left_out[key] = str(reason)
    result.values = dict(sorted(result.values.items(), key=lambda item: _place(item[0])))
    result.notes = _notes(result)
    return result


def _targets(name: str, function: Callable[..., Any], pool: Pair | Side, groups: set[str],
             side: str | None) -> list[tuple[str, str | None]]:
    """Keys of a measure and the side that each is measured on; None is the pair."""
    if function.quantity.group not in groups:
        return []
    if function.quantity.group not in SIDE_GROUPS:
        return [(name, None)]
    return [(f"{side}.{name}", None)] if isinstance(pool, Side) else [(f"{s}.{name}", s) for s in ("teacher", "student")]


def _part(pool: Pair | Side, at: str | None) -> Pair | Side:
    return pool if at is None else getattr(pool, at)


def _value(function: Callable[..., Any], pool: Pair | Side, intervals: bool) -> Value:
    """The measure on the whole pool, with the interval that needs no second pool."""
    quantity, given = function.quantity, resolve(pool, function)
    value, low, high = function(*given), None, None
    if not np.isfinite(value):
        raise NotMeasured(f"it is not finite here ({value})")
    if quantity.interval == "draws":
        low, high = (float(v) for v in np.quantile(given[0], [0.025, 0.975]))
    elif intervals and quantity.interval == "items":
        if len(given) == 1 and given[0].dtype == bool:
            low, high = wilson_interval(given[0])
        else:
            low, high = bootstrap_interval(function, given, seed=pool.settings.seed)
    return Value(value, low, high, int(getattr(pool, quantity.n)), definition(function), quantity.unit)


def _left_out_values(pool: Pair | Side, jackknifed: dict[str, tuple[Callable[..., Any], str | None]]) -> dict[str, list]:
    """Each of these measures with every group of items left out in turn."""
    found: dict[str, list] = {key: [] for key in jackknifed}
    for group in pool.kept if jackknifed else ():
        reduced = pool.without(group)
        for key, (function, at) in jackknifed.items():
            found[key].append(function(*resolve(_part(reduced, at), function)))
    return found


def _place(key: str) -> tuple:
    """Teacher and student side by side, in the order of the groups."""
    head, _, rest = key.partition(".")
    if head in ("teacher", "student"):
        return (-1, rest, head == "student")
    return (GROUPS.index(head) if head in GROUPS else len(GROUPS), key, False)


def _notes(result: Audit) -> list[str]:
    """What a reader must know before any number: too few items, saturation, what was left out."""
    notes = []
    for key, value in result.values.items():
        if key.endswith(".undersampled") and value.value:
            notes.append(f"{key.split('.')[0]}: n = {value.n} is less than 2 d, so its ranks are biased low; "
                         "compare effective_rank_corrected.")
        if key == "contrastive.saturated" and value.value:
            notes.append("contrastive: the loss is below a tenth of log K, so this K cannot tell students apart.")
    reasons: dict[str, list[str]] = {}
    for key, reason in result.left_out.items():
        reasons.setdefault(reason, []).append(key)
    return [*notes, *(f"left out, because {reason}: {', '.join(keys)}." for reason, keys in reasons.items())]
