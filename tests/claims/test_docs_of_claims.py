"""docs/claims.md and the presets say what the claims do."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from builders.planted import planted_run
from builders.tiny import tiny_study, tiny_values
from distillscope.claims.results import results_of
from distillscope.claims.verdict import ORDER, decided
from distillscope.config.load import load_preset
from distillscope.registry import claims

PAGE = (Path(__file__).parents[2] / "docs" / "claims.md").read_text()


def test_both_tables_hold_the_ten_in_order_with_their_seeds():
    rows = [[c.strip() for c in line.strip("|").split("|")] for line in PAGE.splitlines() if line.startswith("| `")]
    ids = [r[0].strip("`") for r in rows]
    assert ids == [*ORDER, *ORDER]
    for row in rows[:10]:
        assert int(row[-1].split()[0]) == claims.facts(row[0].strip("`")).seeds


def test_the_controls_of_the_page_are_a_study():
    (text,) = re.findall(r"^```yaml\n(.*?)^```", PAGE, re.M | re.S)
    study = tiny_study(**{**tiny_values(), **yaml.safe_load(text)})
    assert {a.name for a in study.arms} == {"plain", "longer", "regression", "contrast", "white", "noisy"}


@pytest.mark.parametrize("name", ["claims-quick", "claims"])
def test_presets_run_what_every_claim_asks_for(name):
    """Judged by the config alone: on results for all its arms no claim misses a control."""
    study = load_preset(name).dump()
    titles = {a["name"]: f"{a['target']['name']}{a['target'].get('dim', '')}" for a in study["arms"] if a.get("target")}
    run = planted_run(study=study, top_k={"all": 0.6, "16": 0.3}, titles=titles, log_ranks={2: 20.0, 4: 20.0})
    (results,) = results_of([run])
    for claim in ORDER:
        found = decided(claim, results)
        assert "was not run" not in found.reason and "was not measured" not in found.reason, (claim, found.reason)
        assert found.p is not None or "largest" in found.reason, (claim, found.reason)


def test_presets_say_their_time_and_their_limits():
    quick, full = load_preset("claims-quick"), load_preset("claims")
    assert "minutes on two cores" in quick.description and "cannot decide" in quick.description
    assert "hours on two" in full.description.replace("two idle", "two") and len(full.seeds) >= 10
    assert all(len(a.seeds or full.seeds) >= 5 for s in (quick, full) for a in s.arms)
