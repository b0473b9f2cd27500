"""What the terminal says of an audit: its tables, and a first sentence that is true for every kind of pair."""

from __future__ import annotations

import functools
import re

import numpy as np
import pytest
from rich.console import Console

from builders.tiny import FEW, labelled, of_two_dimensions
from distillscope.measure.audit import audit, audit_one
from distillscope.measure.doubt import question
from distillscope.measure.pool import Settings
from distillscope.measure.results import Audit, Value
from distillscope.report.sentences.audit import does_it_matter, headline, losses
from distillscope.report.sentences.audit_measures import SENTENCES, between, meaning, shown, told
from distillscope.report.sentences.numbers import NBSP
from distillscope.report.terminals import GROUPS, MOST, audit_table, full_lines, group_of

NINE_DRAWS = Settings(null_draws=9)
QUICK = {"spectrum", "alignment", "similarity", "retrieval", "knn"}


def printed(found: Audit, width: int = 80, **more) -> str:
    console = Console(width=width, record=True, force_terminal=False, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(audit_table(found, **more))
    return console.export_text().replace(NBSP, " ")


@pytest.mark.parametrize("width", [60, 80, 200])
@pytest.mark.parametrize("full", [False, True])
def test_it_keeps_to_the_width_and_cuts_no_number(width, full):
    text = printed(labelled(), width, full=full)
    assert max(map(len, text.splitlines())) <= width and "…" not in text and "nan" not in text


def test_the_most_useful_measures_are_there_with_both_sides_and_what_is_kept():
    text = printed(labelled())
    assert text.startswith("Most was lost, above all in distinguishing individual items")
    lines = text.splitlines()
    row = next(line for line in lines if line.startswith("  effective rank"))
    assert re.fullmatch(r"  effective rank +18\.4 +9\.0 +49\.2 % +\[8\.9, 9\.2\]", row)
    assert "9 directions evenly" in lines[lines.index(row) + 1]
    for title in ("R² of the teacher", "recall at 1", "retained share", "CKA, debiased", "accuracy", "Labels: neighbours",
                  "McNemar p < 0.001"):
        assert title in text, title
    assert sum(line.startswith("  ") and not line.startswith("   ") for line in lines) == MOST
    assert f"{MOST} of {len(labelled().lines())} measures, 500 items" in text


def test_full_shows_every_measure_once():
    text = printed(labelled(), full=True)
    assert sum(line.startswith("  ") and not line.startswith("   ") for line in text.splitlines()) == len(labelled().lines())
    assert [group_of(line.name) for line in full_lines(labelled())] == sorted(
        (group_of(line.name) for line in full_lines(labelled())), key=list(GROUPS).index)


def test_a_narrow_terminal_has_the_interval_before_the_sentence():
    text = printed(labelled(), 56)
    assert "95 % interval" not in text.splitlines()[6] and "[8.9, 9.2] The student's" in text


def test_what_was_left_out_and_why_is_said_in_short():
    text = " ".join(printed(of_two_dimensions()).split())
    assert "left out: 25 measures and curves of alignment, contrastive, paper, retrieval and swap," in text
    assert "because it needs labels, and none were given." in text
    assert "mapped recall at 1" in text, "what exists for two dimensions takes the place of what does not"


def test_with_few_items_the_corrected_rank_is_shown():
    rng = np.random.default_rng(0)
    found = audit(rng.normal(size=(30, 20)), rng.normal(size=(30, 20)), settings=FEW,
                  groups={"spectrum", "alignment", "similarity"})
    text = printed(found)
    assert "rank, corrected for n" in text and "note: teacher: n = 30 is less than 2 d" in " ".join(text.split())
    assert "both corrected for so few items (n = 30)" in losses(found)[0].sentence


@pytest.mark.parametrize("found", [Audit(), audit_one(np.eye(12)[:, :4] + 1, intervals=False)], ids=["nothing", "one side"])
def test_any_audit_can_be_printed(found):
    assert "measures" in printed(found)


def test_a_sentence_is_about_this_value():
    """Each sentence changes with the value, and none claims what the value does not show."""
    def line(key, value, **others):
        found = Audit({k: Value(v, None, None, 100, "Its definition.", u) for k, (v, u) in {key: value, **others}.items()})
        return meaning(found.lines()[0], found)

    rank = {"teacher.effective_rank": (50.0, "dims")}
    assert "fills about 10" in line("student.effective_rank", (10.0, "dims"), **rank)
    assert "about the same number" in line("student.effective_rank", (50.5, "dims"), **rank)
    assert "1.20 times" in line("student.effective_rank", (60.0, "dims"), **rank)
    assert line("student.effective_rank", (60.0, "dims")) == "Its definition."
    assert "Nothing of the teacher" in line("alignment.teacher_r2", (0.01, "R2"))
    assert "91.0 %" in line("alignment.teacher_r2", (0.91, "R2")).replace(NBSP, " ")
    p = {"probe.retention": (0.9, "share")}
    assert "does not prove equality" in line("probe.retention", (0.9, "share"), **{"probe.mcnemar_p": (0.4, "p")})
    assert "difference is significant" in line("probe.retention", (0.9, "share"), **{"probe.mcnemar_p": (0.004, "p")})
    assert "McNemar" not in line("probe.retention", p["probe.retention"])
    assert "did not converge" in line("probe.student.gradient_norm", (0.1, "norm"))
    assert line("similarity.procrustes",
                (0.3, "share")) == "Its definition.", "without its null there is nothing to compare with"


def test_every_sentence_is_of_a_measure_that_exists_and_reads_as_one():
    lines = {line.name: line for line in labelled().lines()}
    unknown = set(SENTENCES) - set(lines)
    assert not {name for name in unknown if not name.startswith("zero_shot") and "subgroup" not in name}
    for name in SENTENCES.keys() & lines.keys():
        said = meaning(lines[name], labelled())
        assert (said.endswith(".") and said[0].isupper()) or said[0].isdigit(), said
        assert "  " not in said and "nan" not in said


def test_numbers_in_their_units():
    assert shown(0.5, "share", "retrieval.recall_at_1").replace(NBSP, " ") == "50.0 %"
    assert [shown(v, u) for v, u in ((-1.234, "log kernel"), (12.34, "degrees"), (0.1, "C"),
                                     (0, "flag"))] == ["−1.23", "12.3°", "0.1", "no"]


# -- the text views of an audit itself -----------------------------------------------------------------------------------


def test_both_sides_share_a_line_and_accuracies_are_retained_too():
    lines = {line.name: line for line in labelled().lines()}
    assert sorted(key for line in lines.values() for key in line.keys) == sorted(labelled().measured)
    assert lines["probe.accuracy"].keys == ("probe.teacher.accuracy", "probe.student.accuracy")
    assert lines["probe.accuracy"].retained == pytest.approx(labelled()["probe.retention"])
    assert lines["effective_rank"].retained == labelled()["student.effective_rank"] / labelled()["teacher.effective_rank"]
    assert lines["mean_energy"].retained is None and lines["alignment.teacher_r2"].teacher is None
    assert lines["probe.gradient_norm"].retained is None


def test_rows_are_what_repr_and_html_show():
    rows = {row[0]: row[1:] for row in labelled().rows()}
    assert rows["knn.accuracy"][2].endswith(" %") and rows["alignment.teacher_r2"][0] == "" == rows["alignment.teacher_r2"][2]
    text, page = repr(labelled()), labelled()._repr_html_()
    assert all(cell in text and cell in page for name, cells in rows.items() for cell in (name, *cells))
    assert labelled().rows()[0][1] and audit_one(np.eye(12)[:, :4] + 1, intervals=False).rows()[0][2] == ""


def test_a_teacher_without_accuracy_retains_nothing_that_can_be_said():
    values = {f"probe.{side}.accuracy": Value(v, None, None, 10, "Accuracy.", "share")
              for side, v in (("teacher", 0.0), ("student", 0.5))}
    assert Audit(values).lines()[0].retained is None


@functools.cache
def teacher_and_labels(n: int = 150, d: int = 20):
    rng = np.random.default_rng(2)
    labels = rng.integers(0, 4, n)
    teacher = rng.normal(size=(n, d)) * np.arange(1, d + 1) ** -0.5 + 0.2
    teacher[:, :4] += 1.5 * np.eye(4)[labels]
    return teacher.round(6), labels  # processors differ in the last digit of powers, and draws are keyed by content


def int8(z: np.ndarray) -> np.ndarray:
    step = np.abs(z).max() / 127
    return np.round(z / step) * step


def turned(z: np.ndarray) -> np.ndarray:
    return z @ np.linalg.qr(np.random.default_rng(0).normal(size=(z.shape[1],) * 2))[0]


def noisy(z: np.ndarray, noise: float) -> np.ndarray:
    return z + noise * np.random.default_rng(1).normal(size=z.shape)


STUDENTS = {
    "itself": (lambda t: t.copy(), "No loss was found"),
    "turned": (turned, "No loss was found"),
    "turned and doubled, 3 constant dimensions more": (lambda t: np.hstack([2 * turned(t), np.ones((len(t), 3))]),
                                                       "No loss was found"),
    "around another mean": (lambda t: t + 100, "No loss was found"),
    "int8": (int8, "No loss was found"),
    "a little noise": (lambda t: noisy(t, 0.05), ("No loss was found", "Little was lost")),
    "much noise": (lambda t: noisy(t, 1.0), "Most was lost"),
    "half of the dimensions": (lambda t: turned(t)[:, :6], ("Most was lost", "Much was lost")),
    "collapsed": (lambda t: np.tile(t[:1], (len(t), 1)), "The student has collapsed"),
    "other items": (lambda t: np.random.default_rng(4).permutation(t), "Are these the same items in the same order?"),
    "repeats": (lambda t: t, "No loss was found"),
}


def test_shuffled_items_are_asked_about_whatever_the_shuffle():
    teacher = teacher_and_labels()[0][:80]
    for seed in range(30):
        found = audit(teacher, np.random.default_rng(seed).permutation(teacher), groups=QUICK - {"knn"})
        assert question(found), seed


@pytest.mark.parametrize("with_labels", [True, False])
@pytest.mark.parametrize("case", STUDENTS)
def test_the_first_words_are_what_the_student_is(case, with_labels):
    teacher, labels = teacher_and_labels()
    make, starts = STUDENTS[case]
    if case == "repeats":
        teacher, labels = np.tile(teacher, (4, 1)), np.tile(labels, 4)
    found = audit(teacher, make(teacher), labels if with_labels else None, groups=QUICK, settings=NINE_DRAWS)
    said = headline(found)
    assert said.startswith(starts), said
    assert said.endswith(".") and "  " not in said and "nan" not in said
    if starts == "No loss was found":
        assert "much" not in said and "cannot stand in" not in said and not any(loss.retained < 0.95 for loss in losses(found))


def test_other_coordinates_are_no_loss_and_are_said():
    teacher, labels = teacher_and_labels()
    said = headline(audit(teacher, -teacher, labels, groups=QUICK, settings=NINE_DRAWS)).replace(NBSP, " ")
    assert said.startswith("No loss was found")
    assert "0 % of the student's queries find their own item as they are, 100 % after" in said


@pytest.mark.parametrize(("sigma", "says"), [(0.02, "it can stand in for the teacher (9."),
                                             (0.8, "it gives few of the teacher's results (")])
def test_a_search_index_is_judged_by_its_results_and_not_by_own_items_alone(sigma, says):
    """With noise as large as the teacher's own spread nearly every query finds its own item, and then the teacher's next ones
    one time in ten: the verdict said that this student can stand in for the teacher."""
    rng = np.random.default_rng(0)
    teacher = rng.normal(size=(600, 64))
    said = headline(audit(teacher, teacher + sigma * rng.normal(size=teacher.shape), groups={"retrieval", "swap", "alignment"},
                          settings=NINE_DRAWS, intervals=False)).replace(NBSP, " ")
    assert f"in a search index {says}" in said and "find their own item first among 600" in said


def test_what_reads_below_nothing_is_said_to_keep_nothing():
    """Rows that have nothing to do with one another lose more nats than equal rows do."""
    rng = np.random.default_rng(0)
    found = audit(rng.normal(size=(300, 32)), rng.normal(size=(300, 32)), groups={"contrastive", "paper"}, intervals=False)
    lines = {line.name: meaning(line, found).replace(NBSP, " ") for line in found.lines()}
    assert found["contrastive.retained_share"] < 0 and lines["contrastive.retained_share"].startswith("It keeps nothing")
    assert lines["contrastive.infonce"].startswith("Nothing is kept") and lines["paper.infonce"].startswith("Nothing is kept")


def test_a_near_perfect_pair_reads_as_what_it_is():
    """int8 against fp32: cosine 0.99988, R2 0.994, recall at 1 98.3 %."""
    def share(value, reach, n=3000, unit="share"):
        return Value(value, value - reach, min(1.0, value + reach), n, "A definition.", unit)

    found = Audit({"alignment.mean_cosine": share(0.99988, 1e-5, unit="cosine"),
                   "alignment.teacher_r2": share(0.994, 0.0004, unit="R2"),
                   "retrieval.recall_at_1": share(0.983, 0.004), "retrieval.mapped_recall_at_1": share(0.984, 0.004)})
    said = headline(found).replace(NBSP, " ")
    assert said.startswith("Little was lost, mostly in distinguishing individual items: 98 %") and "0.99988" in said
    cosine = found.measured["alignment.mean_cosine"]
    assert (told(cosine), between(cosine)) == ("0.99988", "[0.99987, 0.99989]")
    line = next(line for line in found.lines() if line.name == "alignment.teacher_r2")
    assert "99.4 %" in meaning(line, found).replace(NBSP, " ") and "0.99988" in repr(found)
    assert "0.99987 to 0.99989" in repr(found)


@pytest.mark.parametrize(("value", "low", "high", "text", "interval"), [
    (1.0, 1.0, 1.0, "1.000", "[1.000, 1.000]"),
    (1 - 1e-16, 1 - 2e-16, 1 + 1e-16, "1.000", "[1.000, 1.000]"),
    (0.9, 0.8, 1.0, "0.900", "[0.800, 1.000]"),
    (0.99996, 0.9999, 1.0, "0.99996", "[0.99990, 1.00000]"),
    (0.5, 0.49999, 0.50001, "0.50000", "[0.49999, 0.50001]"),
    (-0.9999, -0.99991, -0.99989, "−0.99990", "[−0.99991, −0.99989]"),
])
def test_digits_show_the_value_and_its_interval(value, low, high, text, interval):
    held = Value(value, low, high, 10, "", "R2")
    assert (told(held), between(held)) == (text, interval)


def test_shares_as_per_cent_do_not_read_as_all():
    assert told(Value(0.99996, None, None, 10, "", "share"), "retrieval.recall_at_1").replace(NBSP, " ") == "99.996 %"
    assert told(Value(1.0, 0.99, 1.0, 10, "", "share"), "retrieval.recall_at_1").replace(NBSP, " ") == "100.0 %"


def test_labels_that_the_teacher_cannot_read_tell_nothing():
    """Classes of two items each that have nothing in common: the sentence follows the number."""
    teacher, _ = teacher_and_labels()
    pairs = np.random.default_rng(0).permutation(len(teacher)) // 2
    found = audit(teacher, noisy(teacher, 0.5), pairs, groups=QUICK, settings=NINE_DRAWS)
    said = headline(found).replace(NBSP, " ")
    assert found["knn.teacher.accuracy"] < 0.02 and "no accuracy was measured" not in said
    assert "these 75 classes cannot show a loss" in said
    assert does_it_matter(found)[0].startswith("These 75 classes")


def test_labels_that_all_differ_measure_no_accuracy():
    teacher, _ = teacher_and_labels()
    found = audit(teacher, noisy(teacher, 0.5), np.arange(len(teacher)), groups=QUICK, settings=NINE_DRAWS)
    assert "no accuracy was measured" in headline(found)
    assert "every item is of a class of its own" in does_it_matter(found)[0]


@pytest.mark.parametrize("n", [10, 12, 16, 30])
def test_few_items_claim_nothing(n):
    """A model against itself, and turned, with fewer items than dimensions."""
    teacher, labels = teacher_and_labels(d=40)
    for student in (teacher[:n].copy(), turned(teacher[:n])):
        found = audit(teacher[:n], student, labels[:n], groups=QUICK, settings=NINE_DRAWS)
        said = headline(found)
        assert not said.startswith(("Most", "Much", "Some")), said


def test_equal_accuracies_of_few_items_leave_room_for_a_loss():
    held = {f"probe.{side}.accuracy": Value(0.5, 0.24, 0.76, 10, "Accuracy.", "share") for side in ("teacher", "student")}
    held["probe.retention"] = Value(1.0, 0.6, 1.5, 10, "Retention.", "share")
    held["probe.mcnemar_p"] = Value(1.0, None, None, 10, "p.", "p")
    assert "10 items cannot rule one out" in headline(Audit(held))
