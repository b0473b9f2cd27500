"""A teacher's and a student's embeddings -> every measurement, and what a reader must know before any number of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from distillscope.errors import UserError, unknown_name
from distillscope.facts import MeasureFacts
from distillscope.measure.doubt import question
from distillscope.measure.given import (
    checked_labels,
    checked_subgroups,
    checked_text,
    expect_one_order,
    expect_shared_classes,
    pair_from_elsewhere,
    prepared_side,
    training_pair,
    two_sides,
)
from distillscope.measure.intervals import (
    REACH,
    bootstrap_interval,
    dependent_difference,
    dependent_interval,
    independent_count,
    jackknife_interval,
    mean_interval,
    possible,
    retention_interval,
    wilson_interval,
)
from distillscope.measure.labelled import LabelledPair
from distillscope.measure.pair import Pair, resolve
from distillscope.measure.pool import Settings, Side
from distillscope.measure.results import GROUPS, Audit, Curve, NotMeasured, Value, definition
from distillscope.measure.spectrum import algebraic_rank
from distillscope.measure.stages import replaced, stages
from distillscope.measure.threads import one_blas_thread, over_blocks
from distillscope.registry import curves, measures, positional


class Measure(NamedTuple):
    """A registered measure with what it says of itself."""

    function: Callable[..., Any]
    facts: MeasureFacts


SIDE_GROUPS = {"spectrum"}
LEFT_OUT = ("jackknife", "dependent")
"""Intervals that come from leaving groups of items out."""
SCORED_ITEMS = {"count": "row_items", "labelled_count": "labelled_items", "probe_count": "probe_items",
                "knn_count": "knn_items"}
"""The pool's name of the items behind as many scores."""


@one_blas_thread()
def audit(teacher: Any, student: Any, labels: Any = None, *, train_teacher: Any = None, train_student: Any = None,
          train_labels: Any = None, text: Any = None, subgroups: Any = None, ood_teacher: Any = None, ood_student: Any = None,
          artefacts: Mapping[str, Any] | None = None, normalize: str | None = None, groups: Collection[str] | None = None,
          only: Callable[[str], bool] | None = None, intervals: bool = True, seed: int = 0, settings: Settings | None = None,
          advance: Callable[[int], Any] | None = None) -> Audit:
    """Everything that can be measured on row-aligned embeddings ``teacher`` (n, d) and ``student`` (n, d').

    Floats: arrays (NumPy, memory-mapped), tensors, frames of pandas or polars whose columns are the dimensions alone (others
    are refused), or a column of vectors; labels also as categories. Row i of all is one item: an index of pandas in another
    order is an error, and so is what cannot be measured (`UserError`). A teacher that is compared with many students may be
    passed as ``prepare(teacher)``, so that its own work is done once. ``labels`` (n,) add probes and k-nearest neighbours,
    fitted to ``train_teacher``, ``train_student`` and ``train_labels`` where given, else cross-validated on the items
    themselves; None, NaN, blank text, masked ones, and -1 beside other classes, are items without a label, which these leave
    out; ``text`` (classes, d), embeddings of the class names, adds zero-shot accuracy; ``subgroups`` (n,), like labels, what
    the worst of them keeps; ``ood_teacher`` (q, d) and ``ood_student`` (q, d'), items from elsewhere, whether each side finds
    them; ``artefacts``, name -> embeddings (n, d') of the same items by a file that was made of the student, add ``stages``:
    what each step lost. ``normalize="l2"`` scales rows to unit norm first; otherwise embeddings are measured as given.
    ``groups`` picks among spectrum, alignment, contrastive, paper, similarity, retrieval, swap, codes, probe, few, knn,
    zero_shot and ood, ``only``, a function of a key, among their keys; ``intervals=False`` skips the 95 % intervals over
    items. ``seed`` is of subsamples, folds and nulls, ``settings`` their sizes. What does not apply is named in ``left_out``.
    ``advance`` is called with the number of steps just done, of `num_steps` in all.

    >>> rng = np.random.default_rng(0)
    >>> teacher = rng.normal(size=(200, 8))
    >>> found = audit(teacher, teacher @ np.diag([1, 1, 0, 0, 0, 0, 0, 0]), groups={"spectrum"}, intervals=False)
    >>> round(found["teacher.effective_rank"], 1), round(found["student.effective_rank"], 1)
    (7.8, 2.0)
    """
    chosen = _chosen(groups)
    settings = replace(settings or Settings(), seed=seed)
    sides = two_sides(teacher, student, normalize, settings, ("teacher", "student"))
    expect_one_order({"teacher": teacher, "student": student, "labels": labels, "subgroups": subgroups, **(artefacts or {})})
    labels = checked_labels(labels, "labels", sides[0].rows.count)
    train, train_labels = training_pair(train_teacher, train_student, train_labels, normalize, settings, sides)
    if train is not None and labels is None:
        raise UserError("labels", "labels of the items", "only train_labels", "Pass labels= too.")
    if train_labels is not None:
        expect_shared_classes(labels, train_labels)
    text = checked_text(text, labels)
    ood = pair_from_elsewhere(ood_teacher, ood_student, normalize, settings, sides)
    pool = LabelledPair(*sides, labels, train, train_labels, text, checked_subgroups(subgroups, sides[0].rows.count), ood)
    files = {name: replaced(pool, name, prepared_side(rows, f"artefact {name}", normalize, settings))
             for name, rows in (artefacts or {}).items()}
    found = _measure(pool, chosen, intervals, only=only, advance=advance)
    if files:
        found.stages = stages(pool, files, chosen, intervals)
    return found


