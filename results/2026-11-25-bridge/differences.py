"""S, L, and both at 64 px: clean, noisy and the differences, paired 95 % t intervals: python differences.py RUN."""

from __future__ import annotations

import sys
from pathlib import Path

import distillscope
from distillscope.results.statistics import paired

PROBE, LEVELS = "paper.probe.student.accuracy", ("clean", "noise=0.1", "noise=0.2")


def said(values) -> str:
    found = paired(values.tolist())
    return "{:.1f} [{:.1f}, {:.1f}]".format(found.mean, *found.interval())


results = distillscope.load_study(Path(sys.argv[1])).results
table = results.groupby(["student", "measure", "condition", "seed"]).value.mean()
for name in ("S", "L", "S at 64 px", "L at 64 px"):
    print(f"{name}: rank {said(table[name, 'student.effective_rank', 'clean'])}; accuracy",
          *(said(100 * table[name, PROBE, c]) for c in LEVELS), sep=" | ")
for a, b in (("S", "L"), ("S at 64 px", "L at 64 px"), ("S at 64 px", "S"), ("L at 64 px", "L")):
    print(f"{a} - {b}, points", *(said(100 * (table[a, PROBE, c] - table[b, PROBE, c])) for c in LEVELS), sep=" | ")
teacher = results[(results.measure == "paper.probe.teacher.accuracy") & (results.target == "pca512")]
print("teacher", *(f"{100 * v:.1f}" for v in teacher.value), sep=" | ")
