"""The page's tables: python recipes.py FOLDER, which holds screen-SET and test-SET (runs or archives) and measured.jsonl.

`screening` is the rule by which the recipe was chosen, `judged` the paired comparisons on the test split with Holm over the
eight tests of a data set.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd

import distillscope
from distillscope.measure.intervals import holm
from distillscope.results.statistics import paired

WAYS = ("noise", "adamw", "muon")
SETS = ("digits", "cifar32", "photos96")
TUNED, PAPER, NOISY = "probe.student.accuracy", "paper.probe.student.accuracy", "noise=0.2"
ENDPOINTS = {"tuned probe": (TUNED, "clean", 100), "tuned probe at 0.2": (TUNED, NOISY, 100),
             "mapped recall at 1": ("mapped.recall_at_1", "clean", 100),
             "effective rank": ("student.effective_rank", "clean", 1)}
DESCRIBED = {"paper's probe": (PAPER, "clean", 100), "paper's probe at 0.2": (PAPER, NOISY, 100),
             "mapped R^2": ("mapped.teacher_r2", "clean", 1), "mapped rank": ("mapped.effective_rank", "clean", 1),
             "unmapped recall at 1": ("raw_recall", "clean", 100),
             "mean cosine": ("alignment.mean_cosine", "clean", 1)}
SECONDS = {"seconds": ("train.seconds", "clean", 1)}
ALPHA, TIE, MOST_TIME = 0.05, 0.5, 3.0


def measured(folder: Path, what: str) -> list[dict]:
    """The lines of measured.jsonl that measured.py wrote of ``what``; none where there is no file."""
    file = folder / "measured.jsonl"
    lines = [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []
    return [line for line in lines if line["measured"] == what]


def of_seeds(run: Path) -> pd.Series:
    """(arm, measure, condition, seed) -> value of the students, on the split that the run scores.

    With the recall that measured.py found of the run, as the measure `raw_recall`.
    """
    rows = distillscope.load_study(run).results
    found = rows[rows.student != "teacher"].groupby(["arm", "measure", "condition", "seed"]).value.mean()
    raw = {(v["arm"], "raw_recall", "clean", v["seed"]): v["recall_at_1"]
           for v in measured(run.parent, "recall") if v["run"] == run.name}
    return pd.concat([found, pd.Series(raw).rename_axis(found.index.names)]).sort_index() if raw else found


def arms_of(table: pd.Series) -> list[str]:
    """Arms in the order of the studies."""
    order = ("cosine", "cosine-longer", "control", "recipe", *(f"{o}-{w}" for o in ("cosine", "contrast") for w in WAYS))
    return [arm for arm in order if arm in table.index.get_level_values("arm")]


def values(table: pd.Series, arm: str, endpoint: str) -> pd.Series:
    """One number per seed: per cent, or dims."""
    measure, condition, times = {**ENDPOINTS, **DESCRIBED, **SECONDS}[endpoint]
    return times * table[arm, measure, condition]


def ratios(folder: Path) -> dict[str, dict[str, float]]:
    """Study's name -> arm -> processor time over plain cosine's."""
    found: dict[str, dict[str, float]] = {}
    for row in measured(folder, "processor time"):
        found.setdefault(row["study"], {})[row["arm"]] = row["ratio_to_cosine"]
    return found


def screening(folder: Path) -> tuple[pd.DataFrame, str]:
    """For each candidate its gain, recall and time on each data set, and the recipe that the rule takes."""
    columns: dict[tuple[str, str], dict[str, float]] = {}
    times = ratios(folder)
    for name in SETS:
        table = of_seeds(folder / f"screen-{name}")
        arms = arms_of(table)
        clean, noisy, recall, rank = ({a: values(table, a, e).mean() for a in arms} for e in ENDPOINTS)
        score = {a: (clean[a] + noisy[a]) / 2 for a in arms}
        columns |= {(name, "clean"): clean, (name, "noisy"): noisy, (name, "recall"): recall, (name, "rank"): rank,
                    (name, "gain"): {a: score[a] - score["cosine"] for a in arms},
                    (name, "time"): {a: times[f"recipes-screen-{name}"][a] for a in arms}}
    found = pd.DataFrame(columns)
    gain, time = found.xs("gain", axis=1, level=1), found.xs("time", axis=1, level=1)
    found["all", "gain"], found["all", "recall"] = gain.mean(axis=1), found.xs("recall", axis=1, level=1).mean(axis=1)
    found["all", "time"] = time.mean(axis=1)
    able = found.drop("cosine")[(gain > 0).all(axis=1).drop("cosine") & (time <= MOST_TIME).all(axis=1).drop("cosine")]
    if able.empty:
        return found, "cosine"
    near = able[able["all", "gain"] >= able["all", "gain"].max() - TIE]
    near = near[near["all", "recall"] >= near["all", "recall"].max() - 1]
    return found, str(near["all", "time"].idxmin())


def judged(run: Path) -> list[tuple[str, str, float, float, float, float, str]]:
    """(endpoint, rival, difference, low, high, Holm's p, verdict): recipe less rival, n seeds, on the test split."""
    table = of_seeds(run)
    pairs = {(e, rival): paired((values(table, "recipe", e) - values(table, rival, e)).tolist())
             for e in ENDPOINTS for rival in ("cosine", "cosine-longer")}
    adjusted = holm({pair: found.p() for pair, found in pairs.items()})
    out = []
    for (endpoint, rival), found in pairs.items():
        p = adjusted[endpoint, rival]
        verdict = "no significant difference" if p >= ALPHA else "better" if found.mean > 0 else "worse"
        out.append((endpoint, rival, found.mean, *found.interval(), p, verdict))
    return out


def described(run: Path, rival: str) -> dict[str, tuple[float, float, float]]:
    """Endpoint -> recipe less rival with its interval, for what is described and not tested."""
    table = of_seeds(run)
    found = {}
    for endpoint in {**ENDPOINTS, **DESCRIBED}:
        both = values(table, "recipe", endpoint) - values(table, rival, endpoint)
        found[endpoint] = paired(both.dropna().tolist())  # the control may have fewer seeds
    return {e: (f.mean, *f.interval()) for e, f in found.items()}


def main(folder: Path) -> None:
    if all((folder / f"screen-{name}").is_dir() for name in SETS):
        found, recipe = screening(folder)
        print(found.round(2).to_string(), f"\nchosen: {recipe}")
    for name in SETS:
        run = folder / f"test-{name}"
        if run.is_dir():
            table = of_seeds(run)
            arms = arms_of(table)
            print(f"\n{name}")
            means = {a: {e: values(table, a, e).mean() for e in {**ENDPOINTS, **DESCRIBED, **SECONDS}} for a in arms}
            print(pd.DataFrame(means).T.round(3).to_string())
            for endpoint, rival, mean, low, high, p, verdict in judged(run):
                print(f"{endpoint}, against {rival}: {mean:.2f} [{low:.2f}, {high:.2f}], p {p:.4f}: {verdict}")
            if "control" in arms:
                for endpoint, (mean, low, high) in described(run, "control").items():
                    print(f"{endpoint}, against control: {mean:.3f} [{low:.3f}, {high:.3f}]")


if __name__ == "__main__":
    np.set_printoptions(suppress=True)
    main(Path(sys.argv[1]))
