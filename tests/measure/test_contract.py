"""What every registered measure and curve owes, whatever it measures."""

import inspect
from pathlib import Path

import numpy as np
import pytest

from builders.clouds import cloud, student_of
from distillscope.measure.audit import audit
from distillscope.measure.labelled import LabelledPair
from distillscope.measure.pair import resolve_name
from distillscope.measure.pool import Rows, Side
from distillscope.measure.quantity import GROUPS, definition
from distillscope.registry import curves, measures

DOCS = Path(__file__).parents[2] / "docs" / "measures.md"
NAMES = list(measures)
UNITS = {"dims", "share", "flag", "exponent", "log kernel", "cosine", "R2", "degrees", "nats", "temperature", "correlation",
         "norm", "C", "p"}


def inputs():
    teacher, labels = cloud(0, n=120, d=24), np.arange(120) % 3
    teacher[:, :3] += np.eye(3)[labels]
    return teacher, student_of(teacher, 1), labels, np.eye(24)[:3]


@pytest.fixture(scope="module")
def found():
    teacher, student, labels, text = inputs()
    return audit(teacher, student, labels, text=text)


def keys_of(name: str) -> list[str]:
    in_spectrum = (measures if name in NAMES else curves).facts(name).group == "spectrum"
    return [f"teacher.{name}", f"student.{name}"] if in_spectrum else [name]


@pytest.mark.parametrize("name", NAMES)
def test_a_measure_is_finite_on_ordinary_data_with_what_it_says_of_itself(found, name):
    quantity = measures.facts(name)
    for key in keys_of(name):
        value = found.values[key]
        assert isinstance(value.value, (int, float)) and np.isfinite(value.value)
        assert value.unit in UNITS and 0 < value.n <= 120
        assert value.definition == definition(measures[name]) and value.definition.endswith(".")
        assert (value.low is None) == (quantity.interval is None), "an interval exactly where one is promised"
        if quantity.unit in ("share", "flag", "p") and "debiased" not in name:
            assert 0 <= value.value <= 1 + 1e-12 or "retention" in name or "retained" in name


@pytest.mark.parametrize("name", NAMES)
def test_what_a_measure_needs_is_in_the_pool(name):
    teacher, student, labels, text = inputs()
    pool = LabelledPair(Side(Rows(teacher)), Side(Rows(student)), labels, text=text)
    where = pool.teacher if measures.facts(name).group == "spectrum" else pool
    for needed in measures.needs(name):
        resolve_name(where, needed)


@pytest.mark.parametrize("name", list(curves))
def test_a_curve_is_finite_and_described(found, name):
    for key in keys_of(name):
        curve = found.curves[key]
        assert len(curve.x) == len(curve.y) > 1 and np.isfinite(curve.y).all() and curve.unit and curve.definition


@pytest.mark.parametrize("name", NAMES)
def test_a_measure_is_documented(name):
    function = measures[name]
    assert inspect.getdoc(function) and measures.facts(name).group in GROUPS
    assert f"`{name}`" in DOCS.read_text(encoding="utf-8"), f"docs/measures.md does not explain {name}"


def test_every_curve_is_documented():
    text = DOCS.read_text(encoding="utf-8")
    assert not [name for name in curves if f"`{name}`" not in text]


def test_twice_the_same(found):
    teacher, student, labels, text = inputs()
    again = audit(teacher, student, labels, text=text)
    assert again.to_json() == found.to_json()


def test_an_unknown_need_names_what_there_is():
    with pytest.raises(LookupError, match="no 'eigenvalue' in the pool, known: .*eigenvalues"):
        resolve_name(Side(Rows(cloud(0))), "eigenvalue")
