"""A measure of plain arrays is the audit's, digit for digit."""

from __future__ import annotations

import inspect

import numpy as np
import pytest

import distillscope
from builders.clouds import cloud, student_of
from builders.refusals import refused
from distillscope.errors import UserError
from distillscope.measure import functional
from distillscope.measure.audit import audit
from distillscope.registry import KINDS

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
def found(sides):
    return audit(*sides, LABELS, train_teacher=sides[0][::-1] + 0.1, train_student=sides[1][::-1], train_labels=LABELS[::-1],
                 text=np.eye(24)[:3], intervals=False)


@pytest.mark.parametrize("name", ONE_SIDE)
def test_of_one_side(sides, found, name):
    assert getattr(functional, name)(sides[0]) == found[f"teacher.{name}"]


@pytest.mark.parametrize("key", TWO_SIDES)
def test_of_two_sides(sides, found, key):
    assert TWO_SIDES[key](*sides) == found[key]


def test_of_labels(sides, found):
    given = sides[0][::-1] + 0.1, LABELS[::-1], sides[0], LABELS
    assert functional.probe_accuracy(*given) == found["probe.teacher.accuracy"]
    assert functional.probe_accuracy(*given, paper=True) == found["paper.probe.teacher.accuracy"]
    assert functional.knn_accuracy(*given) == found["knn.teacher.accuracy"]
    assert functional.zero_shot_accuracy(sides[0], LABELS, np.eye(24)[:3]) == found["zero_shot.teacher.accuracy"]


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
