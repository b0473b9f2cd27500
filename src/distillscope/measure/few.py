"""How many labels per class each side needs: a probe fitted to 1, 5, 10 or 50 of each, on disjoint parts of the items.

The items of each class are dealt out to up to ten parts in content order, as random as a shuffle. In each part, a probe is
fitted to the first labels of each class and tested on the part's other items (with a training set, on a part of the items). So
parts are independent, and the spread over them holds both which labels were drawn and which items were tested. Both sides see
the same. Rows are centred and scaled by one number, from all items without their labels: to standardise columns by so few rows
would blow up those that hardly vary.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from distillscope.measure.accuracy import attach, made, share_right
from distillscope.measure.labelled import LabelledPair
from distillscope.measure.pair import Pair
from distillscope.measure.pool import Side
from distillscope.measure.probe import linear_probe
from distillscope.measure.results import NotMeasured
from distillscope.registry import measures

SIZES = (1, 5, 10, 50)
MOST_PARTS, FEWEST_PARTS = 10, 3
C = 10.0
"""Fixed, since so few labels leave none to choose it by; on digits within 1 % of the best of 0.1 to 1,000 at every size."""
TOLERANCE = 1e-3
"""Of the gradient's largest entry. At 1e-4 accuracies differ by 0.1 points, a tenth of their interval, for twice the time."""


def places(codes: np.ndarray) -> np.ndarray:
    """How many items (n,) of the same class in ``codes`` (n,) come before each.

    >>> places(np.array([0, 0, 1, 0])).tolist()
    [0, 1, 0, 2]
    """
    order = np.argsort(codes, kind="stable")
    found = np.empty(len(codes), np.intp)
    found[order] = np.arange(len(codes)) - np.searchsorted(codes[order], codes[order])
    return found


def few_accuracies(pool: LabelledPair, side: str, size: int) -> np.ndarray:
    """Accuracy (parts,) of a probe of ``side`` that is fitted to ``size`` labels of each class."""
    train = pool.train
    tested = pool.probe_index if train is None else pool.labelled_order
    labels, source = pool.labels[tested], pool if train is None else train
    fitted = tested if train is None else source.teacher.order[: pool.settings.probe_items]
    known = labels if train is None else pool._train_labels[fitted]
    codes = np.unique(known, return_inverse=True)[1]
    least = size + (train is None)
    item = np.unique(pool.row_items[tested], return_inverse=True)[1]  # in content order: rows may be stored by class
    count = min(MOST_PARTS, int(np.bincount(codes).min()) // least, int(item.max(initial=-1)) + 1)
    if count < FEWEST_PARTS:
        raise NotMeasured(f"it needs {FEWEST_PARTS} parts of the labelled items with {least} or more of every class each")
    place, found, scaled = places(codes), np.empty(count), _scaling(getattr(source, side))
    for part in range(count):
        chosen = (place % count == part) & (place < size * count)
        rest = (place % count == part) & ~chosen if train is None else item % count == part
        probe = linear_probe(scaled(_rows(source, side, fitted[chosen])), known[chosen], c=C, unit_norm=False, tol=TOLERANCE)
        found[part] = share_right(probe.predict(scaled(_rows(pool, side, tested[rest]))) == labels[rest])
    return found


def _scaling(side: Side) -> Callable[[np.ndarray], np.ndarray]:
    """Rows less the mean of all, over the root of their mean squared distance from it."""
    spread = np.sqrt(side.energy_of(side.kept) / side.count) or 1.0
    return lambda z: (z - side.mean) / spread


def _rows(pool: Pair, side: str, index: np.ndarray) -> np.ndarray:
    rows: np.ndarray = getattr(pool, side).rows.take(index)
    return rows


def kept(student: np.ndarray, teacher: np.ndarray) -> np.ndarray:
    """For each part, its share (parts,) in the student's mean accuracy over the teacher's, which is their mean.

    ``r + (student - r teacher) / mean(teacher)`` with r that ratio: their spread is the ratio's, to first order.

    >>> kept(np.array([0.2, 0.4]), np.array([0.5, 0.5])).round(3).tolist()
    [0.4, 0.8]
    """
    if not teacher.any():
        raise NotMeasured("the teacher classified nothing correctly")
    ratio = student.mean() / teacher.mean()
    shares: np.ndarray = ratio + (student - ratio * teacher) / teacher.mean()
    return shares


for _size in SIZES:
    for _side in ("teacher", "student"):
        attach(LabelledPair, f"few_{_side}_{_size}", lambda pool, side=_side, size=_size: few_accuracies(pool, side, size))
        _key = f"few.{_side}.accuracy_at_{_size}"
        measures.register(_key, unit="share", group="few", interval="batches", n="probe_count", percent=True, better="higher",
                          title=f"accuracy at {_size} a class")(
            made(_key, share_right, [f"few_{_side}_{_size}"],
                 f"Accuracy of a linear probe on the {_side} fitted to {_size} labels per class: mean over disjoint parts."))
    attach(LabelledPair, f"few_kept_{_size}", lambda pool, size=_size: kept(getattr(pool, f"few_student_{size}"),
                                                                   getattr(pool, f"few_teacher_{size}")))
    measures.register(f"few.retention_at_{_size}", unit="share", group="few", interval="batches", n="probe_count", ratio=True,
                      percent=True, better="higher", title=f"retention at {_size} a class")(
        made(f"few.retention_at_{_size}", share_right, [f"few_kept_{_size}"],
             f"The student's mean accuracy over the teacher's at {_size} labels per class."))
