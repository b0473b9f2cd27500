"""Conditions are taken apart and put together in one place, whatever stress made them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builders.planted import planted_run
from builders.synthetic_run import SIGMAS
from distillscope.config.study import Stress
from distillscope.data.source import Source
from distillscope.registry import stresses
from distillscope.results.rows import CLEAN, COLUMNS, Condition, Row, in_order, tidy
from distillscope.stress.run import rehearse, run_stresses
from distillscope.stress.subject import Subject


def source(split: str, n: int = 24, side: int = 8) -> Source:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (n, side, side, 3)).astype(np.uint8)
    return Source("made", split, np.array([f"{split}/{i}" for i in range(n)]), pixels.__getitem__, np.arange(n) % 3,
                  ("a", "b", "c"), pixels)


@pytest.fixture(scope="module")
def produced() -> set[str]:
    """Every condition that a stress of the program gives, of either side and place, and those of the builders' runs."""
    train, test, probe = source("train"), source("test"), type("Probe", (),
                                                               {"predict": lambda self, z: np.zeros(len(z), int)})()
    model = Subject("student", lambda items, perturbation, label: np.random.default_rng(0).normal(size=(len(items), 4)),
                    {"probe": probe, "paper.probe": probe}, train, lambda z, labels: {"probe": probe})
    found: set[str] = {CLEAN, *(f"noise={s}" for s in SIGMAS), *planted_run().results["condition"].unique()}
    for name in set(stresses) - {"gradient", "latency", "attack"}:
        places = [{"where": "source"}, {"where": "input"}] if "where" in stresses.settings(name) else [{}]
        more = {"corruptions": {"names": ("fog", "brightness"), "severities": (1, 5)},
                "top_k": {"students": True}}.get(name, {})
        for place in places:
            asked = [Stress(name=name, **more, **place)]
            found |= {row.condition for row in run_stresses(asked, model, test, 0).rows}
            found |= set(rehearse(asked, train, test, 0)[1].conditions)
    return found | {Condition.of("attack", "linf", 0.5), Condition.unchanged("attack")}


def test_every_condition_is_its_parts(produced):
    assert len(produced) > 40
    assert {"fourier=low", "top_k=whitened/0.1", "band=0-0.25/0.1@input", "corruption=fog/5", "noise_probe=0.2"} <= produced
    for text in produced:
        condition = Condition.parse(text)
        assert Condition.of(*condition.parts) == condition == text and str(Condition.parse(str(condition))) == text
        assert condition.kind == text.partition("=")[0]
        assert condition.reference.is_unchanged and condition.reference.reference == condition.reference


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet="ab=/@-.0159e~ é", max_size=14))
def test_text_of_any_form_comes_back(text):
    condition = Condition.parse(text)
    assert Condition.of(*condition.parts) == text
    assert condition.strength is None or isinstance(condition.strength, float)
    assert condition.bounds is None or len(condition.bounds) == 2


@pytest.mark.parametrize(("text", "kind", "what", "strength", "place", "sigma"), [
    ("clean", "clean", "", None, "", 0.0), ("noise=0.05", "noise", "", 0.05, "", 0.05),
    ("noise=x", "noise", "", None, "", None),
    ("noise_probe=0", "noise_probe", "", 0.0, "", None), ("band=0.5-1.5/0.1@input", "band", "0.5-1.5", 0.1, "input", None),
    ("corruption=mean", "corruption", "mean", None, "", None),
    ("corruption=jpeg_compression/4", "corruption", "jpeg_compression", 4.0, "", None),
    ("attack=linf/0.5", "attack", "linf", 0.5, "", None), ("top_k=all/0.2", "top_k", "all", 0.2, "", None),
    ("fourier=mid", "fourier", "mid", None, "", None),
    ("blur=gaussian/3", "blur", "gaussian", 3.0, "", None), ("rotated", "rotated", "", None, "", None)])
def test_parts(text, kind, what, strength, place, sigma):
    found = Condition.parse(text)
    assert (found.kind, found.what, found.strength, found.place, found.sigma) == (kind, what, strength, place, sigma)


def test_bands_of_any_width():
    assert Condition.parse("band=1e-05-0.25/0.1").bounds == (1e-05, 0.25)
    assert Condition.band(0, 0.25, 0.1).bounds == (0.0, 0.25) and Condition.unchanged("band").bounds is None


def test_order():
    assert in_order(["top_k=4", "noise=0.2", "clean", "noise=0.1",
                     "band=none"]) == ["clean", "noise=0.1", "noise=0.2", "band=none", "top_k=4"]


def test_a_row_has_the_columns_that_are_its_own():
    head = dict.fromkeys(set(COLUMNS) - set(Row._fields), "")
    (line,) = tidy(head, [("m", "clean", None, 1.0, 2, "dims")])
    assert set(line) == set(COLUMNS) and line["n"] == 2
    assert Row.clean("m", 1.0, 2, "dims") == ("m", "clean", None, 1.0, 2, "dims")
