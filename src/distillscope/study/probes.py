"""The linear probes of a study: fitted on clean train embeddings, one setting as in the paper and one tuned."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from distillscope.config.study import Study
from distillscope.data.source import labels_of
from distillscope.data.splits import Splits
from distillscope.measure.probe import LinearProbe, linear_probe, tuned_probe
from distillscope.results.rows import Row

PROBES = {"paper": "paper.probe", "tuned": "probe"}
"""Probe -> the head of its keys: the paper's setting stands under paper.*, the tuned one under probe.*."""


def heads(probes: Mapping[str, LinearProbe]) -> dict[str, LinearProbe]:
    """The probes by the head of their keys."""
    return {PROBES[name]: probe for name, probe in probes.items()}


def fit_probes(study: Study, train: np.ndarray, splits: Splits, validation: np.ndarray | None,
               chosen: np.ndarray) -> tuple[dict[str, LinearProbe], list[str]]:
    """The probes that the study asks for, fitted on clean train embeddings; and what could not be fitted."""
    probes: dict[str, LinearProbe] = {}
    missing: list[str] = []
    labels = labels_of(splits.train)
    if study.probes.paper:
        probes["paper"] = linear_probe(train[chosen], labels[chosen], max_iter=study.probes.max_iter)
    if study.probes.tuned and validation is not None and splits.validation is not None:
        probes["tuned"] = tuned_probe(train, labels, validation, labels_of(splits.validation), cs=study.probes.cs,
                                      max_iter=study.probes.max_iter)
    elif study.probes.tuned:
        missing.append("probe (tuned): no validation part; set validation=1000")
    return probes, missing


def refit(study: Study, probes: Mapping[str, LinearProbe]) -> Callable[[np.ndarray, np.ndarray], dict[str, LinearProbe]]:
    """Fits the same kinds of probe to other embeddings; the tuned one keeps its C."""
    def fit(z: np.ndarray, labels: np.ndarray) -> dict[str, LinearProbe]:
        own: dict[str, dict[str, Any]] = {"paper": {}, "tuned": {"standardise": True, "unit_norm": False, "tol": 1e-5}}
        return heads({name: linear_probe(z, labels, c=probe.c, max_iter=study.probes.max_iter, **own[name])
                      for name, probe in probes.items()})

    return fit


def probe_rows(probes: Mapping[str, LinearProbe], predictions: Mapping[tuple, np.ndarray], labels: np.ndarray,
               side: str) -> list[Row]:
    """Accuracy under every condition; the certificate and C of each fit."""
    rows = [Row(f"{PROBES[name]}.{side}.accuracy", condition, draw, float((predicted == labels).mean()), len(labels),
                "fraction") for (name, condition, draw), predicted in predictions.items()]
    for name, probe in probes.items():
        head = f"{PROBES[name]}.{side}"
        rows += [Row.clean(f"{head}.gradient_norm", probe.gradient_norm, len(labels), "norm of the mean loss's gradient"),
                 Row.clean(f"{head}.c", probe.c, len(labels), "inverse penalty")]
    return rows
