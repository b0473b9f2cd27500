"""docs/objectives.md names every objective, target and projector, and its examples run."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from builders.tiny import tiny_study
from distillscope.objectives import GIVEN
from distillscope.registry import objectives, projectors, targets

PAGE = (Path(__file__).parents[2] / "docs" / "objectives.md").read_text()
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


def test_every_part_stands_in_its_table():
    rows = set(re.findall(r"^\| `(\w+)` \|", PAGE, re.MULTILINE))
    assert rows == set(objectives) | set(targets)
    assert all(name in PAGE for name in projectors)
    assert all(f"`{name}`" in PAGE for name in GIVEN)


def test_the_yaml_is_a_study():
    (text,) = [body for language, body in BLOCKS if language == "yaml"]
    assert [a.name for a in tiny_study(**yaml.safe_load(text)).arms] == ["mixed", "projected"]


def test_the_example_of_twin_and_ridge_map_prints_what_it_says(capsys):
    exec([body for language, body in BLOCKS if language == "python"][0], {})
    raw, mapped = map(float, capsys.readouterr().out.split())
    assert raw == pytest.approx(15, abs=0.5)
    assert mapped == pytest.approx(3.5, abs=0.2)


def test_an_objective_of_ones_own_is_one_function(monkeypatch):
    monkeypatch.setattr(objectives, "_parts", dict(objectives._parts) if list(objectives) else {})
    exec([body for language, body in BLOCKS if language == "python"][1], {"__name__": "mine"})
    assert objectives.check("squared_cosine", {"power": 3}) == {"power": 3.0}
    tiny_study(arms=[{"name": "a", "objective": {"name": "squared_cosine", "power": 3}}])
