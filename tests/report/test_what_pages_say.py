"""What pages, tables and figures say holds in the cases that a reader meets least: parts missing, ties, nothing lost."""

from __future__ import annotations

import io
import itertools
import math
from pathlib import Path

import pandas as pd

from builders.synthetic_run import keep_pictures, make_run
from distillscope.claims.verdict import Decision, Verdict
from distillscope.measure.results import Value
from distillscope.report.claims import claims_table
from distillscope.report.context.study import arms_of
from distillscope.report.draw.with_matplotlib import draw
from distillscope.report.draw.with_plotly import to_plotly
from distillscope.report.figures.audit_items import STUDENT_MODEL, dots
from distillscope.report.figures.figure import ends
from distillscope.report.sentences import study as sentences
from distillscope.report.sentences.audit_measures import between, told
from distillscope.report.sentences.recommendation import gain
from distillscope.report.study_page import Findings
from distillscope.results.models import settings_of
from distillscope.results.run import read_run
from distillscope.results.statistics import paired


def findings(run: Path) -> Findings:
    return Findings.of(read_run(run))


def changed(run: Path, where: str, measure: str, value: float, condition: str | None = None) -> Path:
    """Sets a measure to one value in the folders of that pattern."""
    for path in run.glob(f"{where}/results.csv"):
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


def test_a_level_without_spread_does_not_take_the_other_levels_intervals_away(tmp_path):
    """At one level all seeds give one number, which is no interval: the band of the whole line was left out."""
    run = changed(make_run(tmp_path / "run", students=("S", "M")), "trials/*", "paper.probe.student.accuracy", 0.7, "clean")
    figure = findings(run).figures["noise"]
    line = next(s for s in figure.panels[0].series if s.label == "S")
    assert [math.isfinite(v) for v in line.low] == [False, True, True, True, True] and line.lower[0] == line.y[0]
    (drawn,) = (t for t in to_plotly(figure)[0]["data"] if t["meta"]["label"] == "S")
    assert drawn["error_y"]["array"][0] is None and all(v > 0 for v in drawn["error_y"]["array"][1:])
    assert ["95 %" in said for said in drawn["hovertemplate"]] == [False, True, True, True, True]
    assert draw(figure).axes[0].containers and "Bars stand in place of a band" in figure.reading


def test_a_value_without_an_interval_does_not_take_the_others_away():
    values = [Value(0.5, 0.4, 0.6, 100, "", "share"), Value(1.0, None, None, 100, "", "share")]
    series = dots(STUDENT_MODEL, [0.0, 1.0], values, ["a", "b"])
    assert series.low[0] == 0.4 and math.isnan(series.low[1]) and series.upper == [0.6, 1.0] and series.gaps
    assert ends([values[1]]) == {"low": None, "high": None}


def spoken(run: Path) -> str:
    """The headline and the sentences of what was lost and whether it matters."""
    found = findings(run)
    parts = ([sentences.headline(s, found.summary), *sentences.what_was_lost(s, found.summary),
              *sentences.does_it_matter(found.run, s, found.summary)] for s in found.settings)
    return "\n".join(itertools.chain.from_iterable(parts))


def with_rows(run: Path, where: str, like: str, measure: str, value: float, at: str | None = None) -> Path:
    """Adds a measure in the folders of that pattern, under each condition (or one) of another measure."""
    for path in run.glob(f"{where}/results.csv"):
        frame = pd.read_csv(path)
        rows = frame[(frame["measure"] == like) & ((frame["condition"] == at) if at else True)]
        pd.concat([frame, rows.assign(measure=measure, value=value)]).to_csv(path, index=False)
    return run


def test_a_probe_that_another_contradicts_is_named_with_the_other_one(tmp_path):
    """A probe with a fixed C may find nothing in a student that a tuned one finds better than its teacher."""
    run = make_run(tmp_path / "run", students=("S", "M"))
    with_rows(run, "trials/*", "paper.probe.student.accuracy", "probe.student.accuracy", 0.96)
    with_rows(run, "references/*", "paper.probe.teacher.accuracy", "probe.teacher.accuracy", 0.95)
    said = spoken(run).replace("\u00a0", " ")
    assert ("22.6 to 23.4 points less accurate than their teacher clip-vit-b32 (94.3 %) by a linear probe (C = 1, unit norm), "
            "but 1.0 points more accurate than it (95.0 %) by a linear probe (tuned), and use") in said
    assert "in points, by a linear probe (C = 1, unit norm): teacher" in said
    assert "in points, by a linear probe (tuned): teacher 0.0, S 0.0 and M 0.0." in said
    head = findings(run).table.head
    assert head[head.index("clean, %") + 1] == "clean by a linear probe (tuned), %"


def test_no_student_is_named_the_most_accurate_where_others_are_not_shown_to_be_below_it(tmp_path):
    run = make_run(tmp_path / "run", students=("S", "M", "L"), seeds=(42,))
    assert "L is, by the mean, the most accurate student, not shown to be ahead of S and M: 21.1 points less" in spoken(run)
    tied = spoken(changed(run, "trials/*", "paper.probe.student.accuracy", 0.9))
    assert "S, M and L are, by the mean, the most accurate students: 4.3 points less accurate than the teacher" in tied


