"""Accuracies of both sides on the same items, what the student retains, and whether the difference is chance."""

from __future__ import annotations

import numpy as np

from distillscope.measure.intervals import mcnemar_p
from distillscope.measure.probe import LinearProbe
from distillscope.measure.quantity import NotMeasured, gives
from distillscope.registry import measures


def retention(student_correct: np.ndarray, teacher_correct: np.ndarray) -> float:
    """The student's accuracy over the teacher's.

    >>> retention(np.array([True, False]), np.array([True, True]))
    0.5
    """
    if not teacher_correct.any():
        raise NotMeasured("the teacher classified nothing rightly")
    return float(np.mean(student_correct) / np.mean(teacher_correct))


def largest_gradient(probes: list[LinearProbe]) -> float:
    """The worst certificate among the probes of a side."""
    return max(probe.gradient_norm for probe in probes)


@measures.register("probe.teacher.accuracy")
@gives("share", group="probe", interval="items", n="probe_count")
def probe_teacher_accuracy(teacher_probe_correct: np.ndarray) -> float:
    """Accuracy of the tuned linear probe on the teacher: standardised, C from a validation split of train."""
    return float(np.mean(teacher_probe_correct))


@measures.register("probe.student.accuracy")
@gives("share", group="probe", interval="items", n="probe_count")
def probe_student_accuracy(student_probe_correct: np.ndarray) -> float:
    """Accuracy of the tuned linear probe on the student: standardised, C from a validation split of train."""
    return float(np.mean(student_probe_correct))


@measures.register("probe.retention")
@gives("share", group="probe", interval="items", n="probe_count")
def probe_retention(student_probe_correct: np.ndarray, teacher_probe_correct: np.ndarray) -> float:
    """The student's tuned probe accuracy over the teacher's."""
    return retention(student_probe_correct, teacher_probe_correct)


@measures.register("probe.mcnemar_p")
@gives("p", group="probe", n="probe_count")
def probe_mcnemar_p(teacher_probe_correct: np.ndarray, student_probe_correct: np.ndarray, probe_items: np.ndarray) -> float:
    """Exact McNemar p of an even split, between both sides, of the items that only one tuned probe gets right."""
    return mcnemar_p(teacher_probe_correct, student_probe_correct, probe_items)


@measures.register("probe.teacher.gradient_norm")
@gives("norm", group="probe", n="probe_count")
def probe_teacher_gradient_norm(teacher_probes: list) -> float:
    """Norm of the gradient of the mean penalised loss where the teacher's tuned probe stopped; the worst fold's."""
    return largest_gradient(teacher_probes)


@measures.register("probe.student.gradient_norm")
@gives("norm", group="probe", n="probe_count")
def probe_student_gradient_norm(student_probes: list) -> float:
    """Norm of the gradient of the mean penalised loss where the student's tuned probe stopped; the worst fold's."""
    return largest_gradient(student_probes)


@measures.register("probe.teacher.c")
@gives("C", group="probe", n="probe_count")
def probe_teacher_c(teacher_probes: list) -> float:
    """The C chosen for the teacher's tuned probe; the median over folds."""
    return float(np.median([probe.c for probe in teacher_probes]))


@measures.register("probe.student.c")
@gives("C", group="probe", n="probe_count")
def probe_student_c(student_probes: list) -> float:
    """The C chosen for the student's tuned probe; the median over folds."""
    return float(np.median([probe.c for probe in student_probes]))


@measures.register("paper.probe.teacher.accuracy")
@gives("share", group="probe", interval="items", n="probe_count")
def paper_probe_teacher_accuracy(teacher_paper_probe_correct: np.ndarray) -> float:
    """Accuracy of the paper's probe on the teacher: unit rows, C 1, scikit-learn's lbfgs at its default tolerance."""
    return float(np.mean(teacher_paper_probe_correct))


@measures.register("paper.probe.student.accuracy")
@gives("share", group="probe", interval="items", n="probe_count")
def paper_probe_student_accuracy(student_paper_probe_correct: np.ndarray) -> float:
    """Accuracy of the paper's probe on the student: unit rows, C 1, scikit-learn's lbfgs at its default tolerance."""
    return float(np.mean(student_paper_probe_correct))


