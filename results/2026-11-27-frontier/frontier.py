"""The frontier of 2026-11-27: what was chosen on held-out images, and what the run on fresh seeds says.

    python frontier.py choose SCREEN [SCREEN-ENSEMBLE] --write FOLDER   # the screen's table, and the studies to run next
    python frontier.py tables RUN [RUN-ENSEMBLE]                        # the tables of the page

Every row is one number per seed; arms are paired by seed, intervals are t over seeds.
"""

from __future__ import annotations

import argparse
import importlib.util
from pathlib import Path

import pandas as pd
import yaml

import distillscope
from distillscope.measure.intervals import holm
from distillscope.results.statistics import paired

HERE = Path(__file__).parent
BASE = ("cosine", "labels", "cosine-recipe", "contrast", "similarity")
BEST, PLAIN, SAME, TWIN = "contrast", "cosine", "cosine-recipe", "+half"
RANK, PAPER, TUNED = "student.effective_rank", "paper.probe.student.accuracy", "probe.student.accuracy"
NOISE, CHOSEN, SEEDS = "noise=0.2", 2, list(range(31, 41))
ENDPOINTS = {"rank": (RANK, 1, 1), "tuned probe, clean": (TUNED, 100, 2), "paper's probe, clean": (PAPER, 100, 2),
             "nearest neighbours": ("knn.student.accuracy", 100, 2), "recall at 1, mapped": ("mapped.recall_at_1", 100, 2)}
"""Title -> measure, what it is multiplied by, decimals."""


