"""Gates on an audit: which bounds are met, how a miss is said, and what cannot be gated on."""

import math
import operator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from builders.refusals import refused
from distillscope.audits.requirements import check_requirements
from distillscope.errors import UserError
from distillscope.measure.audit import audit
from distillscope.measure.results import Audit, Value


def made(value=0.91, low=0.90, high=0.92, key="probe.retention"):
    return Audit({key: Value(value, low, high, 1000, "What it is.", "share"),
                  "student.dims_90": Value(16, 15.0, 17.0, 1000, "Components.", "dims"),
                  "contrastive.saturated": Value(0, None, None, 1000, "A flag.", "flag")},
                 left_out={"knn.retention": "it needs labels, and none were given"})


@pytest.mark.parametrize(("requirement", "line"), [
    ("probe.retention>=0.95", "probe.retention = 0.91 [0.90, 0.92] misses >= 0.95"),
    (" probe.retention  >  0.91 ", "probe.retention = 0.91 [0.90, 0.92] misses > 0.91"),
    ("probe.retention<0.5", "probe.retention = 0.91 [0.90, 0.92] misses < 0.5"),
    ("probe.retention<=9e-1", "probe.retention = 0.91 [0.90, 0.92] misses <= 9e-1"),
    ("low(probe.retention)>=0.905", "low(probe.retention) = 0.90 misses >= 0.905 (value 0.91 [0.90, 0.92])"),
    ("high( probe.retention )<.9", "high(probe.retention) = 0.92 misses < .9 (value 0.91 [0.90, 0.92])"),
    ("student.dims_90==17", "student.dims_90 = 16 [15, 17] misses == 17"),
    ("contrastive.saturated==1", "contrastive.saturated = 0 misses == 1"),
])
def test_a_miss_is_one_line(requirement, line):
    assert check_requirements(made(), [requirement]) == [line]


def test_what_is_met_says_nothing_and_the_order_is_kept():
    met = ["probe.retention>=0.91", "probe.retention<=0.91", "probe.retention==0.91", "low(probe.retention)>=0.9",
           "student.dims_90<17"]
    assert check_requirements(made(), met) == [] == check_requirements(made(), [])
    lines = check_requirements(made(), ["student.dims_90>20", *met, "probe.retention>0.99"])
    assert [line.split(" ")[0] for line in lines] == ["student.dims_90", "probe.retention"]


@pytest.mark.parametrize(("requirement", "message"), [
    ("probe.retention", "expected KEY, one of >= <= > < ==, and a number, got 'probe.retention'"),
    ("probe.retention=0.9", "expected KEY, one of"),
    ("probe.retention=>0.9", "expected KEY, one of"),
    ("probe.retention>=", "expected KEY, one of"),
    (">=0.9", "expected KEY, one of"),
    ("", "expected KEY, one of"),
    ("mid(probe.retention)>=0.9", "expected KEY, one of"),
    ("low(probe.retention>=0.9", "expected KEY, one of"),
    ("probe.retention>=95%", "expected a finite number after the operator, got '95%'"),
    ("probe.retention>=nan", "expected a finite number after the operator, got 'nan'"),
    ("probe.retention>=inf", "expected a finite number"),
    ("probe.retentoin>=0.9", "got 'probe.retentoin', which is none. Did you mean probe.retention"),
    ("dims_90>=3", "got 'dims_90', which is none. Did you mean student.dims_90"),
    ("x>=0.9", "got 'x', which is none. --json lists"),
    ("knn.retention>=0.9", "got 'knn.retention', which was left out because it needs labels, and none were given"),
    ("low(knn.retention)>=0.9", "which was left out because it needs labels"),
    ("alignment.teacher_r2>=0.9", "got 'alignment.teacher_r2', whose group was not chosen"),
    ("teacher.effective_rank>=9", "got 'teacher.effective_rank', whose group was not chosen"),
    ("low(contrastive.saturated)>=0", r"inside low\(\), got 'contrastive.saturated', which has none here"),
])
def test_what_cannot_be_checked_is_an_error(requirement, message):
    with pytest.raises(UserError, match=message) as error:
        check_requirements(made(), [requirement])
    assert "\n" not in str(error.value) and str(error.value).startswith("--require")


def test_every_requirement_is_read_before_any_is_checked():
    with refused(where="--require 'broken'", got="'broken'"):
        check_requirements(made(), ["probe.retention>=0.95", "broken"])


@given(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6), st.sampled_from([">=", "<=", ">", "<", "=="]))
def test_any_numbers_are_compared_as_python_compares_them_and_the_line_agrees(value, bound, op):
    compare = {">=": operator.ge, "<=": operator.le, ">": operator.gt, "<": operator.lt, "==": operator.eq}[op]
    lines = check_requirements(made(value, None, None), [f"probe.retention{op}{bound!r}"])
    assert len(lines) == (not compare(value, bound))
    if lines:
        shown = float(lines[0].split(" = ")[1].split(" ")[0])
        assert not compare(shown, bound), "the digits that are shown must miss the bound too"
        assert math.isclose(shown, value, rel_tol=1e-3, abs_tol=0)


def test_on_a_real_audit():
    teacher = np.random.default_rng(0).normal(size=(60, 6))
    found = audit(teacher, teacher, groups={"spectrum", "alignment", "probe"}, intervals=False)
    assert check_requirements(found, ["alignment.mean_cosine>=0.999", "teacher.undersampled==0"]) == []
    with refused(got="needs labels"):
        check_requirements(found, ["probe.retention>=0.9"])
    with refused(advice="audit with intervals"):
        check_requirements(found, ["low(alignment.mean_cosine)>=0.9"])
