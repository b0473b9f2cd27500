"""A probe that was fitted to noisy embeddings: what noise moves, as against what it destroys."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from distillscope.config.parts import NoiseSpec
from distillscope.data.noise import Noise
from distillscope.data.source import Source
from distillscope.registry import stresses
from distillscope.results.rows import Condition, Row
from distillscope.stress.subject import Findings, Probe, Subject, few, need_labels, need_range


@stresses.register("noise_probe")
def noise_probe(model: Subject, test: Source, labels: np.ndarray | None, seed: int, *, sigmas: tuple[float, ...] = (0.1, 0.2),
                spec: NoiseSpec = NoiseSpec(), train_items: int = 5000, items: int = 1000) -> Findings:
    """Probes fitted to embeddings of noisy train images, tested at the same sigma (noise_probe.*, condition noise_probe=SIGMA).

    What such a probe wins back was only shifted by the noise; what it does not was lost. Beside it stands the clean probe
    of equal size, fitted to the same `train_items` train images without noise: noise_probe.* at noise_probe=0 (tested
    clean) and noise_probe.*.clean_fit_accuracy (tested at the sigma).
    """
    need_labels(labels, "stresses.noise_probe")
    for sigma in sigmas:
        need_range(sigma, "stresses.noise_probe.sigmas")
    tested, train = few(test, items, "stresses.noise_probe"), few(model.train, train_items, "stresses.noise_probe")
    train_labels = need_labels(train.labels, "stresses.noise_probe")
    clean = model.fit(model.embed(train, None, "noise_probe, train"), train_labels)
    z = model.embed(tested, None, "noise_probe, test")
    found = Findings(rows=_rows(model, clean, z, tested, "accuracy", Condition.of("noise_probe", level=0)))
    for sigma in (s for s in sigmas if s > 0):
        name = Condition.of("noise_probe", level=sigma)
        # Draw 0 of the test noise is that of the noise sweep, for the probes to be tested on the same images.
        noise = Noise(sigma, spec, 0, seed)
        z = model.embed(tested, noise, f"{name}, test")
        noisy = model.fit(model.embed(train, noise, f"{name}, train"), train_labels)
        found.rows += _rows(model, noisy, z, tested, "accuracy", name)
        found.rows += _rows(model, clean, z, tested, "clean_fit_accuracy", name)
        found.conditions[name] = noise.both_units()
    return found


def _rows(model: Subject, probes: Mapping[str, Probe], z: np.ndarray, items: Source, what: str, condition: str) -> list[Row]:
    """noise_probe.paper.student.accuracy and its like."""
    return [Row(f"noise_probe.{head.split('.')[0] if '.' in head else 'tuned'}.{model.side}.{what}", condition, None,
                float((probe.predict(z) == items.labels).mean()), len(items), "fraction") for head, probe in probes.items()]