@one_blas_thread()
def audit_one(embeddings: Any, *, side: str = "teacher", normalize: str | None = None, intervals: bool = True,
              seed: int = 0, settings: Settings | None = None) -> Audit:
    """What can be measured on one set of embeddings (n, d) alone, under keys that begin with ``side``.

    >>> found = audit_one(np.random.default_rng(0).normal(size=(100, 4)), intervals=False)
    >>> sorted(found)[:2]
    ['teacher.algebraic_rank', 'teacher.dims_90']
    """
    pool = embeddings if isinstance(embeddings, Side) else prepare(embeddings, side, normalize=normalize, seed=seed,
                                                                   settings=settings)
    return _measure(pool, {"spectrum"}, intervals, side)


def prepare(embeddings: Any, name: str = "teacher", *, normalize: str | None = None, seed: int = 0,
            settings: Settings | None = None) -> Side:
    """Checked embeddings (n, d) whose moments and spectrum are kept for every audit that they are passed to."""
    return prepared_side(embeddings, name, normalize, replace(settings or Settings(), seed=seed))


def num_steps(groups: Collection[str] | None = None, intervals: bool = True) -> int:
    """The steps of an audit: its measures, and each again without each group of items where that gives its interval.

    >>> num_steps({"knn"}) == num_steps({"knn"}, intervals=False) > 0
    True
    """
    chosen = _chosen(groups)
    all_facts = [facts for facts in map(measures.facts, measures) if facts.group in chosen]
    return sum((2 if facts.group in SIDE_GROUPS else 1) * (1 + Settings.groups * (intervals and facts.interval in LEFT_OUT))
               for facts in all_facts)


def _chosen(groups: Collection[str] | None) -> set[str]:
    groups = {groups} if isinstance(groups, str) else groups
    for group in groups or ():
        if group not in GROUPS:
            raise unknown_name("groups", "group of measures", group, GROUPS)
    return set(GROUPS if groups is None else groups)


