"""Four conditions on a finished run, with paired 95 % t intervals: python conditions.py RUN [ARM ...].

(a) rank at least four times the plain cosine student's; (b) a twentieth of its loss of accuracy at sigma 0.2; (c) 60 % of its
clean gap to the whole teacher (all its dims) closed, in both probes; (d) better than the student trained with labels, clean and
at sigma 0.2. Each is written as a quantity that must lie above 0, per seed; it is met where its whole interval does.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pandas as pd

import distillscope
from distillscope.results.statistics import paired

PROBES = {"paper's": "paper.probe", "tuned": "probe"}

def quantities(of, teacher, plain: str, labels: str, arm: str) -> dict[str, pd.Series]:
    """Condition -> one number per seed. ``of(arm, measure, condition)`` is a series over seeds."""
    found = {"(a) rank - 4 x cosine's": of(arm, "student.effective_rank") - 4 * of(plain, "student.effective_rank")}
    for title, head in PROBES.items():
        measure = f"{head}.student.accuracy"
        clean, noisy = (lambda a, m=measure: of(a, m)), (lambda a, m=measure: of(a, m, "noise=0.2"))
        gap = teacher(f"{head}.teacher.accuracy") - clean(plain)
        lost, own = clean(plain) - noisy(plain), clean(arm) - noisy(arm)
        found[f"(b) loss of cosine / 20 - own loss, points, {title} probe"] = 100 * (lost / 20 - own)
        found[f"(c) share of the gap closed - 60 %, points, {title} probe"] = 100 * ((clean(arm) - clean(plain)) / gap - 0.6)
        found[f"(d) clean - that of labels, points, {title} probe"] = 100 * (clean(arm) - clean(labels))
        found[f"(d) at sigma 0.2 - that of labels, points, {title} probe"] = 100 * (noisy(arm) - noisy(labels))
    return found

def main(run: Path, arms: list[str]) -> None:
    results = distillscope.load_study(run).results  # of the test split alone
    table = results.groupby(["arm", "measure", "condition", "seed"]).value.mean()
    reference = results[results.measure.str.endswith("teacher.accuracy") & (results.condition == "clean")]
    reference = reference.drop_duplicates("measure").set_index("measure").value
    for arm in arms or [a for a in results.arm.unique() if a not in ("", "cosine", "labels")]:
        print(f"\n{arm}")
        for name, values in quantities(lambda a, m, c="clean": table[a, m, c], reference.get, "cosine", "labels", arm).items():
            found = paired(values.dropna().tolist())
            low, high = found.interval()
            verdict = "met" if low > 0 else "missed" if high < 0 else "not told"
            print(f"{name}: {found.mean:.2f} [{low:.2f}, {high:.2f}], n {found.n}: {verdict}")

if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
