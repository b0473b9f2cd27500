"""A teacher's and a student's embeddings -> every measurement."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace
from typing import Any

import numpy as np

from distillscope.errors import UserError, unknown_name
from distillscope.measure.classes import classes
from distillscope.measure.intervals import bootstrap_interval, jackknife_interval, mean_interval, wilson_interval
from distillscope.measure.labelled import LabelledPair
from distillscope.measure.pair import Pair, resolve
from distillscope.measure.pool import Settings, Side
from distillscope.measure.quantity import CURVES, GROUPS, NotMeasured, definition
from distillscope.measure.results import Audit, Curve, Value
from distillscope.measure.rows import Rows, Scan, Stored, content_order, scan
from distillscope.registry import measures

FEWEST = 10
TWONN_RELIABLE = 20
SIDE_GROUPS = {"spectrum"}


def audit(teacher: Any, student: Any, labels: Any = None, *, train_teacher: Any = None, train_student: Any = None,
          train_labels: Any = None, text: Any = None, normalize: str | None = None,
          groups: Collection[str] | None = None, intervals: bool = True, seed: int = 0,
          settings: Settings | None = None) -> Audit:
    """Everything that can be measured on row-aligned embeddings ``teacher`` (n, d) and ``student`` (n, d').

    Arrays of floats (NumPy, memory-mapped, or tensors). A teacher that is compared with many students may be passed as
    ``prepare(teacher)``, so that its own work is done once. ``labels`` (n,) add probes and k-nearest neighbours, fitted to
    ``train_*`` where given, else cross-validated on the items themselves; None, NaN, blank text, masked ones, and -1 beside
    other classes, are items without a label, which these leave out; ``text`` (classes, d), embeddings of the class
    names, adds zero-shot accuracy. ``normalize="l2"`` scales rows to unit norm first; otherwise embeddings are measured
    as given. ``groups`` picks among spectrum, alignment, contrastive, paper, similarity, retrieval, probe, knn and
    zero_shot; ``intervals=False`` skips the 95 % intervals over items. What does not apply is named in ``left_out``.

    >>> rng = np.random.default_rng(0)
    >>> teacher = rng.normal(size=(200, 8))
    >>> found = audit(teacher, teacher @ np.diag([1, 1, 0, 0, 0, 0, 0, 0]), groups={"spectrum"}, intervals=False)
    >>> round(found["teacher.effective_rank"], 1), round(found["student.effective_rank"], 1)
    (7.8, 2.0)
    """
    chosen = _chosen(groups)
    settings = replace(settings or Settings(), seed=seed)
    sides = _two_sides(teacher, student, normalize, settings, ("teacher", "student"))
    labels = _labels(labels, "labels", sides[0].rows.count)
    train, train_labels = _training(train_teacher, train_student, train_labels, normalize, settings, sides)
    if train is not None and labels is None:
        raise UserError("labels", "labels of the items", "only train_labels", "Pass labels= too.")
    text = _text(text, labels)
    found = _measure(LabelledPair(*sides, labels, train, train_labels, text), chosen, intervals)
    if np.ma.is_masked(labels):
        found.notes.insert(0, f"{int(labels.mask.sum()):,} of {len(labels):,} items have no label: probes, neighbours and zero-shot "
                              "accuracy leave them out.")
    return found


def audit_one(embeddings: Any, *, side: str = "teacher", normalize: str | None = None, intervals: bool = True,
              seed: int = 0, settings: Settings | None = None) -> Audit:
    """What can be measured on one set of embeddings (n, d) alone, under keys that begin with ``side``.

    >>> found = audit_one(np.random.default_rng(0).normal(size=(100, 4)), intervals=False)
    >>> sorted(found.values)[:2]
    ['teacher.algebraic_rank', 'teacher.dims_90']
    """
    pool = embeddings if isinstance(embeddings, Side) else prepare(embeddings, side, normalize=normalize, seed=seed,
                                                                   settings=settings)
    return _measure(pool, {"spectrum"}, intervals, side)


def prepare(embeddings: Any, name: str = "teacher", *, normalize: str | None = None, seed: int = 0,
            settings: Settings | None = None) -> Side:
    """Checked embeddings (n, d) whose moments and spectrum are kept for every audit that they are passed to."""
    settings = replace(settings or Settings(), seed=seed)
    rows = _rows(embeddings, name, normalize)
    return Side(rows, settings, content_order(_check(rows, name, settings).keys))


def _training(teacher: Any, student: Any, labels: Any, normalize: str | None, settings: Settings,
              tested: tuple[Side, Side]) -> tuple[Pair | None, np.ndarray | None]:
    """The training pair and its labels, all three or none."""
    given = {"train_teacher": teacher, "train_student": student, "train_labels": labels}
    missing = [name for name, value in given.items() if value is None]
    if len(missing) == 3:
        return None, None
    if missing:
        raise UserError(missing[0], "all of train_teacher, train_student and train_labels", "nothing", f"Pass {missing[0]}=.")
    labels = classes(_array(labels), "train_labels")
    if np.ma.is_masked(labels):  # nothing is fitted to items without a label
        teacher, student = (_with_label(side, labels, name) for side, name in zip((teacher, student), given, strict=False))
        labels = np.ma.compressed(labels)
    train = Pair(*_two_sides(teacher, student, normalize, settings, ("train_teacher", "train_student")))
    for name, side, other in zip(given, (train.teacher, train.student), tested, strict=False):
        if side.dim != other.dim:
            raise UserError(name, f"{other.dim} dimensions like the {name[6:]}", f"{side.dim}",
                            "Pass embeddings made by one model.")
    return train, _labels(labels, "train_labels", train.count)


def _with_label(side: Any, labels: np.ma.MaskedArray, name: str) -> Stored:
    """The rows that have a label, which stay where they are until they are read."""
    z = side.rows.z if isinstance(side, Side) else _array(side)
    if len(z) != len(labels):
        raise UserError("train_labels", f"one label for each row of {name}, {len(z)}", f"{len(labels)}", "Pass labels in row order.")
    return (z if isinstance(z, Stored) else Stored([z])).take(np.flatnonzero(~np.ma.getmaskarray(labels)))


def _labels(labels: Any, name: str, count: int) -> np.ndarray | None:
    """Labels (n,) of at least two classes, masked where an item has none, or the line that says what is wrong with them."""
    if labels is None:
        return None
    labels = classes(_array(labels), name)
    if labels.shape != (count,):
        raise UserError(name, f"one label an item, shape ({count},)", f"shape {labels.shape}", "Pass labels in row order.")
    if len(np.unique(np.ma.compressed(labels))) < 2:
        raise UserError(name, "at least two classes", "one", "Leave the labels out, or pass items of more classes.")
    return labels


def _text(text: Any, labels: np.ndarray | None) -> np.ndarray | None:
    """Embeddings of the class names, which the labels must index."""
    if text is None:
        return None
    text = _array(text)
    if text.ndim != 2 or text.dtype.kind != "f" or not np.isfinite(text).all():
        raise UserError("text", "a finite float array of shape (classes, dimensions)", f"{text.dtype} {text.shape}",
                        "Pass one embedding a class name.")
    if labels is None:
        raise UserError("labels", "labels that index the rows of text", "nothing", "Pass labels=.")
    known = np.unique(np.ma.compressed(labels))
    if known.dtype.kind not in "iu" or known[0] < 0 or known[-1] >= len(text):
        raise UserError("labels", f"whole numbers from 0 to {len(text) - 1}, rows of text", f"{known[0]} to {known[-1]}",
                        "Number the classes in the order of the rows of text.")
    return np.asarray(text, np.float64)


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
    z = _array(embeddings)
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


def _array(given: Any) -> np.ndarray | Stored:
    """A NumPy array or one stored in parts, without a copy where it is one; tensors are told without importing torch."""
    if hasattr(given, "detach"):
        given = given.detach().cpu()
        given = (given.float() if str(given.dtype) == "torch.bfloat16" else given).numpy()
    try:
        return given if isinstance(given, (np.ndarray, Stored)) else np.asarray(given)
    except ValueError:  # rows of different lengths
        return np.empty(0, object)


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
        smooth = jackknifed[key][0].quantity.smooth
        whole = _part(pool, jackknifed[key][1])
        low, high = jackknife_interval(smooth(*resolve(whole, smooth)) if smooth else result.values[key].value, found)
        low, high = (float(np.ceil(low)), float(np.ceil(high))) if smooth else (low, high)
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
    elif intervals and quantity.interval == "batches":
        low, high = mean_interval(given[0])
    elif intervals and quantity.interval == "items":
        if len(given) == 1 and given[0].dtype == bool:
            low, high = wilson_interval(given[0])
        else:
            low, high = bootstrap_interval(function, given, seed=pool.settings.seed)
    return Value(value, low, high, int(getattr(pool, quantity.n)), definition(function), quantity.unit)


def _left_out_values(pool: Pair | Side, jackknifed: dict[str, tuple[Callable[..., Any], str | None]]) -> dict[str, list]:
    """Each of these measures with every group of items left out in turn."""
    found: dict[str, list] = {key: [] for key in jackknifed}
    refused: set[str] = set()
    for group in pool.kept if jackknifed else ():
        reduced = pool.without(group)
        for key, (function, at) in jackknifed.items():
            try:
                measure = function.quantity.smooth or function
                found[key].append(measure(*resolve(_part(reduced, at), measure)))
            except NotMeasured:  # too little is left: the value stands, without an interval
                refused.add(key)
    return {key: values for key, values in found.items() if key not in refused}


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
        if key.endswith(".duplicates") and value.value:
            notes.append(f"{key.split('.')[0]}: {value.value:.1%} of the sampled rows repeat another one exactly.")
        if key.endswith(".twonn_dimension") and value.value > TWONN_RELIABLE:
            notes.append(f"{key}: TwoNN reads low above about {TWONN_RELIABLE} dimensions.")
        if key == "contrastive.saturated" and value.value:
            notes.append("contrastive: the loss is below a tenth of log K, so this K cannot tell students apart.")
    reasons: dict[str, list[str]] = {}
    for key, reason in result.left_out.items():
        reasons.setdefault(reason, []).append(key)
    return [*notes, *(f"left out, because {reason}: {', '.join(keys)}." for reason, keys in reasons.items())]