def conditions():
    """The four conditions, as they were written for 2026-11-25."""
    path = HERE.parent / "2026-11-25-four" / "conditions.py"
    spec = importlib.util.spec_from_file_location("four_conditions", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def of_seeds(runs: list[Path]) -> tuple[pd.Series, dict[str, float]]:
    """(arm, measure, condition, seed) -> value on the test images; and what the first run says of its whole teacher, clean."""
    tables, teacher = [], {}
    for run in runs:
        results = distillscope.load_study(run).results
        tables.append(results[results.student != "teacher"].groupby(["arm", "measure", "condition", "seed"]).value.mean())
        whole = results[(results.student == "teacher") & (results.target == "none") & (results.condition == "clean")]
        teacher = teacher or dict(zip(whole.measure, whole.value, strict=True))
    return pd.concat(tables).sort_index(), teacher


def clean(table: pd.Series, arm: str) -> pd.Series:
    """Mean of both probes, in per cent."""
    return 50 * (table[arm, TUNED, "clean"] + table[arm, PAPER, "clean"])


def lost(table: pd.Series, arm: str) -> pd.Series:
    """What it loses under noise, points, mean of both probes."""
    return clean(table, arm) - 50 * (table[arm, TUNED, NOISE] + table[arm, PAPER, NOISE])


def arms_of(table: pd.Series) -> list[str]:
    """Trained arms, in the order of BASE and then of the ideas' names."""
    named = [a for a in table.index.get_level_values("arm").unique() if TWIN not in a]
    return [a for a in BASE if a in named] + sorted(set(named) - set(BASE))


def screened(runs: list[Path]) -> tuple[list[list[object]], list[str]]:
    """A row an arm (name, rank, of its twin over cosine's, probes, what noise takes), and the ideas that go on."""
    table, _ = of_seeds(runs)
    rows, fit = [], {}
    for arm in arms_of(table):
        times = float((table[arm + TWIN, RANK, "clean"] / table[PLAIN, RANK, "clean"]).mean()) if (
            arm + TWIN in table.index.get_level_values("arm")) else float("nan")
        loss = float(lost(table, arm).mean())
        rows.append([arm, float(table[arm, RANK, "clean"].mean()), times, *(100 * float(table[arm, m, "clean"].mean())
                                                                            for m in (TUNED, PAPER)), loss])
        if arm not in BASE and times >= 4 and loss <= float(lost(table, BEST).mean()) + 0.5:
            fit[arm] = float(clean(table, arm).mean())
    return rows, sorted(fit, key=lambda arm: -fit[arm])[:CHOSEN]


def write_studies(chosen: list[str], folder: Path) -> list[Path]:
    """The run's study, and that of the ensemble where it was chosen: the screen's, with fresh seeds, on the test images."""
    folder.mkdir(parents=True, exist_ok=True)
    made = []
    for name, kept in (("screen", [*BASE, *(a for a in chosen if a != "ensemble")]), ("screen-ensemble", ["ensemble"])):
        if name == "screen-ensemble" and "ensemble" not in chosen:
            continue
        study = yaml.safe_load((HERE / f"{name}.yaml").read_text(encoding="utf-8"))
        title = name.replace("screen", "frontier")
        study |= {"name": title, "description": f"{', '.join(kept)} on fresh seeds; chosen by frontier.py on held-out images",
                  "seeds": SEEDS, "arms": [a for a in study["arms"] if a["name"] in kept], "limit": 11000, "limit_test": 5000}
        del study["screen"]
        path = folder / f"{title}.yaml"
        path.write_text(yaml.safe_dump(study, sort_keys=False), encoding="utf-8")
        made.append(path)
    return made


def run_rows(runs: list[Path]) -> list[list[object]]:
    """Name, then means over seeds: rank, R^2 and recall after the ridge map, both probes clean and noisy; twins too."""
    table, _ = of_seeds(runs)
    keys = [(RANK, "clean", 1), ("mapped.teacher_r2", "clean", 1), ("mapped.recall_at_1", "clean", 100),
            *((m, c, 100) for m in (PAPER, TUNED) for c in ("clean", NOISE))]
    named = set(table.index.get_level_values("arm"))
    return [[arm, *(scale * float(table[arm, m, c].mean()) for m, c, scale in keys)]
            for one in arms_of(table) for arm in (one, one + TWIN) if arm in named]


def loss_alone(runs: list[Path]) -> list[list[object]]:
    """What each loss wins over cosine under the same recipe, and the recipe over plain cosine: endpoint by endpoint.

    (name, endpoint, mean, low, high, p). p of the first endpoint but rank is Holm's over the losses.
    """
    table, _ = of_seeds(runs)
    pairs = [(arm, SAME) for arm in ("contrast", "similarity", "labels")] + [(SAME, PLAIN)]
    found = {(arm, title): paired((scale * (table[arm, key, "clean"] - table[base, key, "clean"])).dropna().tolist())
             for arm, base in pairs for title, (key, scale, _) in ENDPOINTS.items()}
    p = {key: test.p() for key, test in found.items()}
    first = "tuned probe, clean"
    adjusted = holm({(arm, first): p[arm, first] for arm, base in pairs if base == SAME})
    return [[*key, test.mean, *test.interval(), {**p, **adjusted}[key]] for key, test in found.items()]


def condition_rows(runs: list[Path]) -> list[list[object]]:
    """(arm, condition, mean, low, high, verdict) of contrast and of the chosen ideas, each with its half-whitened twin."""
    table, teacher = of_seeds(runs)
    rows = []
    for arm in (a + TWIN for a in arms_of(table) if a == BEST or a not in BASE):
        of = lambda a, measure, condition="clean": table[a, measure, condition]  # noqa: E731
        for title, values in conditions().quantities(of, teacher.get, PLAIN, "labels", arm).items():
            test = paired(values.dropna().tolist())
            low, high = test.interval()
            rows.append([arm, title, test.mean, low, high, "met" if low > 0 else "missed" if high < 0 else "undecided"])
    return rows


def printed(heads: list[str], rows: list[list[object]], digits: int = 2) -> str:
    """A Markdown table."""
    def cell(value: object) -> str:
        return value if isinstance(value, str) else f"{value:.{digits}f}"

    lines = ["| " + " | ".join(heads) + " |", "| --- |" + " ---: |" * (len(heads) - 1)]
    return "\n".join([*lines, *("| " + " | ".join(map(cell, row)) + " |" for row in rows)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["choose", "tables"])
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--write", type=Path, help="folder for the studies to run next")
    given = parser.parse_args()
    if given.what == "choose":
        rows, chosen = screened(given.runs)
        print(printed(["arm", "rank", "twin, x cosine's", "tuned probe", "paper's probe", "lost at 0.2"], rows))
        print(f"\nChosen: {', '.join(chosen) or 'none, since no idea keeps rank and robustness'}")
        for path in write_studies(chosen, given.write) if given.write else ():
            print(path)
        return
    heads = ["arm", "rank", "R^2, mapped", "recall at 1, mapped", "paper's clean", "0.2", "tuned clean", "0.2"]
    print(printed(heads, run_rows(given.runs)))
    print("\n" + printed(["arm", "endpoint", "difference", "low", "high", "p"], loss_alone(given.runs), 3))
    print("\n" + printed(["arm", "condition", "mean", "low", "high", "verdict"], condition_rows(given.runs)))


if __name__ == "__main__":
    main()