def _measure(pool: LabelledPair | Side, groups: set[str], intervals: bool, side: str | None = None,
             only: Callable[[str], bool] | None = None, advance: Callable[[int], Any] | None = None) -> Audit:
    """Every registered measure and curve of ``groups``: those of one side once a side, the others once."""
    result, jackknifed = Audit(), {}
    if isinstance(pool, LabelledPair):
        pool.expect_groups(groups)
    for name in measures:
        measure = Measure(measures[name], measures.facts(name))
        for key, at in _targets(name, measure.facts.group, pool, groups, side, only):
            if advance:
                advance(1)
            try:
                result.measured[key] = _value(measure, _part(_pool(pool, measure.facts.group), at), intervals)
            except (NotMeasured, np.linalg.LinAlgError) as reason:
                known = isinstance(reason, NotMeasured)
                result.left_out[key] = str(reason) if known else f"a decomposition did not converge ({reason})"
                if advance and intervals and measure.facts.interval in LEFT_OUT:
                    advance(Settings.groups)
                continue
            if intervals and measure.facts.interval in LEFT_OUT:
                jackknifed[key] = (measure, at)
    for key, found in _left_out_values(pool, jackknifed, advance).items():
        measure, at = jackknifed[key]
        low, high = _interval(measure, _part(_pool(pool, measure.facts.group), at), result.measured[key].value, found)
        result.measured[key] = replace(result.measured[key], low=low, high=high)
    for name in curves:
        function, facts = curves[name], curves.facts(name)
        for key, at in _targets(name, facts.group, pool, groups, side, only):
            try:
                points = function(*resolve(_part(_pool(pool, facts.group), at), function))
                result.curves[key] = Curve(points.x, points.y, points.low, points.high, facts.unit, definition(function))
            except NotMeasured as reason:
                result.left_out[key] = str(reason)
    result.measured = dict(sorted(result.measured.items(), key=lambda item: _place(item[0])))
    result.repeats, result.precision, result.scaled = rows_and_precision(pool, side)
    if isinstance(pool, LabelledPair):
        result.subsets = pool.all_subsets(set(result.measured), intervals)
    result.labels = {} if isinstance(pool, Side) else pool.class_sizes()
    result.doubt, result.notes = question(result), notes(result, pool)
    return result


def _targets(name: str, group: str, pool: LabelledPair | Side, groups: set[str], side: str | None,
             only: Callable[[str], bool] | None) -> list[tuple[str, str | None]]:
    """Keys of a measure of ``group`` and the side that each is measured on; None is the pair."""
    if group not in groups:
        return []
    found: list[tuple[str, str | None]] = [(f"{s}.{name}", s) for s in ("teacher", "student")]
    if group not in SIDE_GROUPS:
        found = [(name, None)]
    elif isinstance(pool, Side):
        found = [(f"{side}.{name}", None)]
    return [target for target in found if only is None or only(target[0])]


def _pool(pool: LabelledPair | Side, group: str) -> LabelledPair | Side:
    """What measures of ``group`` are taken on: all rows, or one per item."""
    return pool if isinstance(pool, Side) else pool.over(group)


def _part(pool: Pair | Side, at: str | None) -> Pair | Side:
    return pool if at is None else getattr(pool, at)


def _value(measure: Measure, pool: Pair | Side, intervals: bool) -> Value:
    """The measure on the whole pool, with the interval that needs no second pool."""
    function, facts = measure
    given = resolve(pool, function)
    value, low, high = function(*given), None, None
    if not np.isfinite(value):
        raise NotMeasured(f"it is not finite here ({value})")
    if facts.interval == "draws":
        low, high = (float(v) for v in np.quantile(given[0], [0.025, 0.975]))
    elif intervals and facts.interval == "together":
        low, high = (function(given[0][:, [i]]) for i in (1, 2))
    elif intervals and facts.interval == "batches":
        low, high = mean_interval(given[0])
    elif intervals and facts.interval == "items":
        items = scored_items(pool, facts.n) if isinstance(pool, Pair) else None
        number = None if items is None else independent_count(items)
        if len(given) == 1 and given[0].dtype == bool:
            low, high = wilson_interval(given[0], count=number)
        elif facts.ratio and len(given) == 2 and all(scores.dtype == bool for scores in given):
            low, high = retention_interval(*given, count=number)
        else:
            low, high = bootstrap_interval(function, given, items=items, seed=pool.settings.seed)
    count = int(getattr(pool, facts.n))
    if facts.interval != "draws":
        low, high = possible((low, high), value, given, _reach(pool, measure), count, facts.ratio)
    return Value(value, low, high, count, definition(function), facts.unit)


