"""Statistics over seeds, against SciPy, and the pairing that they rest on."""

from __future__ import annotations

import json
import math
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from distillscope.report.figures.noise import crossovers, paired_difference
from distillscope.results.models import settings_of
from distillscope.results.rows import Condition
from distillscope.results.run import read_run
from distillscope.results.summary import Summary, statistic, summarise, teacher_key


def test_the_interval_is_student_t():
    values = [15.2, 16.1, 15.7, 16.4]
    found = statistic(values)
    low, high = stats.t.interval(0.95, 3, loc=np.mean(values), scale=stats.sem(values))
    assert (found.low, found.high) == pytest.approx((low, high), rel=1e-12)
    assert found.std == pytest.approx(np.std(values, ddof=1))
    assert found.std_population == pytest.approx(np.std(values))


def test_draws_are_averaged_inside_a_seed_first(reported):
    results = read_run(reported).all_results
    wanted = "student == 'S' and arm == 'cosine' and measure == 'paper.probe.student.accuracy' and condition == 'noise=0.1'"
    rows = results.query(wanted)
    by_hand = rows.groupby("seed")["value"].mean()
    found = summarise(results).query(wanted).iloc[0]
    assert len(rows) == 6 and found["n_seeds"] == 3
    assert found["mean"] == pytest.approx(by_hand.mean())
    assert found["std"] == pytest.approx(by_hand.std(ddof=1))  # not the spread over all six draws
    assert found["seeds"] == [42, 123, 456]


def test_rank_of_the_mean_spectrum_is_its_own_quantity(reported):
    run = read_run(reported)
    rows = Summary.of(run).frame.query("student == 'M' and arm == 'cosine'")
    spectra = [json.loads((reported / "trials" / t.folder / "curves.json").read_text())["student.spectrum"]["y"]
               for t in run.trials if t.student == "M" and t.arm == "cosine"]
    p = np.mean(spectra, axis=0) ** 2
    p /= p.sum()
    found = rows.query("measure == 'student.effective_rank_of_mean_spectrum'")["mean"].item()
    assert found == pytest.approx(np.exp(stats.entropy(p)), rel=1e-9)
    assert found != pytest.approx(rows.query("measure == 'student.effective_rank'")["mean"].item(), rel=1e-6)


def test_a_teacher_has_no_seeds(reported):
    run = read_run(reported)
    summary, setting = Summary.of(run), settings_of(run)[0]
    assert [t.label for t in setting.teachers] == ["teacher (pca512)", "teacher (raw)"]
    found = summary.get(setting.reference, "student.effective_rank")
    assert found.n_seeds == 1 and math.isnan(found.low)


def test_models_are_paired_by_seed(make, tmp_path):
    run = read_run(make(tmp_path / "run", incomplete=[("cosine", "S", 42)]))
    summary, setting = Summary.of(run), settings_of(run)[0]
    small, large = setting.students[0], setting.students[-1]
    key = "student.effective_rank"
    found = paired_difference(summary, large, small, key, "clean")
    values = {m.student: summary.per_seed(m, key) for m in (small, large)}
    assert found.n_seeds == 2
    assert found.mean == pytest.approx(np.mean([values["L"][s] - values["S"][s] for s in (123, 456)]))


def test_the_crossover_is_where_the_lines_meet(reported):
    run = read_run(reported)
    summary, setting = Summary.of(run), settings_of(run)[0]
    key = "paper.probe.student.accuracy"
    found = crossovers(setting, summary, key)
    small, large = (m for m in setting.students if m.arm == "cosine" and m.student in "SL")
    sigmas = [c.sigma for c in summary.conditions()]
    gap = [summary.get(small, key, c).mean - summary.get(large, key, c).mean for c in summary.conditions()]
    assert len(found) == sum(a * b < 0 for a, b in pairwise(gap)) > 0
    assert np.interp(found[0].sigma, sigmas, gap) == pytest.approx(0, abs=1e-12)


def test_keys():
    assert teacher_key("paper.probe.student.accuracy") == "paper.probe.teacher.accuracy"
    assert [Condition.parse(c).sigma for c in ("clean", "noise=0.05", "noise=x", "fog=3")] == [0.0, 0.05, None, None]
    assert len(summarise(pd.DataFrame(columns=read_columns()))) == 0


def read_columns():
    from distillscope.results.run import COLUMNS

    return COLUMNS
