"""A new measure is a function and a line of facts: table, terminal, comparison and audit then show it."""

from __future__ import annotations

import json
from io import StringIO

import numpy as np
import pytest
from rich.console import Console

from builders.synthetic_run import make_run
from distillscope import audit
from distillscope.compare.runs import compare_runs
from distillscope.registry import measures
from distillscope.report.audit_terminal import audit_table
from distillscope.report.study_terminal import terminal_table
from distillscope.report.tables import build_table, to_markdown
from distillscope.results.keys import KEYS, Key, facts_of
from distillscope.results.models import settings_of
from distillscope.results.rows import Row, tidy
from distillscope.results.run import read_results, read_run
from distillscope.results.rundir import write_results
from distillscope.results.summary import Summary


@pytest.fixture
def same_sign(monkeypatch):
    """The whole of what a contributor writes: a measure, and its line in results/keys.py."""
    list(measures)  # all of the program's own are there

    @measures.register("similarity.same_sign", unit="share", group="similarity")
    def share(paired_cosines: np.ndarray) -> float:
        """Share of the items whose two embeddings point to one side."""
        return float((paired_cosines > 0).mean())

    monkeypatch.setitem(KEYS, "similarity.same_sign",
                        Key("same sign", 1, scale=100, unit="points", better="higher", column=True))
    yield "similarity.same_sign"
    measures._parts.pop("similarity.same_sign")


def printed(part) -> str:
    console = Console(file=StringIO(), width=200)
    console.print(part)
    return console.file.getvalue()


def with_measure(run, measure, values):
    """The synthetic run with one number more in each trial, written as a study writes it."""
    for folder in sorted((run / "trials").iterdir()):
        frame = read_results(folder / "results.csv")
        head = {k: v for k, v in frame.iloc[0].items() if k not in Row._fields}
        rows = [{**r, "draw": r["draw"]} for r in frame.to_dict("records")]
        done = json.loads((folder / "complete.json").read_text())
        more = tidy(head, [Row.clean(measure, values[head["seed"]], 500, "share")])
        write_results(folder, [*rows, *more], json.loads((folder / "curves.json").read_text()), done)
    return run


def test_a_new_measure_is_shown_everywhere(same_sign, tmp_path):
    x = np.random.default_rng(0).normal(size=(60, 4))
    found = audit(x, x, groups=["similarity"], intervals=False)
    assert found[same_sign] == 1.0
    assert "same sign" in printed(audit_table(found, full=True)) and "100.0" in printed(audit_table(found, full=True))

    runs = [with_measure(make_run(tmp_path / name, students=("S",), seeds=(1, 2), dim=8, epochs=1, labels=False), same_sign,
                         {1: start, 2: start + 0.02}) for name, start in (("a", 0.5), ("b", 0.75))]
    run = read_run(runs[0])
    table = build_table(run, settings_of(run), Summary.of(run))
    assert table.head[-1] == "same sign" and "51.0 ± 1.4" in to_markdown(table)
    assert "same sign" in printed(terminal_table(runs[0]))
    (difference,) = [d for d in compare_runs(runs).differences if d.measure == same_sign]
    assert difference.quantity.title == "same sign" and difference.quantity.unit == "points"
    assert difference.quantity.scale * difference.value == pytest.approx(25.0)


def test_what_has_no_line_is_shown_by_its_name():
    assert facts_of("student.stable_rank") == Key("stable rank") and not facts_of("student.stable_rank").column


@pytest.mark.parametrize("name", sorted(KEYS))
def test_facts_are_whole(name):
    facts = KEYS[name]
    assert facts.title and facts.num_few <= facts.digits and facts.scale in (1, 100)
    assert facts.is_percent == (facts.unit == "points")