def _reach(pool: Pair | Side, measure: Measure) -> tuple[float, float]:
    """The least and the most that a measure can be; dimensions are no more than rows, one less if centred, and columns."""
    if measure.facts.unit == "dims" and isinstance(pool, Side):
        return 1.0, float(min(pool.count - ("eigenvalues" in positional(measure.function)), pool.dim))
    return REACH.get(measure.facts.unit, (-np.inf, np.inf))


def scored_items(pool: Pair, count: str) -> np.ndarray | None:
    """The items behind as many scores as the pool's ``count`` says, where some rows are of one item."""
    return getattr(pool, SCORED_ITEMS[count]) if pool.teacher.items.repeated else None


def _interval(measure: Measure, pool: Pair | Side, value: float,
              left_out: list[float]) -> tuple[float | None, float | None]:
    """The interval of a measure from its values with each group of items left out."""
    function, facts = measure
    if facts.interval == "dependent":
        given = resolve(pool, function)
        return dependent_difference(given[0], given[1], left_out) if len(given) > 1 else dependent_interval(given[0], left_out)
    if smooth := facts.smooth:
        low, high = jackknife_interval(smooth(*resolve(pool, smooth)), left_out)
        ends = float(math.ceil(low)), float(math.ceil(high))  # as the value itself is
    else:
        ends = jackknife_interval(value, left_out)
    return possible(ends, value, resolve(pool, function), _reach(pool, measure), int(getattr(pool, facts.n)), facts.ratio)


def _left_out_values(pool: LabelledPair | Side, jackknifed: dict[str, tuple[Measure, str | None]],
                     advance: Callable[[int], Any] | None) -> dict[str, list[float]]:
    """Each of these measures with every group of items left out in turn."""
    found = {key: [np.nan] * len(pool.kept) for key in jackknifed}
    refused: set[str] = set(jackknifed) if len(pool.kept) < 3 else set()  # two groups tell no spread

    def leave_out(number: int, group: int) -> None:
        reduced: dict[int, Pair | Side] = {}
        for key, (measure, at) in jackknifed.items():
            if advance:
                advance(1)
            whole = _pool(pool, measure.facts.group)
            if id(whole) not in reduced:
                reduced[id(whole)] = whole.without(group)
            function = measure.facts.smooth or measure.function
            try:
                found[key][number] = function(*resolve(_part(reduced[id(whole)], at), function))
            except NotMeasured:  # too little is left: the value stands, without an interval
                refused.add(key)

    over_blocks(leave_out, enumerate(pool.kept) if len(refused) < len(jackknifed) else ())
    return {key: values for key, values in found.items() if key not in refused}


def _place(key: str) -> tuple:
    """Teacher and student side by side, in the order of the groups."""
    head, _, rest = key.partition(".")
    if head in ("teacher", "student"):
        return (-1, rest, head == "student")
    return (GROUPS.index(head) if head in GROUPS else len(GROUPS), key, False)


TWONN_RELIABLE = 20


def rows_and_precision(pool: LabelledPair | Side, side: str | None) -> tuple[dict[str, int], dict[str, str], dict[str, int]]:
    """Rows and items, the precision of each side's values, and the power of two by which a side was scaled, where one was."""
    sides = {side or "teacher": pool} if isinstance(pool, Side) else {"teacher": pool.teacher, "student": pool.student}
    items = next(iter(sides.values())).items
    return ({"rows": len(items.order), "items": items.count}, {name: s.precision for name, s in sides.items()},
            {name: s.rows.exponent for name, s in sides.items() if s.rows.exponent})


