"""The tables of what stresses cost beside the teacher say what the measures say."""

from __future__ import annotations

import re

import pandas as pd
import pytest

from distillscope.report.context.study.damage import beside_teacher, corruption_table, of_suite
from distillscope.report.write import write_report
from distillscope.results.models import settings_of
from distillscope.results.robustness import against_teacher, mean_corruption_error
from distillscope.results.run import read_run
from distillscope.results.summary import Summary

SUITE = {"corruption=none": (0.9, 0.7), "corruption=fog/1": (0.8, 0.6), "corruption=fog/5": (0.5, 0.4),
         "corruption=snow/1": (0.7, 0.3)}
NOISE = {("accuracy", "noise_probe=0"): 0.7, ("clean_fit_accuracy", "noise_probe=0.2"): 0.3,
         ("accuracy", "noise_probe=0.2"): 0.5}


def stressed(folder, make, **more):
    """A run with corruptions and a noise probe of known accuracies; a seed's own luck is a hundredth of its rank."""
    run = make(folder, students=("S",), dim=24, epochs=1, **more)
    for path in [*run.glob("references/*/results.csv"), *run.glob("trials/*/results.csv")]:
        frame = pd.read_csv(path)
        head = frame.iloc[0].to_dict()
        teacher = head["student"] == "teacher"
        side, luck = ("teacher", 0.0) if teacher else ("student", 0.01 * [42, 123, 456].index(head["seed"]))
        rows = [{**head, "condition": c, "measure": f"paper.probe.{side}.accuracy", "value": v[not teacher] + luck, "n": 500}
                for c, v in SUITE.items()]
        rows += [{**head, "condition": c, "measure": f"noise_probe.paper.{side}.{what}", "value": v + luck, "n": 500}
                 for (what, c), v in NOISE.items()]
        pd.concat([frame, pd.DataFrame(rows)]).to_csv(path, index=False)
    return run


def parts(folder):
    run = read_run(folder)
    return run, settings_of(run), Summary.of(run)


def test_the_numbers_are_those_of_the_measures(tmp_path, make):
    run, (setting,), _ = parts(stressed(tmp_path / "run", make))
    found = of_suite(setting.students[0], corruption_table(run, "paper.probe"))
    assert found["accuracy"].mean == pytest.approx((0.6 + 0.4 + 0.3) / 3 + 0.01) and found["accuracy"].n_seeds == 3
    assert found["accuracy"].n == 500
    teacher = [[0.8, 0.5], [0.7]]
    errors = [sum((1 - s).sum() / (1 - t).sum() for s, t in ((pd.Series([0.6, 0.4]) + k, pd.Series([0.8, 0.5])),
                                                             (pd.Series([0.3]) + k, pd.Series([0.7])))) / 2
              for k in (0.0, 0.01, 0.02)]
    assert found["error"].mean == pytest.approx(sum(errors) / 3)
    assert errors[0] == pytest.approx((mean_corruption_error([[0.6, 0.4]],
                                                             teacher[:1]) + mean_corruption_error([[0.3]], teacher[1:])) / 2)
    table = against_teacher(run.results)
    own = table[table["condition"].str.contains("/")].groupby("seed")["relative_retention"].mean()
    assert found["relative_retention"].mean == pytest.approx(own.mean())


def test_the_page_has_both_tables(tmp_path, make):
    page = write_report(stressed(tmp_path / "run", make, arms=("cosine", "<b>bold"))).read_text()
    assert "&lt;b&gt;bold" in page and "<b>bold" not in page.partition('<script type="application/json"')[0]
    assert "Common corruptions beside the teacher" in page
    assert "Means over 3 corruptions and severities, on 500 test images" in page
    start = page.index("What noise moves")
    section = re.sub(r"<small>.*?</small>|<[^>]+>", " ", page[start:start + 4000])
    assert re.search(r"teacher\s+0\.2\s+70\.0\s+30\.0\s+20\.0\s+20\.0\s+1", section)
    assert re.search(r"S\s+0\.2\s+71\.0\s+31\.0\s+20\.0\s+20\.0\s+3", section)


def test_a_run_without_them_has_neither(tmp_path, make):
    assert not beside_teacher(*parts(make(tmp_path / "run", students=("S",), dim=24, epochs=1)))
    assert not beside_teacher(*parts(make(tmp_path / "bare", students=("S",), labels=False, dim=24, epochs=1)))
