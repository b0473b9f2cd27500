"""Tests on per-seed numbers and the summary over seeds, against SciPy, brute force and simulation."""

from __future__ import annotations

import itertools
import json
import math
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from distillscope.measure.intervals import holm
from distillscope.report.figures.noise import crossovers
from distillscope.results.keys import teacher_key
from distillscope.results.models import settings_of
from distillscope.results.rows import Condition
from distillscope.results.run import read_run
from distillscope.results.statistics import (
    Contrast,
    all_pairs,
    paired,
    power_of,
    seeds_for,
    sign_flip_p,
    smallest_effect,
    tost,
    welch,
    welch_from_summaries,
)
from distillscope.results.summary import Summary, statistic, summarise

RNG = np.random.default_rng(0)
A, B = RNG.normal(1.0, 2.0, 9), RNG.normal(0.0, 1.0, 9)
LONG = RNG.normal(0.5, 1.0, 14)


@pytest.mark.parametrize("bound", [0.0, -0.7, 1.3])
def test_paired_t_is_scipys(bound):
    found, oracle = paired(A - B), stats.ttest_rel(A - bound, B)
    assert found.p(bound) == pytest.approx(oracle.pvalue, rel=1e-9)
    for way, p in (("greater", found.p_above(bound)), ("less", found.p_below(bound))):
        assert p == pytest.approx(stats.ttest_rel(A - bound, B, alternative=way).pvalue, rel=1e-9)
    assert found.interval() == pytest.approx(tuple(stats.ttest_rel(A, B).confidence_interval(0.95)), rel=1e-9)
    assert (found.n, found.df, found.test) == (9, 8, "paired t")


def test_welch_is_scipys_from_values_and_from_summaries():
    found, oracle = welch(A, LONG), stats.ttest_ind(A, LONG, equal_var=False)
    assert (found.p(), found.df) == pytest.approx((oracle.pvalue, oracle.df), rel=1e-9)
    assert found.interval() == pytest.approx(tuple(oracle.confidence_interval(0.95)), rel=1e-9)
    summaries = welch_from_summaries(A.mean(), A.std(ddof=1), 9, LONG.mean(), LONG.std(ddof=1), 14)
    population = welch_from_summaries(A.mean(), A.std(), 9, LONG.mean(), LONG.std(), 14, population=True)
    for same in (summaries, population):
        assert (same.mean, same.error, same.df) == pytest.approx((found.mean, found.error, found.df))
    assert found.n == 9


def test_the_papers_own_summaries():
    """S - L at sigma 0.1: +11.1 and p 0.11 where the printed std is the population's, which the per-seed probes show."""
    assert np.std([71.08, 70.58, 71.66]) == pytest.approx(0.44, abs=0.005)
    found = welch_from_summaries(54.84, 3.73, 3, 43.76, 6.10, 3, population=True)
    assert found.mean == pytest.approx(11.08) and found.p() == pytest.approx(0.108, abs=5e-4)
    low, high = found.interval()
    assert low < 0 < high
    assert welch_from_summaries(54.84, 3.73, 3, 43.76, 6.10, 3).p() == pytest.approx(0.067, abs=5e-4)


def test_tost_is_two_one_sided_tests_and_agrees_with_the_90_percent_interval():
    d = A - B
    for margin in (0.5, 1.5, 2.5, 5.0):
        p = tost(d, margin)
        assert p == pytest.approx(max(stats.ttest_1samp(d, -margin, alternative="greater").pvalue,
                                      stats.ttest_1samp(d, margin, alternative="less").pvalue))
        low, high = paired(d).interval(0.9)
        assert (p < 0.05) == (-margin < low and high < margin)
    assert tost(d, np.full(9, 2.5)) == pytest.approx(tost(d, 2.5))
    with pytest.raises(ValueError, match="margin of sameness is above 0"):
        tost(d, 0.0)


def test_a_margin_per_seed_counts_the_references_own_spread():
    """Two sizes that are always equal, over a reference that varies: the same within 10 %, exactly."""
    reference = np.array([10.0, 30.0, 20.0, 15.0, 25.0])
    noise = np.array([0.1, -0.1, 0.05, -0.05, 0.0])
    lower = stats.ttest_1samp(noise + 0.1 * reference, 0, alternative="greater").pvalue
    upper = stats.ttest_1samp(0.1 * reference - noise, 0, alternative="greater").pvalue
    assert tost(noise, 0.1 * reference) == pytest.approx(max(lower, upper))


@pytest.mark.parametrize("n", [1, 2, 5, 8])
def test_sign_flips_by_brute_force(n):
    d = RNG.normal(0.6, 1.0, n)
    means = [abs(np.mean(d * signs)) for signs in itertools.product((1, -1), repeat=n)]
    assert sign_flip_p(d) == pytest.approx(np.mean(np.array(means) >= abs(d.mean()) - 1e-12))
    oracle = stats.permutation_test((d,), np.mean, permutation_type="samples", n_resamples=np.inf) if n > 1 else None
    if oracle is not None:
        assert sign_flip_p(d) == pytest.approx(oracle.pvalue)


