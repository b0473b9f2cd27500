"""How often `recommend` excludes an arm wrongly, and what the interval of the arm that reads best covers.

    python benchmarks/recommend_error.py [R]

Arms of one truth, the first of them the plain one, whose seeds share their luck; the spread of an arm is 1, or drawn for each
(log-normal, 0.5). Printed for each number of arms and seeds, in per cent of R families: some arm excluded (the family-wise
error), before (Holm over the best against the others, until 2026-11-26) and now (Shaffer over all pairs); and how often the
best arm's difference to the plain one is covered, by its own 95 % interval and by the one for all arms at once. Truth: 5 at
most, 95 at least.
"""

from __future__ import annotations

import itertools
import sys

import numpy as np
import pandas as pd
from scipy.stats import t

from distillscope.advice.rank import leading
from distillscope.measure.intervals import holm
from distillscope.results.statistics import ALPHA, all_pairs

DRAWS = {"normal": lambda rng, shape: rng.normal(size=shape), "t, 3 df": lambda rng, shape: rng.standard_t(3, size=shape),
         "skewed": lambda rng, shape: rng.exponential(size=shape) - 1}

def p_of(difference: np.ndarray) -> float:
    error = difference.std(ddof=1) / np.sqrt(len(difference))
    return 2 * float(t.sf(abs(difference.mean()) / error, len(difference) - 1))

def family(rng: np.random.Generator, draw, arms: int, seeds: int, uneven: bool) -> tuple[bool, bool, bool, bool]:
    spread = np.exp(rng.normal(0, 0.5, arms)) if uneven else np.ones(arms)
    scores = rng.normal(size=(seeds, 1)) + spread * draw(rng, (seeds, arms))
    best = int(scores.mean(axis=0).argmax())
    ps = {(str(i), str(j)): p_of(scores[:, i] - scores[:, j]) for i, j in itertools.combinations(range(arms), 2)}
    before = min(holm({pair: p for pair, p in ps.items() if str(best) in pair}).values()) < ALPHA
    now = min(all_pairs(ps).values()) < ALPHA
    if arms <= 5 and rng.random() < 0.02:  # what was counted is what the command does
        frames = {str(i): pd.Series(scores[:, i]) for i in range(arms)}
        assert now == (len(leading(sorted(frames, key=lambda n: -frames[n].mean()), frames)[0]) < arms)
    if best == 0:
        return before, now, True, True
    gained = scores[:, best] - scores[:, 0]
    error = gained.std(ddof=1) / np.sqrt(seeds)
    own, at_once = (abs(gained.mean()) / error < t.ppf(1 - alpha / 2, seeds - 1) for alpha in (ALPHA, ALPHA / (arms - 1)))
    return before, now, bool(own), bool(at_once)

def main(count: int) -> None:
    for name, uneven in (("normal", False), ("normal", True), ("t, 3 df", True), ("skewed", True)):
        for seeds in (5, 10):
            for arms in (3, 5, 8, 14):
                rng = np.random.default_rng([arms, seeds])
                found = np.array([family(rng, DRAWS[name], arms, seeds, uneven) for _ in range(count)])
                shown = " | ".join(f"{100 * x:.1f}" for x in found.mean(axis=0))
                print(f"{name}{', uneven' if uneven else ''} | n {seeds} | k {arms} | {shown}", flush=True)

if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 2000)
