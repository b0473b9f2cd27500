"""collapse: is there one rank that students of every size fall to, and stay at?"""

from __future__ import annotations

import numpy as np
import pandas as pd

from distillscope.claims.results import RANK, Results, Undecided
from distillscope.claims.statements import Endpoint, Statement, all_of, below, same
from distillscope.claims.verdict import Finding, Secondary, secondary
from distillscope.registry import claims
from distillscope.results.arms import Arm
from distillscope.results.statistics import paired

COLLAPSED, MARGIN = 0.5, 0.1


@claims.register("collapse", sentence="Students of every size collapse to the same low rank, a fixed bottleneck.", seeds=5)
def collapse(results: Results) -> Finding:
    """Students of every size collapse to the same low rank, a fixed bottleneck.

    All three must hold, for the plain arm and effective rank (s^2, centred, test):

    1. collapsed: the largest student's rank is below half of its target's (paired t against that half);
    2. the same: the largest and the smallest student's ranks are within 10 % of the smallest's (paired TOST);
    3. fixed: the smallest student's rank under the longest training is within 10 % of that under the shortest (paired TOST).
       Where all were trained equally long, its rank at the last epoch is compared with that at half of the epochs
       (held-out images of the training log).

    Supported where all are shown; refuted where one is shown to be false (Bonferroni over the three).
    """
    arm = results.baseline()
    sizes = results.sizes(arm)
    small, large = sizes[0], sizes[-1]
    target = results.teacher_values("teacher.effective_rank", target=results.target_title(arm))
    if target.empty:
        raise Undecided("the target's own rank was not measured")
    ranks = {label: results.values(arm, label, RANK) for label in sizes}
    of_large, of_small = results.together(f"rank of {large} and {small}", ranks[large], ranks[small])
    limit = COLLAPSED * float(target.mean())
    statement = all_of([
        below(f"{large} fills {of_large.mean():.1f} dimensions, less than half of its target's {target.mean():.1f}",
              f"{large} fills {of_large.mean():.1f} dimensions, more than half of its target's {target.mean():.1f}",
              Endpoint(f"rank of {large}", "dims"), paired(of_large), limit),
        same(f"{large} fills {of_large.mean():.1f} and {small} {of_small.mean():.1f} dimensions, the same within 10 %",
             f"rank grows with size: {small} fills {of_small.mean():.1f}, {large} {of_large.mean():.1f} dimensions"
             if of_large.mean() > of_small.mean() else
             f"rank falls with size: {small} fills {of_small.mean():.1f}, {large} {of_large.mean():.1f} dimensions",
             Endpoint(f"rank of {large} - rank of {small}", "dims"), of_large, of_small, MARGIN),
        growth(results, arm, small),
    ], text=f"{small} and {large} collapse to about {(of_small.mean() + of_large.mean()) / 2:.0f} dimensions and stay there")
    return Finding(statement, ("figure effective_rank", "figure training", f"{RANK}, clean, arm {arm.name}"),
                   {"students": ", ".join(sizes), "objective": arm.objective},
                   secondary=tuple(beside(results, arm, sizes, ranks)))


def growth(results: Results, arm: Arm, student: str) -> Statement:
    """Whether the rank stays with more training: longest against shortest arm, else last epoch against half way."""
    budgets = sorted([a for a in results.arms if a.only_epochs_differ(arm)] + [arm], key=lambda a: a.epochs)
    ranks = [results.values(a, student, RANK) for a in budgets]
    known = [(a.epochs, r) for a, r in zip(budgets, ranks, strict=True) if len(r) >= results.needed]
    if len(known) < 2:
        return half_way(results, arm, student)
    return settled_rank(results, student, *known[0], *known[-1])


def half_way(results: Results, arm: Arm, student: str) -> Statement:
    """Whether the rank no longer grows within one training: the last epoch against half of the epochs, from the log."""
    log = results.epochs(arm, student)
    if not len(log) or "effective_rank" not in log or log["epoch"].max() < 2:
        raise Undecided(f"whether the rank of {student} still grows is not known: no arm that differs in its epochs alone, and "
                        "no training log of two epochs or more")
    end = int(log["epoch"].max())
    begin = max(1, end // 2)
    first, last = (log[log["epoch"] == e].set_index("seed")["effective_rank"].astype(float) for e in (begin, end))
    return settled_rank(results, student, begin, first, end, last)


def settled_rank(results: Results, student: str, begin: int, first: pd.Series, end: int, last: pd.Series) -> Statement:
    """Whether ranks after ``end`` epochs are those after ``begin``."""
    after, before = results.together(f"rank of {student} after {begin} and {end} epochs", last, first)
    words = f"{before.mean():.1f} dimensions after {begin} epochs, {after.mean():.1f} after {end}"
    return same(f"{student} no longer gains rank: {words}", f"the rank of {student} is not fixed: {words}",
                Endpoint(f"rank of {student} after {end} epochs - after {begin}", "dims"), after, before, MARGIN)


def beside(results: Results, arm: Arm, sizes: list[str], ranks: dict[str, pd.Series]) -> list[Secondary]:
    """Rank per doubling of the parameters; and whether one rising curve of rank over R^2 holds all sizes and epochs."""
    found = []
    trend = slopes(results, arm, sizes, ranks)
    if len(trend) > 1:
        found.append(secondary("rank gained per doubling of the parameters", paired(trend), "dims"))
    explained = one_curve(results, arm, sizes)
    if len(explained) > 1:
        found.append(secondary("share of the rank's variance over sizes and epochs that one rising curve over R^2 explains",
                               paired(explained), "share", tested=False))
    return found


def slopes(results: Results, arm: Arm, sizes: list[str], values: dict[str, pd.Series]) -> np.ndarray:
    """Per seed, the least-squares slope of a quantity over log2 of the parameters, over the seeds that all sizes share."""
    x = np.log2([float(results.values(arm, s, "capacity.parameters").iloc[0]) for s in sizes])
    if np.ptp(x) == 0:
        return np.array([])
    table = pd.concat([values[s] for s in sizes], axis=1, join="inner").dropna().to_numpy(float)
    return (table - table.mean(axis=1, keepdims=True)) @ (x - x.mean()) / np.square(x - x.mean()).sum()


def one_curve(results: Results, arm: Arm, sizes: list[str]) -> np.ndarray:
    """Per seed, the share of the rank's variance that an isotonic regression on R^2 explains, sizes and epochs pooled."""
    from sklearn.isotonic import IsotonicRegression

    logs = [log for s in sizes if len(log := results.epochs(arm, s)) and {"teacher_r2", "effective_rank"} <= set(log)]
    if not logs:
        return np.array([])
    shares = []
    for _, rows in pd.concat(logs).dropna(subset=["teacher_r2", "effective_rank"]).groupby("seed"):
        x, y = rows["teacher_r2"].to_numpy(float), rows["effective_rank"].to_numpy(float)
        if len(x) > 2 and np.ptp(y) > 0:
            fitted = IsotonicRegression(out_of_bounds="clip").fit_transform(x, y)
            shares.append(1 - np.square(y - fitted).sum() / np.square(y - y.mean()).sum())
    return np.array(shares)