def test_a_student_that_equals_its_teacher_is_not_called_less_accurate(tmp_path):
    run = make_run(tmp_path / "run", students=("S",))
    changed(run, "*/*", "accuracy", 1.0)
    said = spoken(run)
    assert "student S is as accurate as its teacher" in said and "0.0 points less" not in said


def test_students_that_only_guess_are_said_to(tmp_path):
    run = changed(make_run(tmp_path / "run", students=("S", "M")), "trials/*", "paper.probe.student.accuracy", 0.11)
    with_rows(run, "references/*", "paper.probe.teacher.accuracy", "knn.largest_class", 0.1, "clean")
    assert "On clean images S and M do hardly better than always guessing the largest class (10.0\u00a0%)" in spoken(run)
    changed(run, "trials/*", "paper.probe.student.accuracy", 0.5)
    assert "guessing" not in spoken(run)


def test_an_end_that_is_not_0_says_on_which_side_of_it_it_lies():
    value = Value(0.0002, 0.00004, 0.0012, 5000, "", "share")
    assert told(value, "probe.negative_flips") == "0.020\u00a0%" and between(value, "probe.negative_flips") == "[0.004, 0.120]"
    assert [gain(paired([0.1, 0.2, 0.15, last])) for last in (0.04, 0.01)] == ["+0.1 [0.01, 0.23]", "+0.1 [−0.01, 0.24]"]


def test_of_classes_that_tie_none_is_named_alone(tmp_path):
    """Every class of the invented pictures is confused alike."""
    figures = findings(keep_pictures(make_run(tmp_path / "run", students=("S", "M"), seeds=(1,)), count=24)).figures
    (widest,), (confused,) = figures["by_class"].findings, figures["confusion"].findings
    assert widest == ("The widest gap to the teacher is on “<class 0>”, “<class 1>”, “<class 2>” and “<class 3>”: 83.3 points "
                      "by the mean of the students.")
    assert confused.count("(as much for 3 other pairs of classes)") == 2


def test_means_that_are_equal_at_a_level_cross_there(tmp_path):
    """Few test images often give two students one accuracy: no crossing was found on either side of it."""
    run = make_run(tmp_path / "run", students=("S", "L"))
    levels = {"clean": (0.5, 0.6), "noise=0.02": (0.5, 0.6), "noise=0.05": (0.4, 0.4), "noise=0.1": (0.4, 0.3),
              "noise=0.2": (0.3, 0.2)}
    for condition, values in levels.items():
        for student, value in zip("SL", values, strict=True):
            changed(run, f"trials/*--{student}--*", "paper.probe.student.accuracy", value, condition)
    figure = findings(run).figures["noise"]
    assert [m.value for m in figure.panels[0].marks] == [0.05]
    said = "cross at σ ≈ 0.05: beyond it that of S is higher; at σ 0.1 it leads by 10.0 points, n = 3 seeds."
    assert figure.findings == [f"The means of S and L {said}"]


def test_an_arms_row_says_how_many_seeds_each_of_its_differences_has(tmp_path):
    run = make_run(tmp_path / "run", arms=("cosine", "other"), students=("S",))
    (path,) = run.glob("trials/*--other--S--seed42/results.csv")
    frame = pd.read_csv(path)
    frame.loc[frame["measure"] == "student.effective_rank", "value"] = math.nan
    frame.to_csv(path, index=False)
    found = findings(run)
    assert arms_of(found.run, found.settings[0], found.summary).table.rows[0].cells[-1].text == "2 to 3"


def test_a_student_above_the_ceiling_keeps_no_nats(tmp_path):
    run = changed(make_run(tmp_path / "run", students=("S", "M"), seeds=(1,)), "trials/*", "paper.infonce", 4.2)
    (said,) = findings(run).figures["information"].findings
    assert said == "Nats below the ceiling: S none (it is above), M none (it is above)."


def test_a_narrow_terminal_cuts_no_claims_name():
    from rich.console import Console

    endpoint = "accuracy under band=0.75-1/0.1-and-more"
    verdicts = tuple(Verdict(name, "", "undecided", endpoint, "", {}, 5) for name in ("capacity-limit", "rank-robustness"))
    console = Console(width=60, record=True, file=io.StringIO())
    console.print(claims_table(Decision("digits", "t", verdicts)))
    cells = [[cell.strip() for cell in line.split("│")[1:3]] for line in console.export_text().splitlines() if "│" in line]
    assert "".join(first for first, _ in cells) == "capacity-limitrank-robustness"
    assert "".join(second for _, second in cells) == "undecidedundecided"


def test_an_interval_of_a_share_ends_at_100_per_cent(tmp_path):
    run = make_run(tmp_path / "run", students=("S",))
    for seed, value in ((42, 0.97), (123, 1.0), (456, 0.99)):
        with_rows(run, f"trials/*seed{seed}", "knn.student.accuracy", "mapped.recall_at_1", value)
    found = findings(run)
    recall = found.summary.get(found.settings[0].students[0], "mapped.recall_at_1")
    assert recall.high == 1.0 and 0.9 < recall.low < recall.mean
