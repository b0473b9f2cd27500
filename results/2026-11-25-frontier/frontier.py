"""The four conditions over the number of training images: python frontier.py RUN RUN ... [--out frontier.png].

Runs on as many images are read as one (its arms may stand in several). Printed are the differences of conditions.py with paired
95 % t intervals and their verdicts; drawn are the ratios and differences that are easier to read.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "2026-11-25-four"))

import matplotlib.pyplot as plt
import pandas as pd
from conditions import quantities

import distillscope
from distillscope.results.statistics import paired

ARMS = {"contrast": "#0072B2", "contrast+half": "#009E73", "similarity": "#D55E00", "similarity+half": "#CC79A7"}
PROBES = {"paper's probe": "paper.probe", "tuned probe": "probe"}
PANELS = {"(a) rank, multiple of cosine's": 4.0, "(b) loss at sigma 0.2, % of cosine's": 5.0,
          "(c) gap to the teacher closed, %": 60.0, "(d) clean, minus labels, points": 0.0,
          "(d) at sigma 0.2, minus labels, points": 0.0}

def read(run: Path) -> tuple[int, pd.Series, pd.Series]:
    """Training images, the students' table by arm, measure, condition and seed, the teacher's accuracies by measure."""
    study = distillscope.load_study(run)
    results = study.results  # of the test split alone
    of_teacher = results.measure.str.endswith("teacher.accuracy") & (results.condition == "clean")
    teacher = results[of_teacher].drop_duplicates("measure")
    return (study.study.limit or 50_000) - study.study.validation, \
        results.groupby(["arm", "measure", "condition", "seed"]).value.mean(), teacher.set_index("measure").value

def gathered(runs: list[Path]) -> list[tuple[int, pd.Series, pd.Series]]:
    """One table for each number of images, the first run's numbers where two have the same trial."""
    found: dict[int, tuple[pd.Series, pd.Series]] = {}
    for images, table, teacher in map(read, runs):
        before = found.get(images)
        joined = table if before is None else pd.concat([before[0], table[~table.index.isin(before[0].index)]]).sort_index()
        found[images] = (joined, teacher if before is None else before[1])
    return [(images, *found[images]) for images in sorted(found)]

def drawn(table: pd.Series, teacher: pd.Series, arm: str, head: str) -> dict[str, pd.Series]:
    """Panel -> one number per seed."""
    def accuracy(a: str, condition: str = "clean") -> pd.Series:
        return table[a, f"{head}.student.accuracy", condition]

    def lost(a: str) -> pd.Series:
        return accuracy(a) - accuracy(a, "noise=0.2")

    gap = teacher[f"{head}.teacher.accuracy"] - accuracy("cosine")
    rank = table[arm, "student.effective_rank", "clean"] / table["cosine", "student.effective_rank", "clean"]
    values = (rank, 100 * lost(arm) / lost("cosine"), 100 * (accuracy(arm) - accuracy("cosine")) / gap,
              100 * (accuracy(arm) - accuracy("labels")), 100 * (accuracy(arm, "noise=0.2") - accuracy("labels", "noise=0.2")))
    return dict(zip(PANELS, values, strict=True))

def main(runs: list[Path], out: Path | None) -> None:
    tested, points = [], []
    for images, table, teacher in gathered(runs):
        for arm in (a for a in ARMS if a in table.index.get_level_values("arm")):
            of = lambda a, measure, condition="clean", t=table: t[a, measure, condition]  # noqa: E731
            for condition, values in quantities(of, teacher.get, "cosine", "labels", arm).items():
                found = paired(values.dropna().tolist())
                low, high = found.interval()
                tested.append((condition, arm, images, f"{found.mean:.2f} [{low:.2f}, {high:.2f}] "
                               + ("met" if low > 0 else "missed" if high < 0 else "not told") + f", n {found.n}"))
            for probe, head in PROBES.items():
                for panel, values in drawn(table, teacher, arm, head).items():
                    found = paired(values.dropna().tolist())
                    points.append((panel, probe, arm, images, found.mean, *found.interval()))
    shown = pd.DataFrame(tested, columns=["condition", "arm", "images", "text"])
    with pd.option_context("display.width", 250, "display.max_colwidth", 60):
        table = shown.pivot_table(index=["condition", "arm"], columns="images", values="text", aggfunc="first", sort=False)
        print(table.fillna("-").to_string())
        ratios = pd.DataFrame(points, columns=["panel", "probe", "arm", "images", "mean", "low", "high"])
        table = ratios.pivot_table(index=["panel", "probe", "arm"], columns="images", values="mean", sort=False)
        print(table.round(2).to_string())
    if out:
        draw(ratios, out)

def draw(points: pd.DataFrame, out: Path) -> None:
    figure, axes = plt.subplots(2, len(PANELS), figsize=(15, 5.2), layout="constrained", sharex=True)
    counts = sorted(points.images.unique())
    for row, probe in zip(axes, PROBES, strict=True):
        for axis, (panel, bound) in zip(row, PANELS.items(), strict=True):
            axis.axhline(bound, color="grey", linewidth=1, linestyle=":")
            for i, (arm, colour) in enumerate(ARMS.items()):
                part = points[(points.panel == panel) & (points.probe == probe) & (points.arm == arm)]
                axis.errorbar(part.images * 1.05 ** (i - 1.5), part["mean"],
                              [part["mean"] - part.low, part.high - part["mean"]], color=colour, marker="o", markersize=4,
                              capsize=3, linewidth=1, label=arm)
            axis.set_xscale("log")
            axis.set_xticks(counts, [f"{n:,}" for n in counts])
            axis.minorticks_off()
            axis.set_title(f"{panel}\n{probe}", fontsize=8)
    figure.supxlabel("training images; dotted: the bound", fontsize=9)
    figure.legend(*axes[0][0].get_legend_handles_labels(), loc="outside upper center", ncols=len(ARMS), fontsize=8,
                  frameon=False)
    figure.savefig(out, dpi=100)

if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    main(given.runs, given.out)
