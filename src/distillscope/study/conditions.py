"""The noise that a study tests under."""

from __future__ import annotations

from distillscope.config.study import Study
from distillscope.data.noise import Noise
from distillscope.results.rows import Condition


def noise_conditions(study: Study) -> dict[tuple[Condition, int], Noise]:
    """(condition, draw) -> noise, for every sigma above 0 and every independent draw."""
    sweep = study.noise
    return {
        (Condition.noise(sigma), draw): Noise(sigma, sweep.spec, draw, sweep.seed)
        for draw in range(sweep.draws) for sigma in sweep.sigmas if sigma > 0
    }
