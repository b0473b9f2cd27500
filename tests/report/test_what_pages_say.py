"""What pages, tables and figures say holds in the cases that a reader meets least: parts missing, ties, nothing lost."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from builders.synthetic_run import make_run

from distillscope.report.draw.with_matplotlib import draw
from distillscope.report.study_page import Findings
from distillscope.results.models import settings_of
from distillscope.results.run import read_run


def findings(run: Path) -> Findings:
    return Findings.of(read_run(run))


def changed(run: Path, where: str, measure: str, value: float, condition: str | None = None) -> Path:
    """Sets a measure in every trial (or reference) to one value."""
    for path in run.glob(f"{where}/*/results.csv"):
        frame = pd.read_csv(path)
        rows = frame["measure"].str.endswith(measure) & ((frame["condition"] == condition) if condition else True)
        frame.loc[rows, "value"] = value
        frame.to_csv(path, index=False)
    return run


def test_an_unfinished_first_arm_keeps_its_name_look_and_published_values(tmp_path):
    """They were given to the second arm: its rows were called S and M, drawn solid, beside the paper's numbers."""
    seeds = (42, 123)
    run = make_run(tmp_path / "run", arms=("cosine", "other"), students=("S", "M"), seeds=seeds,
                   incomplete=[("cosine", s, seed) for s in ("S", "M") for seed in seeds],
                   published=[{"student": "S", "condition": "clean", "measure": "student.effective_rank", "value": 15.91}])
    found = findings(run)
    assert [(m.label, m.dash) for m in found.settings[0].students] == [("S (other)", "dash"), ("M (other)", "dash")]
    assert all(cell.published is None for row in found.table.rows for cell in row.cells)
    assert any("published values have no row" in note for note in found.table.notes)


def test_more_students_than_colours_keep_apart(tmp_path):
    students = tuple("ABCDEFGHIJKLMN")
    models = settings_of(read_run(make_run(tmp_path / "run", students=students, seeds=(1,))))[0].students
    assert len({(m.colour, m.marker) for m in models}) == len(students)


def test_a_name_that_begins_with_an_underscore_is_in_the_legend(tmp_path):
    canvas = draw(findings(make_run(tmp_path / "run", students=("_S", "M"), seeds=(1, 2))).figures["noise"])
    assert [text.get_text().strip() for legend in canvas.legends for text in legend.get_texts()] == ["teacher", "_S", "M"]
