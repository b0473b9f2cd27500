"""Cases whose answer is known in closed form, through the same ``audit`` that measures a user's embeddings.

It runs on the user's own machine, with that machine's linear algebra: the first thing for a reader who does not believe.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from distillscope import progress
from distillscope.draws import keyed_rng
from distillscope.measure.audit import audit, audit_one
from distillscope.measure.pool import Settings

EXACT = 1e-9  # only the rounding of float64 sums is between the formula and the code
NEAR = 1e-4  # an offset of 1e6, or an angle near 90 degrees, leaves so many digits


@dataclass(frozen=True)
class Check:
    """One number: what was measured, on what, what it should be, what it was, and how far apart they may be."""

    measure: str
    case: str
    expected: float
    got: float
    tolerance: float

    @property
    def passed(self) -> bool:
        return abs(self.got - self.expected) <= self.tolerance

    def __str__(self) -> str:
        verdict = "ok  " if self.passed else "FAIL"
        return (f"{verdict} {self.measure:36} {self.case:58} expected {self.expected:.9g}, got {self.got:.9g}, "
                f"tolerance {self.tolerance:.1g}")


def selftest() -> list[Check]:
    """All checks, in order. Everything is as it should be where each one ``passed``.

    >>> checks = selftest()
    >>> len(checks) > 40, [str(check) for check in checks if not check.passed]
    (True, [])
    """
    found: list[Check] = []
    with progress.late_task("selftest", len(CASES), "cases") as advance:
        for cases in CASES:
            found += cases()
            advance(1)
    return found


def with_singular_values(s: np.ndarray, num_rows: int, mean: float = 0.0) -> np.ndarray:
    """Rows (num_rows, k) whose centred singular values are exactly ``s`` (k,), in a random basis, around a mean."""
    rng = keyed_rng("selftest", "rows", num_rows, len(s))
    u = rng.normal(size=(num_rows, len(s)))
    u = np.linalg.qr(u - u.mean(axis=0))[0]
    return u * s @ np.linalg.qr(rng.normal(size=(len(s), len(s))))[0] + mean


def _spectrum() -> Iterator[Check]:
    case = "s = 3, 2, 1 around a mean of 1, n 64, d 3"
    s = np.array([3.0, 2.0, 1.0])
    found = audit_one(with_singular_values(s, 64, mean=1.0), intervals=False)
    for name, p in (("effective_rank", s**2 / 14), ("effective_rank_by_s", s / 6)):
        yield Check(f"teacher.{name}", case, float(np.prod(p**-p)), found[f"teacher.{name}"], EXACT)
    for name, expected in (("participation_ratio", 196 / 98), ("stable_rank", 14 / 9), ("dims_90", 2), ("dims_95", 3),
                           ("dims_99", 3), ("algebraic_rank", 3), ("mean_energy", 192 / 206), ("undersampled", 0),
                           ("duplicates", 0)):
        yield Check(f"teacher.{name}", case, expected, found[f"teacher.{name}"], EXACT)
    case = "the same 1e6 away from the origin"
    far = audit_one(with_singular_values(s, 64, mean=1e6), intervals=False)
    yield Check("teacher.effective_rank", case, found["teacher.effective_rank"], far["teacher.effective_rank"], NEAR)
    k = np.arange(1, 31, dtype=float)
    found = audit_one(with_singular_values(k**-0.6, 200), intervals=False)
    case = "s_k = k^-0.6, n 200, d 30"
    yield Check("teacher.spectral_decay", case, 1.2, found["teacher.spectral_decay"], EXACT)
    p = k**-0.6 / (k**-0.6).sum() + 1e-7
    yield Check("teacher.rankme", f"{case}, no mean", float(np.prod(p**-p)), found["teacher.rankme"], EXACT)
    yield Check("teacher.cumulative_variance at 7", case, float((k[:7] ** -1.2).sum() / (k**-1.2).sum()),
                float(found.curves["teacher.cumulative_variance"].y[6]), EXACT)
    yield from _sampled_ranks()


def _sampled_ranks() -> Iterator[Check]:
    d, n = 64, 512
    found = audit_one(keyed_rng("selftest", "isotropic").normal(size=(n, d)), intervals=False)
    case = "isotropic normal rows, n 512, d 64"
    yield Check("teacher.effective_rank", f"{case}: d exp(-d / (2 (n - 1)))", d * np.exp(-d / (2 * (n - 1))),
                found["teacher.effective_rank"], 0.6)
    yield Check("teacher.effective_rank_corrected", f"{case}: d", d, found["teacher.effective_rank_corrected"], 1.0)
    plane = keyed_rng("selftest", "plane").uniform(size=(3000, 2)) @ np.eye(2, 10)
    yield Check("teacher.twonn_dimension", "a uniform square in 10 dimensions, n 3000", 2.0,
                audit_one(plane, intervals=False)["teacher.twonn_dimension"], 0.15)
    axes = np.repeat(np.vstack([np.eye(5), -np.eye(5)]), 2, axis=0)
    found = audit_one(axes, intervals=False)
    case = "each of +-e_1 ... +-e_5 twice"
    yield Check("teacher.uniformity", case, float(np.log((1 + 16 * np.exp(-4) + 2 * np.exp(-8)) / 19)),
                found["teacher.uniformity"], EXACT)
    yield Check("teacher.duplicates", case, 0.5, found["teacher.duplicates"], EXACT)


def _alignment() -> Iterator[Check]:
    rng = keyed_rng("selftest", "alignment")
    u = rng.normal(size=(400, 40))
    u = np.linalg.qr(u - u.mean(axis=0))[0]  # 40 uncorrelated scores of unit length
    t, s = np.linspace(2, 1, 40), np.ones(40)
    found = audit(u * t, u * s, groups={"alignment"}, intervals=False)
    case = "teacher's s from 2 to 1, student's all 1, same axes"
    yield Check("alignment.student_variance_top20", case, 0.5, found["alignment.student_variance_top20"], EXACT)
    yield Check("alignment.teacher_variance_top20", case, float((t[:20] ** 2).sum() / (t**2).sum()),
                found["alignment.teacher_variance_top20"], EXACT)
    yield Check("alignment.null at 20", case, 0.5, float(found.curves["alignment.null"].y[19]), EXACT)
    found = audit(u * t, (u * t) @ np.roll(np.eye(40), 20, axis=1), groups={"alignment"}, intervals=False)
    case = "student's axes are the teacher's, 20 further"
    yield Check("alignment.principal_angle_mean", case, 90.0, found["alignment.principal_angle_mean"], NEAR)
    yield Check("alignment.teacher_variance_captured", case, float((t[20:] ** 2).sum() / (t**2).sum()),
                found["alignment.teacher_variance_captured"], EXACT)
    known, unknown = rng.normal(size=(20_000, 4)), rng.normal(size=(20_000, 4))
    found = audit(np.hstack([3 * known, unknown]), known, groups={"alignment"}, intervals=False)
    yield Check("alignment.teacher_r2", "student knows the strong half: energy 36 of 40", 0.9, found["alignment.teacher_r2"],
                0.005)
    turned = np.array([[0.6, -0.8], [0.8, 0.6]])
    rows = rng.normal(size=(50, 2))
    found = audit(rows, rows @ turned, groups={"alignment"}, intervals=False)
    yield Check("alignment.mean_cosine", "every row turned by acos 0.6", 0.6, found["alignment.mean_cosine"], EXACT)


def _contrastive() -> Iterator[Check]:
    z = np.eye(128)
    found = audit(z, z, groups={"contrastive", "paper"}, intervals=False)
    case = "teacher = student = 128 orthogonal rows"
    yield Check("contrastive.infonce", case, float(np.log1p(127 * np.exp(-10))), found["contrastive.infonce"], EXACT)
    yield Check("contrastive.ceiling", case, float(np.log(128)), found["contrastive.ceiling"], EXACT)
    yield Check("contrastive.retained_share", case, 1.0, found["contrastive.retained_share"], EXACT)
    yield Check("contrastive.saturated", case, 1, found["contrastive.saturated"], EXACT)
    yield Check("paper.infonce", case, float(np.log1p(63 * np.exp(-10))), found["paper.infonce"], EXACT)
    yield Check("paper.uniformity", case, float(np.log((1 + 63 * np.exp(-4)) / 64)), found["paper.uniformity"], EXACT)
    found = audit(z, np.ones_like(z), groups={"contrastive", "paper"}, intervals=False)
    case = "the same teacher, a student of one point"
    yield Check("contrastive.infonce", case, float(np.log(128)), found["contrastive.infonce"], EXACT)
    yield Check("contrastive.retained_share", case, 0.0, found["contrastive.retained_share"], EXACT)
    rows = keyed_rng("selftest", "paper").normal(size=(10_000, 2))
    found = audit(rows, rows, groups={"paper"}, intervals=False)
    yield Check("paper.infonce_ceiling", "10,000 items: 156 batches of 64 and one of 16",
                float((156 * np.log(64) + np.log(16)) / 157), found["paper.infonce_ceiling"], EXACT)


def _similarity() -> Iterator[Check]:
    rng = keyed_rng("selftest", "similarity")
    rows = rng.normal(size=(300, 8)) * np.arange(1, 9)
    turned = 2 * rows @ np.linalg.qr(rng.normal(size=(8, 8)))[0]
    settings = Settings(null_draws=9)
    found = audit(rows, turned, groups={"similarity", "retrieval"}, intervals=False, settings=settings)
    case = "student = teacher rotated and doubled"
    for name in ("linear_cka", "linear_cka_debiased", "procrustes", "rsa_spearman", "mutual_knn_10"):
        yield Check(f"similarity.{name}", case, 1.0, found[f"similarity.{name}"], EXACT)
    yield Check("similarity.mutual_knn_10_null", "10 / (n - 1) by chance, n 300", 10 / 299,
                found["similarity.mutual_knn_10_null"], 0.01)
    yield Check("retrieval.mapped_recall_at_1", case, 1.0, found["retrieval.mapped_recall_at_1"], EXACT)
    yield Check("retrieval.neighbour_overlap_10", case, 1.0, found["retrieval.neighbour_overlap_10"], EXACT)
    u = rng.normal(size=(300, 4))
    u = np.linalg.qr(u - u.mean(axis=0))[0]
    found = audit(u[:, :2], u[:, 1:3], groups={"similarity"}, intervals=False, settings=settings)
    case = "two equal uncorrelated axes a side, one in common"
    yield Check("similarity.linear_cka", f"{case}: 1 / 2", 0.5, found["similarity.linear_cka"], EXACT)
    yield Check("similarity.procrustes", f"{case}: 1 / 2", 0.5, found["similarity.procrustes"], EXACT)
    one, other = rng.normal(size=(2, 400, 200))
    found = audit(one, other, groups={"similarity"}, intervals=False, settings=settings)
    case = "independent rows, n 400, d 200"
    yield Check("similarity.linear_cka", f"{case}: d / (d + n), its bias", 1 / 3, found["similarity.linear_cka"], 0.02)
    yield Check("similarity.linear_cka_debiased", f"{case}: 0", 0.0, found["similarity.linear_cka_debiased"], 0.03)


def _labels() -> Iterator[Check]:
    labels = np.arange(300) % 3
    rng = keyed_rng("selftest", "labels")
    told, blind = 5 * np.eye(3, 6)[labels] + 0.1 * rng.normal(size=(300, 6)), rng.normal(size=(300, 6))
    found = audit(told, blind, labels, text=np.eye(3, 6), intervals=False,
                  groups={"probe", "knn", "zero_shot", "retrieval", "swap", "codes", "few"})
    for kind in ("probe", "paper.probe", "knn", "zero_shot"):
        yield Check(f"{kind}.teacher.accuracy", "three separate clusters", 1.0, found[f"{kind}.teacher.accuracy"], EXACT)
        yield Check(f"{kind}.student.accuracy", "noise: one in three", 1 / 3, found[f"{kind}.student.accuracy"], 0.11)
    yield Check("probe.teacher.gradient_norm", "0 at the optimum", 0.0, found["probe.teacher.gradient_norm"], 1e-3)
    yield Check("probe.mcnemar_p", "accuracy 1 against 1/3, n 300", 0.0, found["probe.mcnemar_p"], 1e-12)
    for what in ("label_recall_at_1", "label_ndcg_10"):
        yield Check(f"swap.teacher.{what}", "three separate clusters", 1.0, found[f"swap.teacher.{what}"], EXACT)
        key = f"swap.student_in_teacher.{what}"
        yield Check(key, "noise: one in three", 1 / 3, found[key], 0.11)
    for code in ("int8", "binary"):
        key = f"codes.teacher.{code}_knn_retention"
        yield Check(key, "three separate clusters", 1.0, found[key], EXACT)
    yield Check("probe.teacher.aurc", "three separate clusters", 0.0, found["probe.teacher.aurc"], EXACT)
    yield Check("few.teacher.accuracy_at_1", "three separate clusters", 1.0, found["few.teacher.accuracy_at_1"], EXACT)
    yield Check("few.student.accuracy_at_5", "noise: one in three", 1 / 3, found["few.student.accuracy_at_5"], 0.11)
    far = [5 * np.eye(1, 6, 3) + 0.1 * rng.normal(size=(60, 6)), rng.normal(size=(60, 6))]
    found = audit(told, blind, ood_teacher=far[0], ood_student=far[1], intervals=False, groups={"ood"})
    yield Check("ood.teacher.auroc", "items from elsewhere are a cluster of their own", 1.0, found["ood.teacher.auroc"], EXACT)
    yield Check("ood.teacher.fpr95", "items from elsewhere are a cluster of their own", 0.0, found["ood.teacher.fpr95"], EXACT)
    yield Check("ood.student.auroc", "noise as the known items are: one half", 0.5, found["ood.student.auroc"], 0.12)
    repeated = np.repeat(np.eye(10), 2, axis=0)
    found = audit(repeated, repeated, groups={"retrieval"}, intervals=False)
    yield Check("retrieval.recall_at_1", "every row twice: a repeat of the own item is no rival", 1.0,
                found["retrieval.recall_at_1"], 0.0)


CASES: tuple[Callable[[], Iterator[Check]], ...] = (_spectrum, _alignment, _contrastive, _similarity, _labels)
