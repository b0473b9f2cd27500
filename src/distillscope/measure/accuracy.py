"""Accuracies of both sides on the same items, what the student retains, and whether the difference is chance."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from distillscope.measure.intervals import mcnemar_p
from distillscope.measure.probe import LinearProbe
from distillscope.measure.results import NotMeasured
from distillscope.registry import measures


def share_right(correct: np.ndarray) -> float:
    """The share of true entries in ``correct`` (n,).

    >>> share_right(np.array([True, False]))
    0.5
    """
    return float(np.mean(correct))


def retention(student_correct: np.ndarray, teacher_correct: np.ndarray) -> float:
    """The student's accuracy over the teacher's.

    >>> retention(np.array([True, False]), np.array([True, True]))
    0.5
    """
    if not teacher_correct.any():
        raise NotMeasured("the teacher classified nothing correctly")
    return float(np.mean(student_correct) / np.mean(teacher_correct))


def largest_gradient(probes: list[LinearProbe]) -> float:
    """The worst certificate among the probes of a side."""
    return max(probe.gradient_norm for probe in probes)


def median_c(probes: list[LinearProbe]) -> float:
    """The median of the penalties of a side's probes."""
    return float(np.median([probe.c for probe in probes]))


CLASSIFIERS = {"probe": ("probe", "probe_count"), "paper.probe": ("probe", "probe_count"), "knn": ("knn", "knn_count"),
               "zero_shot": ("zero_shot", "labelled_count")}
"""Head of the keys -> the group of the measures, and what the pool calls the number of items behind them."""

BY_SIDE: tuple[tuple[str, str, Callable[..., float], str, str], ...] = (
    # classifier, what, function, what it takes from the pool, what it is
    ("probe", "accuracy", share_right, "{}_probe_correct",
     "Accuracy of the tuned linear probe on the {}: standardised, C from a validation split of train."),
    ("probe", "gradient_norm", largest_gradient, "{}_probes",
     "Norm of the gradient of the mean penalised loss where the {}'s tuned probe stopped; the worst fold's."),
    ("probe", "c", median_c, "{}_probes", "The C chosen for the {}'s tuned probe; the median over folds."),
    ("paper.probe", "accuracy", share_right, "{}_paper_probe_correct",
     "Accuracy of the paper's probe on the {}: unit rows, C 1, scikit-learn's lbfgs at its default tolerance."),
    ("paper.probe", "gradient_norm", largest_gradient, "{}_paper_probes",
     "Norm of the gradient where the paper's probe of the {} stopped; the worst fold's."),
    ("knn", "accuracy", share_right, "{}_knn_correct",
     "Share of items whose 10 nearest {} embeddings by cosine vote for their label; without train, leave-one-out."),
    ("zero_shot", "accuracy", share_right, "{}_zero_shot_correct",
     "Share of items whose {} embedding is nearest by cosine to the teacher's embedding of their class name."),
)
BETWEEN: tuple[tuple[str, str, Callable[..., float], tuple[str, ...], str], ...] = (
    ("probe", "retention", retention, ("student_probe_correct", "teacher_probe_correct"),
     "The student's tuned probe accuracy over the teacher's."),
    ("probe", "negative_flips", share_right, ("probe_negative_flips",),
     "Share of items that the teacher's tuned probe gets right and the student's gets wrong."),
    ("probe", "positive_flips", share_right, ("probe_positive_flips",),
     "Share of items that the teacher's tuned probe gets wrong and the student's gets right."),
    ("probe", "mcnemar_p", mcnemar_p, ("teacher_probe_correct", "student_probe_correct", "probe_items"),
     "Exact McNemar p of an even split, between both sides, of the items that only one tuned probe gets right."),
    ("paper.probe", "retention", retention, ("student_paper_probe_correct", "teacher_paper_probe_correct"),
     "The student's accuracy over the teacher's, by the paper's probe."),
    ("paper.probe", "mcnemar_p", mcnemar_p, ("teacher_paper_probe_correct", "student_paper_probe_correct", "probe_items"),
     "Exact McNemar p for the paper's probe."),
    ("knn", "retention", retention, ("student_knn_correct", "teacher_knn_correct"),
     "The student's 10-nearest-neighbour accuracy over the teacher's."),
    ("knn", "negative_flips", share_right, ("knn_negative_flips",),
     "Share of items that the 10 nearest neighbours classify correctly on the teacher and wrongly on the student."),
    ("knn", "positive_flips", share_right, ("knn_positive_flips",),
     "Share of items that the 10 nearest neighbours classify wrongly on the teacher and rightly on the student."),
    ("knn", "mcnemar_p", mcnemar_p, ("teacher_knn_correct", "student_knn_correct", "knn_items"),
     "Exact McNemar p for the two neighbour classifiers."),
    ("zero_shot", "retention", retention, ("student_zero_shot_correct", "teacher_zero_shot_correct"),
     "The student's zero-shot accuracy over the teacher's."),
    ("zero_shot", "negative_flips", share_right, ("zero_shot_negative_flips",),
     "Share of items whose class name is the nearest one to the teacher's embedding, and not to the student's."),
    ("zero_shot", "positive_flips", share_right, ("zero_shot_positive_flips",),
     "Share of items whose class name is not the nearest one to the teacher's embedding, and is to the student's."),
)
UNITS = {"accuracy": "share", "retention": "share", "negative_flips": "share", "positive_flips": "share",
         "mcnemar_p": "p", "gradient_norm": "norm", "c": "C"}


def made(key: str, function: Callable[..., float], needs: Sequence[str], says: str) -> Callable[..., float]:
    """``function`` of what the pool calls ``needs``, as the function of a measure: named by ``key``, with what it ``says``."""

    def measure(*values: Any) -> float:
        return function(*values)

    measure.__qualname__ = measure.__name__ = key.replace(".", "_")
    measure.__doc__ = says
    parameters = [inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD) for name in needs]
    measure.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return measure


def attach(pool: type, name: str, make: Callable[..., Any]) -> None:
    """``make`` of a pool, once, as its attribute ``name``."""
    found: cached_property[Any] = cached_property(make)
    found.__set_name__(pool, name)
    setattr(pool, name, found)


def _register(classifier: str, side: str, what: str, function: Callable[..., float], needs: tuple[str, ...], says: str) -> None:
    """``function`` of what the pool calls ``needs``, as a measure."""
    key = ".".join(part for part in (classifier, side, what) if part)
    group, count = CLASSIFIERS[classifier]
    interval = "items" if UNITS[what] == "share" else None
    measures.register(key, unit=UNITS[what], group=group, n=count, interval=interval, ratio=what == "retention")(
        made(key, function, needs, says))


for _side in ("teacher", "student"):
    for _classifier, _what, _function, _takes, _says in BY_SIDE:
        _register(_classifier, _side, _what, _function, (_takes.format(_side),), _says.format(_side))
for _classifier, _what, _function, _needs, _says in BETWEEN:
    _register(_classifier, "", _what, _function, _needs, _says)
