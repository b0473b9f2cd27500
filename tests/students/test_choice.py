"""Which of the ways to int8 is taken, and which layers are left in float: the choice alone, on measures that are planned."""

from __future__ import annotations

import pytest

from builders import refused
from distillscope.students.export.quantise import BoundMissed, Point, Quantiser, choose


class Planned(Quantiser):
    """Five layers of known harm: what a point would measure, without a network."""

    harm = {"a": 0.02, "b": 0.01, "c": 0.0, "d": 0.001, "e": 0.001}

    def __init__(self, large="e"):
        self.layers = {n: f"block.{n}" for n in self.harm}
        self.weights = {n: 1000 if n == large else 10 for n in self.harm}
        self.float_bytes = 4 * sum(self.weights.values()) + 100

    def point(self, method, weight_bits, in_float=()):
        lost = sum(v for n, v in self.harm.items() if n not in in_float)
        lost += 0 if (method, weight_bits) == ("Entropy", 8) else 0.1
        size = 100 + sum(w * (4 if n in in_float else 1) for n, w in self.weights.items())
        return Point(method, weight_bits, tuple(in_float), 1 - lost, 1 - 2 * lost, size)


def test_layers_that_hurt_are_left_in_float_and_no_more():
    chosen, tried = choose(Planned(), 0.985, "s")
    assert (chosen.method, chosen.weight_bits, chosen.in_float) == ("Entropy", 8, ("a",)), tried
    assert choose(Planned(), 0.995, "s")[0].in_float == ("a", "b")
    assert choose(Planned(), 0.9, "s")[0].in_float == ()


def test_a_bound_that_no_small_file_keeps_gives_the_frontier():
    with pytest.raises(BoundMissed) as caught:
        choose(Planned(), 0.9995, "s")
    assert "--min-cosine 0.999," in str(caught.value)
    rows = caught.value.frontier
    assert [r["bytes"] for r in rows] == sorted(r["bytes"] for r in rows)
    assert [r["mean_cosine"] for r in rows] == sorted(r["mean_cosine"] for r in rows)
    assert rows[0]["in_float"] == [] and "block.a" in rows[-1]["in_float"]


def test_a_file_that_is_hardly_smaller_is_refused():
    small = Planned()
    small.float_bytes, small.weights = 140, dict.fromkeys(small.harm, 2)
    with refused(expected="3 times", got="no weights", advice="fixed part"):
        choose(small, 0.9, "s")
