"""What every registered measure and curve owes, whatever it measures; as a function of arrays it gives the audit's number."""

from __future__ import annotations

import inspect
from pathlib import Path

import numpy as np
import pytest

import distillscope
from builders import refused
from builders.clouds import cloud, student_of
from distillscope.errors import UserError
from distillscope.measure import functional
from distillscope.measure.audit import audit
from distillscope.measure.labelled import LabelledPair
from distillscope.measure.pair import resolve_name
from distillscope.measure.pool import Rows, Side
from distillscope.measure.results import GROUPS, definition
from distillscope.registry import KINDS, curves, measures

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


LABELS = np.arange(120) % 3
ONE_SIDE = ("effective_rank", "effective_rank_corrected", "participation_ratio", "stable_rank", "rankme", "uniformity",
            "twonn_dimension")
TWO_SIDES = {"similarity.linear_cka": functional.linear_cka, "similarity.procrustes": functional.procrustes,
             "similarity.rsa_spearman": functional.rsa, "similarity.mutual_knn_10": functional.mutual_knn,
             "retrieval.neighbour_overlap_10": functional.neighbour_overlap, "retrieval.recall_at_1": functional.recall_at_k,
             "alignment.mean_cosine": functional.mean_cosine, "alignment.teacher_r2": functional.teacher_r2,
             "contrastive.infonce": functional.infonce,
             "similarity.linear_cka_debiased": lambda x, y: functional.linear_cka(x, y, debiased=True),
             "retrieval.recall_at_5": lambda x, y: functional.recall_at_k(x, y, 5),
             "retrieval.mapped_recall_at_10": lambda x, y: functional.recall_at_k(x, y, 10, mapped=True)}


@pytest.fixture(scope="module")
def sides():
    teacher = cloud(0, n=120, d=24)
    teacher[:, :3] += np.eye(3)[LABELS]
    return teacher, student_of(teacher, 1)


@pytest.fixture(scope="module")
def of_pair(sides):
    return audit(*sides, LABELS, train_teacher=sides[0][::-1] + 0.1, train_student=sides[1][::-1], train_labels=LABELS[::-1],
                 text=np.eye(24)[:3], intervals=False)


@pytest.mark.parametrize("name", ONE_SIDE)
def test_of_one_side(sides, of_pair, name):
    assert getattr(functional, name)(sides[0]) == of_pair[f"teacher.{name}"]


@pytest.mark.parametrize("key", TWO_SIDES)
def test_of_two_sides(sides, of_pair, key):
    assert TWO_SIDES[key](*sides) == of_pair[key]


def test_of_labels(sides, of_pair):
    given = sides[0][::-1] + 0.1, LABELS[::-1], sides[0], LABELS
    assert functional.probe_accuracy(*given) == of_pair["probe.teacher.accuracy"]
    assert functional.probe_accuracy(*given, paper=True) == of_pair["paper.probe.teacher.accuracy"]
    assert functional.knn_accuracy(*given) == of_pair["knn.teacher.accuracy"]
    assert functional.zero_shot_accuracy(sides[0], LABELS, np.eye(24)[:3]) == of_pair["zero_shot.teacher.accuracy"]


def test_rows_are_normalised_where_asked(sides):
    whole = audit(*sides, normalize="l2", groups=["spectrum", "similarity"], intervals=False)
    assert functional.effective_rank(sides[0], normalize="l2") == whole["teacher.effective_rank"]
    assert functional.linear_cka(*sides, normalize="l2") == whole["similarity.linear_cka"]


@pytest.mark.parametrize(("call", "got"), [
    (lambda z: functional.effective_rank(z[:3]), "3"),
    (lambda z: functional.effective_rank(np.full_like(z, np.nan)), "NaN"),
    (lambda z: functional.linear_cka(z, z[:50]), "50"),
    (lambda z: functional.recall_at_k(z, z[:, :5]), "5"),
    (lambda z: functional.recall_at_k(z, z, 0), "0"),
    (lambda z: functional.mutual_knn(z, z, k=500), "more than 501"),
    (lambda z: functional.probe_accuracy(z, np.zeros(len(z)), z, LABELS), "one"),
])
def test_what_cannot_be_measured_is_a_value_error_in_one_line(sides, call, got):
    with pytest.raises(ValueError, match=got) as refused:
        call(sides[0])
    assert isinstance(refused.value, UserError)


def test_every_function_says_what_it_takes_and_shows_it():
    for name, function in inspect.getmembers(functional, inspect.isfunction):
        if function.__module__ == functional.__name__ and not name.startswith("_"):
            assert ">>>" in function.__doc__ and "(n, " in function.__doc__, name


def test_the_parts_of_a_kind_are_listed():
    assert distillscope.list_measures() == distillscope.list_parts("measures") == list(KINDS["measures"])
    assert "cosine" in distillscope.list_objectives() and "list_claims" in dir(distillscope)
    with refused(advice="'measures'"):
        distillscope.list_parts("measure")
    with pytest.raises(AttributeError):
        distillscope.list_nothing  # noqa: B018
