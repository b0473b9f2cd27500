"""Measures of similarity with the student's items shuffled: what pairing alone is worth."""

from __future__ import annotations

import numpy as np

from distillscope.draws import keyed_rng
from distillscope.measure.moments import moments
from distillscope.measure.quantity import NotMeasured
from distillscope.measure.similarity import linear_cka, linear_cka_debiased, overlap, procrustes


def permutations(count: int, draws: int, seed: int, purpose: str) -> list[np.ndarray]:
    """``draws`` random orders of ``count`` items."""
    return [keyed_rng(seed, "null", purpose, draw).permutation(count) for draw in range(draws)]


def moment_draws(teacher: np.ndarray, student: np.ndarray, draws: int, seed: int) -> dict[str, np.ndarray]:
    """Null draws of the three measures made of scatters, from rows ``teacher`` (n, d) and ``student`` (n, d')."""
    teacher, student = teacher - teacher.mean(axis=0), student - student.mean(axis=0)
    scatters = moments(teacher).scatter, moments(student).scatter
    energies = np.square(teacher).sum(axis=1), np.square(student).sum(axis=1)
    found: dict[str, list[float]] = {"linear_cka": [], "linear_cka_debiased": [], "procrustes": []}
    for order in permutations(len(teacher), draws, seed, "moments"):
        cross = student[order].T @ teacher
        found["linear_cka"].append(linear_cka(cross, *scatters))
        found["linear_cka_debiased"].append(linear_cka_debiased(cross, *scatters, energies[0], energies[1][order]))
        found["procrustes"].append(procrustes(cross, *scatters))
    return {name: np.array(values) for name, values in found.items()}


def rsa_draws(teacher: np.ndarray, student: np.ndarray, draws: int, seed: int) -> np.ndarray:
    """Null draws of RSA from condensed distances (n (n - 1) / 2,)."""
    from scipy.spatial.distance import squareform
    from scipy.stats import rankdata

    first, second = (rankdata(d) for d in (teacher, student))
    first, second = first - first.mean(), second - second.mean()
    if not (first.any() and second.any()):
        raise NotMeasured("all embeddings of a side are equally far from one another, so there is no order to compare")
    first, second = first / np.linalg.norm(first), second / np.linalg.norm(second)
    first, second = squareform(first), squareform(second)  # both triangles, so sums are twice those over pairs
    return np.array([float((first * second[np.ix_(order, order)]).sum() / 2)
                     for order in permutations(len(first), draws, seed, "rsa")])


def mutual_knn_draws(teacher: np.ndarray, student: np.ndarray, draws: int, seed: int) -> np.ndarray:
    """Null draws of the mutual neighbour share from neighbour positions (n, k)."""
    def shuffled(order: np.ndarray) -> np.ndarray:
        renamed = np.empty(len(order), np.intp)
        renamed[order] = np.arange(len(order))  # the student's item order[i] now stands at i
        return renamed[student[order]]

    return np.array([float(np.mean(overlap(teacher, shuffled(order))))
                     for order in permutations(len(teacher), draws, seed, "neighbours")])