def notes(result: Audit, pool: LabelledPair | Side) -> list[str]:
    """The notes of an audit, but for what was left out and for the doubt of the whole, which have places of their own."""
    return [*_scaled(result), *_repeats(result, pool), *_rounded(result, pool), *_of_values(result)]


def _scaled(result: Audit) -> list[str]:
    return [(f"{side}: values were multiplied by 2^{exponent} before they were squared, since their squares would leave "
             "float64; this is exact, and no measure depends on it.") for side, exponent in result.scaled.items()]


def _repeats(result: Audit, pool: LabelledPair | Side) -> list[str]:
    rows, items = result.repeats["rows"], result.repeats["items"]
    found = []
    if items < rows:
        more = ("" if isinstance(pool, Side) else " Repeats of an item share a fold, and where items are compared with one "
                "another or classified by cross-validation, each item counts once.")
        whose = "" if isinstance(pool, Side) else " of the teacher"
        found.append(f"{rows - items:,} of {rows:,} rows repeat another row{whose} exactly: {items:,} distinct items.{more}")
    if isinstance(pool, Side):
        return found
    bare = pool.num_unlabelled()
    if bare:
        found.append(f"{bare:,} of {rows:,} items have no label: probes, neighbours and zero-shot accuracy leave them out.")
    if outside := pool.num_in_no_subgroup():
        found.append(f"{outside:,} of {rows:,} items are in no subgroup: what is said of the worst one leaves them out.")
    mixed = pool.num_mixed_labels() if items < rows else 0
    if mixed:
        found.append(f"repeats of an item have {mixed:,} labels more than items: "
                     "cross-validated accuracies take the first row's.")
    if pool.train is not None:
        untaught = int((~np.isin(pool.labels[pool.labelled], pool._train_labels)).sum())
        if untaught:
            found.append(f"{untaught:,} of the {rows:,} items are of classes that no training item is of: probes and "
                         "neighbours are wrong on them.")
        seen = int(np.isin(pool.teacher.items.keys, pool.train.teacher.items.keys).sum())
        if seen:
            found.append(f"{seen:,} of the {items:,} items are training items too, row for row: "
                         "probes and neighbours have seen their labels.")
    if pool.ood is not None:
        foreign, keys = pool.ood.teacher.items, pool.teacher.items.keys
        same = int(np.isin(foreign.keys, keys if pool.train is None else np.append(keys, pool.train.teacher.items.keys)).sum())
        if same:
            found.append(f"{same:,} of the {foreign.count:,} items from elsewhere are among the known ones, row for row.")
    return found


def _rounded(result: Audit, pool: LabelledPair | Side) -> list[str]:
    found = []
    for name, precision in result.precision.items():
        if f"{name}.algebraic_rank" not in result.measured:
            continue
        side = pool if isinstance(pool, Side) else getattr(pool, name)
        told, stand_out = algebraic_rank(side.eigenvalues), side.resolved_rank
        if stand_out < told:
            found.append(f"{name}: the values are rounded to {precision}, and {told - stand_out} of {told} components do not "
                         "stand out of that rounding: algebraic_rank and spectral_decay leave them out.")
    return found


def _of_values(result: Audit) -> list[str]:
    found = []
    for key, value in result.measured.items():
        if key.endswith(".undersampled") and value.value:
            found.append(f"{key.split('.')[0]}: n = {value.n} is less than 2 d, so its ranks are biased low; "
                         "compare effective_rank_corrected.")
        if key == "student.duplicates" and value.value > result.measured.get("teacher.duplicates", value).value:
            found.append(f"student: {value.value:.1%} of the sampled rows repeat another one exactly, "
                         "where the teacher's differ.")
        if key.endswith(".twonn_dimension") and value.value > TWONN_RELIABLE:
            found.append(f"{key}: TwoNN reads low above about {TWONN_RELIABLE} dimensions.")
        if key == "contrastive.saturated" and value.value:
            found.append("contrastive: the loss is below a tenth of log K, so this K cannot distinguish students.")
    return found
