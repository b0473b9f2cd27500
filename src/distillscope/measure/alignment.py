"""Measures of how the student's variance lies in the teacher's space, and how much of the teacher it predicts.

A captured-variance curve alone says little: any regressor concentrates on the teacher's leading components. So the
teacher's own curve and the k/d null stand beside it, and R^2 says what part of the teacher is recovered at all.
"""

from __future__ import annotations

import numpy as np

from distillscope.measure.results import NotMeasured, Points
from distillscope.measure.spectrum import ALL_EQUAL, algebraic_rank
from distillscope.registry import curves, measures

TOP = 20


def cumulative_share(energy: np.ndarray) -> np.ndarray:
    """Cumulative share (d,) of ``energy`` (d,).

    >>> cumulative_share(np.array([2.0, 1.0, 1.0])).tolist()
    [0.5, 0.75, 1.0]
    """
    total = energy.sum()
    if not total > 0:
        raise NotMeasured(ALL_EQUAL)
    return np.cumsum(energy) / total


def energy_along(directions: np.ndarray, scatter: np.ndarray) -> np.ndarray:
    """v^T scatter v for each column v of ``directions`` (d, k)."""
    return (directions * (scatter @ directions)).sum(axis=0).clip(min=0)


@measures.register("alignment.mean_cosine", unit="cosine", group="alignment", interval="items", title="mean cosine", few=2,
                   better="higher", short="cosine", hint="with the teacher")
def mean_cosine(paired_cosines: np.ndarray) -> float:
    """Mean cosine between an item's student and teacher embeddings, as given (one dimension)."""
    return float(np.mean(paired_cosines))


@measures.register("alignment.student_variance_top20", unit="share", group="alignment", interval="jackknife",
                   title="in the teacher's top 20", percent=True)
def student_variance_top20(student_energy_on_leading: np.ndarray) -> float:
    """Share of the centred student's variance along the teacher's first 20 principal components (one dimension)."""
    return float(cumulative_share(student_energy_on_leading)[0])


@measures.register("alignment.teacher_variance_top20", unit="share", group="alignment", interval="jackknife",
                   title="teacher's own top 20", percent=True)
def teacher_variance_top20(teacher_eigenvalues: np.ndarray) -> float:
    """Share of the centred teacher's own variance along its first 20 principal components: the reference."""
    return float(cumulative_share(teacher_eigenvalues)[min(TOP, len(teacher_eigenvalues)) - 1])


@measures.register("alignment.teacher_variance_captured", unit="share", group="alignment", interval="jackknife",
                   title="captured by its top 20", percent=True, better="higher")
def teacher_variance_captured(teacher_energy_on_leading: np.ndarray) -> float:
    """Share of the centred teacher's variance along the student's first 20 principal components (one dimension)."""
    return float(cumulative_share(teacher_energy_on_leading)[0])


@measures.register("alignment.teacher_r2", unit="R2", group="alignment", interval="jackknife", title="R² of the teacher",
                   better="higher")
def teacher_r2(teacher_missed: float, teacher_energy: float) -> float:
    """Share of the teacher's variance that a ridge regression on the student predicts, 5-fold cross-validated.

    At most 1, and slightly below 0 where the student knows nothing. Exists for any two dimensions.
    """
    if not teacher_energy > 0:
        raise NotMeasured(ALL_EQUAL)
    return 1 - teacher_missed / teacher_energy


@measures.register("alignment.teacher_r2_ceiling", unit="R2", group="alignment")
def teacher_r2_ceiling(teacher_own_r2: float) -> float:
    """The same R2 of the teacher predicted from itself: what its items allow; 1 unless they are few for its dimensions."""
    return teacher_own_r2


@measures.register("alignment.principal_angle_mean", unit="degrees", group="alignment", interval="jackknife")
def principal_angle_mean(principal_angles: np.ndarray) -> float:
    """Mean principal angle between the spans of the first 20 principal components of both (one dimension)."""
    return float(np.mean(principal_angles))


@measures.register("alignment.principal_angle_max", unit="degrees", group="alignment", interval="jackknife")
def principal_angle_max(principal_angles: np.ndarray) -> float:
    """Largest principal angle between the spans of the first 20 principal components of both (one dimension)."""
    return float(np.max(principal_angles))


def angles_between(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Principal angles in degrees, ascending, between the spans of orthonormal columns ``a`` (d, k) and ``b`` (d, k).

    Small angles come from the sine, large ones from the cosine: each is exact where the other loses digits.

    >>> angles_between(np.eye(3)[:, :2], np.eye(3)[:, 1:]).round(6).tolist()
    [0.0, 90.0]
    """
    cosines = np.linalg.svd(a.T @ b, compute_uv=False).clip(max=1)
    sines = np.linalg.svd(b - a @ (a.T @ b), compute_uv=False)[::-1].clip(max=1)
    return np.degrees(np.where(cosines**2 < 0.5, np.arccos(cosines), np.arcsin(sines)))


@curves.register("alignment.student_on_teacher", unit="share", group="alignment")
def student_on_teacher_curve(student_energy_on_teacher: np.ndarray) -> Points:
    """Cumulative share of the student's variance on the teacher's first k principal components."""
    share = cumulative_share(student_energy_on_teacher)
    return Points(np.arange(1, len(share) + 1), share)


@curves.register("alignment.teacher_on_teacher", unit="share", group="alignment")
def teacher_on_teacher_curve(teacher_eigenvalues: np.ndarray) -> Points:
    """Cumulative share of the teacher's own variance on its first k principal components."""
    share = cumulative_share(teacher_eigenvalues)
    return Points(np.arange(1, len(share) + 1), share)


@curves.register("alignment.teacher_on_student", unit="share", group="alignment")
def teacher_on_student_curve(teacher_energy_on_student: np.ndarray) -> Points:
    """Cumulative share of the teacher's variance on the student's first k principal components."""
    share = cumulative_share(teacher_energy_on_student)
    return Points(np.arange(1, len(share) + 1), share)


@curves.register("alignment.null", unit="share", group="alignment")
def null_curve(teacher_dim: int) -> Points:
    """k/d: what isotropic embeddings put on any k components."""
    k = np.arange(1, teacher_dim + 1)
    return Points(k, k / teacher_dim)


@curves.register("alignment.teacher_r2_per_component", unit="R2", group="alignment")
def teacher_r2_per_component_curve(teacher_residual_energy: np.ndarray, teacher_eigenvalues: np.ndarray,
                                   teacher_resolved_rank: int) -> Points:
    """Cross-validated R2 of each of the teacher's principal components, predicted from the student."""
    cumulative_share(teacher_eigenvalues)
    kept = algebraic_rank(teacher_eigenvalues, teacher_resolved_rank)
    return Points(np.arange(1, kept + 1), 1 - teacher_residual_energy[:kept] / teacher_eigenvalues[:kept])