@measures.register("paper.probe.retention")
@gives("share", group="probe", interval="items", n="probe_count")
def paper_probe_retention(student_paper_probe_correct: np.ndarray, teacher_paper_probe_correct: np.ndarray) -> float:
    """The student's accuracy over the teacher's, by the paper's probe."""
    return retention(student_paper_probe_correct, teacher_paper_probe_correct)


@measures.register("paper.probe.mcnemar_p")
@gives("p", group="probe", n="probe_count")
def paper_probe_mcnemar_p(teacher_paper_probe_correct: np.ndarray, student_paper_probe_correct: np.ndarray, probe_items: np.ndarray) -> float:
    """Exact McNemar p for the paper's probe."""
    return mcnemar_p(teacher_paper_probe_correct, student_paper_probe_correct, probe_items)


@measures.register("paper.probe.teacher.gradient_norm")
@gives("norm", group="probe", n="probe_count")
def paper_probe_teacher_gradient_norm(teacher_paper_probes: list) -> float:
    """Norm of the gradient where the paper's probe of the teacher stopped; the worst fold's."""
    return largest_gradient(teacher_paper_probes)


@measures.register("paper.probe.student.gradient_norm")
@gives("norm", group="probe", n="probe_count")
def paper_probe_student_gradient_norm(student_paper_probes: list) -> float:
    """Norm of the gradient where the paper's probe of the student stopped; the worst fold's."""
    return largest_gradient(student_paper_probes)


@measures.register("knn.teacher.accuracy")
@gives("share", group="knn", interval="items", n="knn_count")
def knn_teacher_accuracy(teacher_knn_correct: np.ndarray) -> float:
    """Share of items whose 10 nearest teacher embeddings by cosine vote for their label; without train, leave-one-out."""
    return float(np.mean(teacher_knn_correct))


@measures.register("knn.student.accuracy")
@gives("share", group="knn", interval="items", n="knn_count")
def knn_student_accuracy(student_knn_correct: np.ndarray) -> float:
    """Share of items whose 10 nearest student embeddings by cosine vote for their label; without train, leave-one-out."""
    return float(np.mean(student_knn_correct))


@measures.register("knn.retention")
@gives("share", group="knn", interval="items", n="knn_count")
def knn_retention(student_knn_correct: np.ndarray, teacher_knn_correct: np.ndarray) -> float:
    """The student's 10-nearest-neighbour accuracy over the teacher's."""
    return retention(student_knn_correct, teacher_knn_correct)


@measures.register("knn.mcnemar_p")
@gives("p", group="knn", n="knn_count")
def knn_mcnemar_p(teacher_knn_correct: np.ndarray, student_knn_correct: np.ndarray, knn_items: np.ndarray) -> float:
    """Exact McNemar p for the two neighbour classifiers."""
    return mcnemar_p(teacher_knn_correct, student_knn_correct, knn_items)


@measures.register("zero_shot.teacher.accuracy")
@gives("share", group="zero_shot", interval="items", n="labelled_count")
def zero_shot_teacher_accuracy(teacher_zero_shot_correct: np.ndarray) -> float:
    """Share of items whose teacher embedding is nearest by cosine to the embedding of their class name."""
    return float(np.mean(teacher_zero_shot_correct))


@measures.register("zero_shot.student.accuracy")
@gives("share", group="zero_shot", interval="items", n="labelled_count")
def zero_shot_student_accuracy(student_zero_shot_correct: np.ndarray) -> float:
    """Share of items whose student embedding is nearest by cosine to the teacher's embedding of their class name."""
    return float(np.mean(student_zero_shot_correct))


@measures.register("zero_shot.retention")
@gives("share", group="zero_shot", interval="items", n="labelled_count")
def zero_shot_retention(student_zero_shot_correct: np.ndarray, teacher_zero_shot_correct: np.ndarray) -> float:
    """The student's zero-shot accuracy over the teacher's."""
    return retention(student_zero_shot_correct, teacher_zero_shot_correct)
