"""Out-of-distribution detection: does the distance to the known items still tell what came from elsewhere, on each side?

An item's score is its distance to the 10th nearest of the known items, unit rows (Sun et al. 2022, arXiv:2204.06507): it needs
no labels, assumes no shape of the classes, and is the same for both sides. The known items are the training items where they
are given; else the items themselves, each without itself. At most 4,096 items of either kind are scored.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from distillscope.measure import tolerances
from distillscope.measure.accuracy import attach, made, share_right
from distillscope.measure.labelled import LabelledPair
from distillscope.measure.pair import Pair
from distillscope.measure.pool import SPARE
from distillscope.measure.results import NotMeasured, Points
from distillscope.measure.search import Directions, nearest_rows
from distillscope.registry import curves, measures

KEPT = 0.95
"""Share of the items that the threshold of FPR95 keeps."""
POINTS = 201


class Nearest(NamedTuple):
    """Of each scored item (m, j): the group of its nearest known items, nearest first, and their cosines.

    ``own`` (m,) is its own group; -1 stands for a known item that is never left out.
    """

    groups: np.ndarray
    cosines: np.ndarray
    own: np.ndarray

    def distances(self, kept: tuple[int, ...], k: int) -> np.ndarray:
        """1 less the cosine (m',) to the k-th nearest known item, of the items and among the items of ``kept`` groups."""
        scored = np.isin(self.own, kept)
        usable = np.isin(self.groups[scored], (-1, *kept))
        if usable.shape[1] < k or (usable.sum(axis=1) < k).any():
            raise NotMeasured(f"it needs {k} known items near every item, and there are too few")
        place = np.argmax(np.cumsum(usable, axis=1) == k, axis=1)
        found: np.ndarray = 1 - self.cosines[scored][np.arange(len(place)), place]
        return np.round(found / tolerances.TIE) * tolerances.TIE  # what differs by rounding is equal


def nearest(pool: LabelledPair, side: str) -> tuple[Nearest, Nearest]:
    """The nearest known items of the items, and of those from elsewhere."""
    if pool.ood is None:
        raise NotMeasured("it needs items from elsewhere, and none were given")
    items, elsewhere = getattr(pool, side), getattr(pool.ood, side)
    size, k = len(items.sample), pool.settings.neighbours + SPARE
    first = elsewhere.items.first[: pool.settings.max_items]
    asked = Directions(lambda index: elsewhere.unit_rows(first[index]), len(first), elsewhere.dim)
    if pool.train is None:
        known, groups, tables = items.directions(size), items.group_of[items.sample], [items.neighbour_table(size, size)]
    else:
        trained = getattr(pool.train, side)
        known = trained.directions(min(trained.rows.count, pool.settings.gallery_items))
        groups = np.full(known.count, -1)
        tables = [nearest_rows(known, items.directions(size), {known.count: size}, k)[known.count]]
    tables.append(nearest_rows(known, asked, {known.count: len(first)}, k)[known.count])

    def found(queries: Directions, table: np.ndarray, own: np.ndarray) -> Nearest:
        rows = np.repeat(np.arange(len(table)), table.shape[1])
        return Nearest(groups[table].astype(np.int64), queries.dots(rows, known, table.ravel()).reshape(table.shape), own)

    return (found(items.directions(size), tables[0], items.group_of[items.sample]),
            found(asked, tables[1], elsewhere.group_of[first]))


def scores(pool: LabelledPair, side: str) -> tuple[np.ndarray, np.ndarray]:
    """Distances of the kept items (m,) and of the kept ones from elsewhere (q,)."""
    found: tuple[Nearest, Nearest] = getattr(pool._whole, f"ood_{side}_nearest")
    known, elsewhere = (part.distances(pool.kept, pool.settings.neighbours) for part in found)
    if not len(known) or not len(elsewhere):
        raise NotMeasured("nothing is left to score")
    return known, elsewhere


def placements(known: np.ndarray, elsewhere: np.ndarray) -> np.ndarray:
    """For each of the fewer, the share of the others that lie on its right side, ties as a half: their mean is the AUROC.

    ``known`` (m,) should score low, ``elsewhere`` (q,) high.

    >>> placements(np.array([0.1, 0.2, 0.3]), np.array([0.2, 0.9])).tolist()
    [0.5, 1.0]
    """
    if len(elsewhere) <= len(known):
        return _share_below(known, elsewhere)
    return 1 - _share_below(elsewhere, known)


def _share_below(these: np.ndarray, those: np.ndarray) -> np.ndarray:
    """The share of ``these`` (m,) below each of ``those`` (q,), equal ones as a half."""
    ordered = np.sort(these)
    counts = np.searchsorted(ordered, those, side="left") + np.searchsorted(ordered, those, side="right")
    return counts / (2 * len(these))


def accepted(known: np.ndarray, elsewhere: np.ndarray) -> np.ndarray:
    """Which of ``elsewhere`` (q,) score no higher than the threshold that keeps 95 % of ``known`` (m,).

    >>> accepted(np.arange(100.0), np.array([94.0, 95.0])).tolist()
    [True, False]
    """
    return elsewhere <= np.sort(known)[int(np.ceil(KEPT * len(known))) - 1]


def roc(known: np.ndarray, elsewhere: np.ndarray) -> Points:
    """Share of ``elsewhere`` that is found (y) over the share of ``known`` that is taken for it (x), at even steps of x.

    >>> roc(np.array([0.0, 1.0]), np.array([0.5, 2.0])).y.tolist()[::100]
    [0.5, 1.0, 1.0]
    """
    x = np.linspace(0, 1, POINTS)
    taken = np.floor(x * len(known) + 1e-9).astype(int)  # so many of the known ones lie above the threshold
    threshold = np.append(np.sort(known)[::-1], -np.inf)[taken]
    return Points(x, 1 - np.searchsorted(np.sort(elsewhere), threshold, side="right") / len(elsewhere))


def less(student: np.ndarray, teacher: np.ndarray) -> float:
    """The mean of ``student`` (n,) less that of ``teacher`` (n,).

    >>> less(np.array([0.5]), np.array([0.75]))
    -0.25
    """
    return float(np.mean(student) - np.mean(teacher))


def ood_count(pool: LabelledPair) -> int:
    """Items from elsewhere that are scored."""
    elsewhere: Pair | None = pool._whole.ood if isinstance(pool._whole, LabelledPair) else None
    if elsewhere is None:
        return 0
    return int(np.isin(elsewhere.teacher.group_of[elsewhere.teacher.items.first[: pool.settings.max_items]], pool.kept).sum())


attach(LabelledPair, "ood_count", ood_count)
WHAT = (("auroc", placements, "AUROC, from elsewhere", "higher",
         "Chance that an item from elsewhere is farther from the {}'s known items than one of these is (10th neighbour)."),
        ("fpr95", accepted, "FPR95, from elsewhere", "lower",
         "Share of items from elsewhere that pass for known on the {} where 95 % of the known ones do (10th neighbour)."))
for _side in ("teacher", "student"):
    attach(LabelledPair, f"ood_{_side}_nearest", lambda pool, side=_side: nearest(pool, side))
    attach(LabelledPair, f"ood_{_side}_scores", lambda pool, side=_side: scores(pool, side))
    attach(LabelledPair, f"ood_{_side}_roc", lambda pool, side=_side: roc(*getattr(pool, f"ood_{side}_scores")))
for _what, _function, _title, _better, _says in WHAT:
    for _side in ("teacher", "student"):
        attach(LabelledPair, f"ood_{_side}_{_what}",
               lambda pool, side=_side, function=_function: function(*getattr(pool, f"ood_{side}_scores")))
        measures.register(f"ood.{_side}.{_what}", unit="share", group="ood", interval="dependent", n="ood_count", title=_title,
                          percent=True, better=_better)(
            made(f"ood.{_side}.{_what}", share_right, [f"ood_{_side}_{_what}"], _says.format(_side)))
    _key = f"ood.{_what}_difference"
    measures.register(_key, unit="share", group="ood", interval="dependent", n="ood_count", title=f"{_title}, difference",
                      percent=True, better=_better)(
        made(_key, less, [f"ood_{side}_{_what}" for side in ("student", "teacher")],
             f"The student's {_what.upper()} less the teacher's."))


@curves.register("ood.teacher_roc", unit="share", group="ood")
def teacher_roc(ood_teacher_roc: Points) -> Points:
    """Share of items from elsewhere that the teacher's distances find, over the share of known items taken for such."""
    return ood_teacher_roc


@curves.register("ood.student_roc", unit="share", group="ood")
def student_roc(ood_student_roc: Points) -> Points:
    """Share of items from elsewhere that the student's distances find, over the share of known items taken for such."""
    return ood_student_roc
