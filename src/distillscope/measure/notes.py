"""What a reader must know before any number of an audit: what was repeated, scaled, rounded or too few."""

from __future__ import annotations

import numpy as np

from distillscope.measure.labelled import LabelledPair
from distillscope.measure.pool import Side
from distillscope.measure.results import Audit
from distillscope.measure.spectrum import algebraic_rank

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
             "float64; this is exact, and no measure depends on the scale.") for side, exponent in result.scaled.items()]


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
    mixed = pool.num_mixed_labels() if items < rows else 0
    if mixed:
        found.append(f"repeats of an item have {mixed:,} labels more than items: "
                     "cross-validated accuracies take the first row's.")
    if pool.train is not None:
        seen = int(np.isin(pool.teacher.items.keys, pool.train.teacher.items.keys).sum())
        if seen:
            found.append(f"{seen:,} of the {items:,} items are training items too, row for row: "
                         "probes and neighbours have seen their labels.")
    return found


def _rounded(result: Audit, pool: LabelledPair | Side) -> list[str]:
    found = []
    for name, precision in result.precision.items():
        if f"{name}.algebraic_rank" not in result.values:
            continue
        side = pool if isinstance(pool, Side) else getattr(pool, name)
        told, stand_out = algebraic_rank(side.eigenvalues), side.resolved_rank
        if stand_out < told:
            found.append(f"{name}: the values are rounded to {precision}, and {told - stand_out} of {told} components do not "
                         "stand out of that rounding: algebraic_rank and spectral_decay leave them out.")
    return found


def _of_values(result: Audit) -> list[str]:
    found = []
    for key, value in result.values.items():
        if key.endswith(".undersampled") and value.value:
            found.append(f"{key.split('.')[0]}: n = {value.n} is less than 2 d, so its ranks are biased low; "
                         "compare effective_rank_corrected.")
        if key == "student.duplicates" and value.value > result.values.get("teacher.duplicates", value).value:
            found.append(f"student: {value.value:.1%} of the sampled rows repeat another one exactly, "
                         "where the teacher's differ.")
        if key.endswith(".twonn_dimension") and value.value > TWONN_RELIABLE:
            found.append(f"{key}: TwoNN reads low above about {TWONN_RELIABLE} dimensions.")
        if key == "contrastive.saturated" and value.value:
            found.append("contrastive: the loss is below a tenth of log K, so this K cannot tell students apart.")
    return found