def test_sign_flips_need_six_seeds_for_five_percent_and_nine_for_holm_over_ten():
    least = {n: sign_flip_p(np.arange(1.0, n + 1)) for n in (3, 5, 6, 8, 9)}
    assert least == {n: 2 / 2**n for n in least}
    assert least[3] == 0.25 and least[5] > 0.05 > least[6] and least[8] > 0.05 / 10 > least[9]
    assert sign_flip_p([1.0, 2.0, 3.0, 2.5, 1.5, 2.2], bound=2.0) > 0.5
    with pytest.raises(ValueError, match="1 to 20 seeds"):
        sign_flip_p(np.ones(21))


def brute_holm(ps):
    """Adjusted p of one name: the largest, over the steps up to it, of p times the number of hypotheses left."""
    order = sorted(ps, key=ps.get)
    out = {}
    for i, name in enumerate(order):
        out[name] = min(1.0, max(ps[order[j]] * (len(order) - j) for j in range(i + 1)))
    return out


@given(st.lists(st.floats(0, 1), min_size=1, max_size=10))
def test_holm_by_brute_force(values):
    ps = {f"c{i}": p for i, p in enumerate(values)}
    found = holm(ps)
    assert found == pytest.approx(brute_holm(ps))
    assert set(found) == set(ps) and all(ps[k] <= found[k] <= 1 for k in ps)


def test_holm_keeps_the_family_wise_error():
    rng = np.random.default_rng(1)
    wrong = sum(min(holm(dict(enumerate(rng.random(10)))).values()) < 0.05 for _ in range(4000))
    assert wrong / 4000 == pytest.approx(0.05, abs=0.01)
    assert holm({}) == {}


def test_power_by_simulation():
    rng = np.random.default_rng(2)
    x = rng.normal(0.9, 1.2, (20_000, 7))
    t = x.mean(axis=1) / (x.std(axis=1, ddof=1) / math.sqrt(7))
    seen = np.mean(np.abs(t) > stats.t.ppf(0.975, 6))
    assert power_of(0.9, 1.2, 7) == pytest.approx(seen, abs=0.01)
    assert power_of(0.0, 1.0, 7) == pytest.approx(0.05, abs=1e-9)
    assert power_of(50.0, 1.0, 10) == pytest.approx(1.0)
    assert (power_of(1.0, 0.0, 5), power_of(1.0, 1.0, 1)) == (1.0, 0.0)


@pytest.mark.parametrize(("n", "alpha"), [(3, 0.05), (5, 0.05), (10, 0.005)])
def test_the_smallest_effect_has_the_power_that_it_says(n, alpha):
    effect = smallest_effect(2.5, n, alpha=alpha)
    assert power_of(effect, 2.5, n, alpha=alpha) == pytest.approx(0.8, abs=1e-6)
    assert seeds_for(effect * 1.0001, 2.5, alpha=alpha) == n
    assert smallest_effect(2.5, n + 1, alpha=alpha) < effect


def test_power_at_the_edges():
    assert smallest_effect(1.0, 1) == math.inf and smallest_effect(0.0, 5) == 0.0
    assert seeds_for(0.001, 1.0, most=50) is None


def test_the_t_interval_covers_where_a_percentile_bootstrap_would_not():
    rng = np.random.default_rng(3)
    covered = 0
    for _ in range(2000):
        low, high = paired(rng.normal(4.0, 1.0, 3)).interval()
        covered += low <= 4.0 <= high
    assert covered / 2000 == pytest.approx(0.95, abs=0.015)


def test_algebra_of_a_contrast():
    d = paired(A - B)
    assert (-d).mean == -d.mean and (-d).p(-0.3) == pytest.approx(d.p(0.3))
    assert d.p_above(0.4) + d.p_below(0.4) == pytest.approx(1)
    shifted, scaled = paired(A - B + 3), paired(7 * (A - B))
    assert shifted.p(3.2) == pytest.approx(d.p(0.2)) and scaled.p(1.4) == pytest.approx(d.p(0.2))
    constant = paired([0.1 + 0.2] * 5)
    assert constant.error == 0 and constant.p_above(0.2) == 1 / 32 and constant.p_below(0.2) == 31 / 32
    assert constant.p(0.2) == sign_flip_p([0.3] * 5, 0.2) and all(map(math.isnan, constant.interval()))
    assert Contrast(0.0, 0.0, 4, 5, "paired t").p() == 1.0


@pytest.mark.parametrize("bad", [[1.0], [], [1.0, math.nan], [1.0, math.inf]])
def test_what_has_no_spread_is_refused(bad):
    with pytest.raises(ValueError, match="two finite differences"):
        paired(bad)
    with pytest.raises(ValueError, match="two seeds or more on both sides"):
        welch_from_summaries(1, 1, 1, 2, 1, 5)


def test_shaffers_multipliers_are_the_known_ones_and_never_above_holms():
    """Shaffer (1986): for four means 6, 3, 3, 3, 2, 1; for five 10, 6, 6, 6, 6, 4, 4, 3, 2, 1."""
    for names, expected in (("abcd", [6, 3, 3, 3, 2, 1]), ("abcde", [10, 6, 6, 6, 6, 4, 4, 3, 2, 1])):
        ps = {pair: 1e-12 * 7.0**i for i, pair in enumerate(itertools.combinations(names, 2))}
        found, theirs = all_pairs(ps), holm(ps)
        assert [found[pair] / ps[pair] for pair in ps] == pytest.approx(expected)
        assert all(found[pair] <= theirs[pair] for pair in ps)
    assert all_pairs({("a", "b"): 0.04}) == {("a", "b"): 0.04}


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
    found = summary.difference(large, small, key)
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
