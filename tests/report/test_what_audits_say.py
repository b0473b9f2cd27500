"""What an audit says holds where nothing was lost, where all classes tie, and where numbers lie beyond the usual."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from distillscope import audit
from distillscope.measure.results import Audit, Line, Stage, Value
from distillscope.report.audit_page import Audited
from distillscope.report.sentences import audit as sentences
from distillscope.report.sentences.audit_measures import SENTENCES, meaning, p_text
from distillscope.report.sentences.stages import stage_findings, value_text

rng = np.random.default_rng(1)
LABELS = rng.integers(0, 3, 300)
TEACHER = rng.normal(size=(300, 24)) + 2 * rng.normal(size=(3, 24))[LABELS]


@pytest.fixture(scope="module")
def same() -> Audit:
    """A student that is its teacher."""
    return audit(TEACHER, TEACHER.copy(), labels=LABELS)


def said(found: Audit, name: str) -> str:
    return meaning(next(line for line in found.lines() if line.name == name), found)


def findings(found: Audit, key: str) -> str:
    return " ".join(Audited(found, Path("nothing"), "t", "s", "", {}).figures[key].findings)


def test_of_classes_that_all_tie_none_is_named_the_worst(same):
    assert findings(same, "subsets").replace("\u00a0", " ") == (
        "A linear probe: all 3 classes keep one share of the teacher's accuracy, 100.0 %; none of them is shown to have lost "
        "something.")
    assert said(same, "probe.worst_class_retention").startswith("All 3 have it alike. The interval")


def test_a_copy_leans_no_more_on_the_leading_components_than_its_teacher(same):
    """Rounding alone made the sentence."""
    assert "leans about as much on the leading components as the teacher" in said(same, "alignment.student_variance_top20")
    some = {"alignment.teacher_variance_top20": Value(0.9, None, None, 300, "", "share")}
    for value, word in (((0.95, 0.93, 0.97), "more"), ((0.8, 0.7, 0.85), "less"), ((0.91, 0.85, 0.97), "about as much")):
        line = Line("alignment.student_variance_top20", None, Value(*value, 300, "", "share"), ())
        assert f"leans {word} on" in SENTENCES[line.name](line, Audit(some))


def test_labels_that_fit_neither_side_are_not_said_to_fit_both():
    found = audit(rng.normal(size=(300, 16)), rng.normal(size=(300, 8)), labels=rng.integers(0, 3, 300))
    assert found.doubt and "labels fit" not in found.doubt
    (first, *_) = sentences.does_it_matter(found)
    assert first.startswith("These 3 classes cannot show a loss") and "keeps" not in first
    fitting = audit(TEACHER, TEACHER[rng.permutation(300)], labels=LABELS)
    assert "the labels fit the teacher's rows, not the student's" in fitting.doubt


def test_a_student_that_keeps_no_nats_is_said_to_and_drawn():
    found = audit(TEACHER, 1 + 1e-4 * rng.normal(size=TEACHER.shape))
    assert "candidates the student keeps nothing: its loss of" in findings(found, "contrastive")
    panel = Audited(found, Path("nothing"), "t", "s", "", {}).figures["contrastive"].panels[0]
    assert panel.y_range[0] < min(min(s.y) for s in panel.series) < 0, "the line would lie below the drawing"
    spread = audit(TEACHER + 20, TEACHER)
    assert "times the nats by which the teacher does itself" in said(spread, "contrastive.retained_share")
    assert said(spread, "mean_energy").startswith("Most of the teacher's energy is one common mean")


def test_what_is_predicted_for_sure_is_not_called_nothing():
    line = Line("alignment.teacher_r2", None, Value(0.015, 0.012, 0.018, 9000, "", "R2"), ())
    assert said_of(line).startswith("1.5\u00a0% of the teacher's variance can be predicted linearly")
    line = Line("alignment.teacher_r2", None, Value(0.004, -0.002, 0.008, 300, "", "R2"), ())
    assert said_of(line) == "Nothing of the teacher can be predicted linearly from the student."


def said_of(line: Line) -> str:
    return SENTENCES[line.name](line, Audit())


def test_a_stage_that_lost_little_does_not_read_as_whole():
    before = Stage("teacher", "t", {"accuracy": Value(1.0, 1.0, 1.0, 9999, "", "share")})
    flips = {"negative_flips": Value(3 / 9999, 0.0001, 0.0009, 9999, "", "share"),
             "positive_flips": Value(0.0, 0.0, 0.0004, 9999, "", "share")}
    found = Audit(stages=[before, Stage("student", "s", flips)])
    assert "3 of 9,999 items were right before and are wrong after it (0.03\u00a0% [0.01, 0.09])" in stage_findings(found)[0]
    assert value_text(Value(0.9997, None, None, 9999, "", "share")) == "99.97"


def test_where_no_loss_was_found_the_labels_are_not_said_to_make_it_harmless(same):
    """'No loss was found ...; on these labels that does not matter' spoke of a loss that there was not."""
    assert "; nor on these labels, where a linear probe keeps 100.0" in sentences.headline(same)
    noisy = audit(TEACHER, TEACHER + rng.normal(size=TEACHER.shape), labels=LABELS)
    assert "; on these labels that does not matter, since" in sentences.headline(noisy)


def test_a_p_beside_the_bound_reads_as_on_its_side():
    said = [p_text(p).replace("\u00a0", " ") for p in (0.0496, 0.05004, 0.05, 0.2)]
    assert said == ["p = 0.0496", "p = 0.05004", "p = 0.050", "p = 0.200"]
