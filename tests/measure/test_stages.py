"""What each step from the teacher to a file lost: counted by hand, with intervals that cover what they should."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy.stats import binomtest

from builders import refused
from builders.planted import cloud, rotation, student_of
from distillscope import audit
from distillscope.measure.intervals import loss_interval
from distillscope.measure.results import Audit, Stage, Value
from distillscope.report.sentences.numbers import NBSP
from distillscope.report.sentences.stages import stages_headline

GROUPS = {"probe", "retrieval", "alignment"}


@pytest.fixture(scope="module")
def sides():
    """Teacher, student, labels."""
    teacher = cloud(0)
    teacher[:, :3] += 4 * np.eye(3)[np.arange(200) % 3]
    return teacher, student_of(teacher, 1), np.arange(200) % 3


@pytest.fixture(scope="module")
def found(sides):
    teacher, student, labels = sides
    noisy = student + 0.8 * np.random.default_rng(2).normal(size=student.shape)
    swapped = student.copy()
    swapped[[0, 1]] = student[[1, 0]]
    files = {"same": student.astype(np.float32), "noisy": noisy, "swapped": swapped}
    return audit(teacher, student, labels, artefacts=files, groups=GROUPS, intervals=True)


def test_a_file_that_embeds_alike_lost_nothing_and_one_with_noise_did(found):
    teacher, student, same, noisy, _ = found.stages
    assert [stage.kind for stage in found.stages] == ["teacher", "student", *["artefact"] * 3]
    assert same.values["accuracy"].value == student.values["accuracy"].value
    assert same.values["accuracy_lost"].value == same.values["negative_flips"].value == 0 and not same.lost
    assert same.values["mean_cosine"].value == pytest.approx(1, abs=1e-12)
    assert 1 - 1e-9 < same.values["worst_cosine"].value < 1
    assert noisy.lost and noisy.values["mean_cosine"].value < 0.95
    assert noisy.values["mapped_recall_at_1_lost"].low > 0
    assert "accuracy" in teacher.values and "recall_at_1" not in teacher.values


def test_the_students_probe_is_kept(sides):
    """A turned file is as good for a probe of its own, and useless to the student's."""
    teacher, student, labels = sides
    turned = student @ rotation(3, student.shape[1])
    kept = audit(teacher, student, labels, artefacts={"turned": turned}, groups={"probe"}, intervals=False).stages
    own = audit(teacher, turned, labels, groups={"probe"}, intervals=False)
    assert own["probe.student.accuracy"] > 0.9
    assert kept[2].values["accuracy"].value < 0.7
    with_train = audit(teacher[:120], student[:120], labels[:120], train_teacher=teacher[120:], train_student=student[120:],
                       train_labels=labels[120:], artefacts={"turned": turned[:120]}, groups={"probe"}, intervals=False).stages
    assert with_train[2].values["accuracy"].value < 0.7 < with_train[1].values["accuracy"].value


def test_the_items_that_a_file_swapped_are_its_worst(found, sides):
    swapped = found.stages[4]
    assert {item.row for item in swapped.worst[:2]} == {0, 1} and swapped.worst[2].cosine == pytest.approx(1)
    student = sides[1]
    cosine = student[0] @ student[1] / np.linalg.norm(student[0]) / np.linalg.norm(student[1])
    assert swapped.worst[0].cosine == swapped.values["worst_cosine"].value == pytest.approx(cosine)
    assert swapped.values["student_recall_at_1"].value == 198 / 200


def test_losses_flips_and_p_follow_from_the_decisions(found):
    """The flips say the loss; p is the sign test of the flips, by Holm over all steps."""
    for stage in found.stages[1:]:
        values = stage.values
        flips = [values[key].value * values[key].n for key in ("negative_flips", "positive_flips")]
        assert values["accuracy_lost"].value * values["accuracy"].n == pytest.approx(flips[0] - flips[1])
        alone = binomtest(round(flips[0]), round(sum(flips))).pvalue if sum(flips) else 1.0
        assert stage.p["accuracy"] >= alone - 1e-12
    student, noisy = found.stages[1].values, found.stages[3].values
    cosine_lost = student["mean_cosine"].value - noisy["teacher_cosine"].value
    assert noisy["teacher_cosine_lost"].value == pytest.approx(cosine_lost) and cosine_lost > 0
    assert noisy["teacher_cosine_lost"].definition.endswith("less this one's.")
    raw = sorted((p, key) for stage in found.stages[1:] for key, p in stage.p.items())
    assert raw[-1][0] <= 1 and json.loads(found.to_json())["stages"][3]["name"] == "noisy"


def step(name, lost, low, high, p):
    """A file that lost so much accuracy, with its interval and its p after Holm's correction."""
    return Stage("artefact", name, {"accuracy_lost": Value(lost, low, high, 1000, "", "share")}, p={"accuracy": p})


def test_a_loss_that_holms_correction_leaves_open_is_said_with_its_value_and_not_called_none():
    steps = [step("student", 0.001, -0.004, 0.006, 1.0), step("m.f16", 0.006, 0.0008, 0.0111, 0.0625),
             step("m.int8", 0.094, 0.076, 0.112, 1e-9)]
    said = stages_headline(Audit(stages=[Stage("teacher", "t"), *steps])).replace(NBSP, " ")
    assert "m.f16 lost 0.6 points [0.1, 1.1], which is not significant after Holm's correction" in said
    assert said.endswith("the step to the student shows no significant loss of probe accuracy (Holm's correction; at most 0.6 "
                         "points by the interval's end).")


def test_a_file_that_changed_no_decision_shows_no_significant_loss(found):
    said = stages_headline(found)
    assert "same" in said and "no significant loss of" in said and "no loss" not in said


def test_flips_are_of_search_where_there_are_no_labels(sides):
    teacher, student, _ = sides
    stages = audit(teacher, student, artefacts={"f": student}, groups=GROUPS, intervals=False).stages
    assert "accuracy" in stages[1].left_out and "index" in stages[1].values["negative_flips"].definition
    wider = np.hstack([teacher, teacher])
    other = audit(wider, student, artefacts={"f": student}, groups=GROUPS, intervals=False).stages
    assert "recall_at_1" in other[1].left_out and "mapped_recall_at_1" in other[2].values and other[1].worst[0].rank


@pytest.mark.parametrize(("rows", "expected"), [(np.s_[:199], "200 rows"), (np.s_[:, :5], "12 dimensions")])
def test_a_file_of_other_items_or_another_student_is_refused(sides, rows, expected):
    teacher, student, _ = sides
    with refused(where="artefact f", expected=expected):
        audit(teacher, student, artefacts={"f": student[rows]}, groups=GROUPS)


@pytest.mark.parametrize(("worse", "better", "n"), [(0.02, 0.01, 300), (0.1, 0.02, 200), (0.002, 0.001, 1000)])
def test_the_interval_of_a_loss_covers(worse, better, n):
    """On 2,000 draws of n items, of which a share flips each way."""
    rng = np.random.default_rng(0)
    drawn = rng.multinomial(n, [worse, better, 1 - worse - better], size=2000)
    ends = {}
    for lost, won, _ in np.unique(drawn, axis=0):
        before, after = np.arange(n) < lost, (np.arange(n) >= lost) & (np.arange(n) < lost + won)
        ends[lost, won] = loss_interval(before, after)
    inside = np.mean([low <= worse - better <= high for low, high in (ends[lost, won] for lost, won, _ in drawn)])
    assert 0.935 < inside <= 0.999


def test_the_interval_of_a_loss_is_agresti_and_mins():
    """By hand: 12 and 4 of 100 flip; 12.5 and 4.5 of 102."""
    before, after = np.arange(100) < 60, (np.arange(100) < 64) & (np.arange(100) >= 12)
    middle = 8 / 102
    reach = 1.959963984540054 * np.sqrt(17 / 102 - middle**2) / np.sqrt(102)
    assert loss_interval(before, after) == pytest.approx((middle - reach, middle + reach))


@pytest.mark.parametrize("by", [1.0, 1e-200])
def test_r2_of_a_file_shows_what_cosines_do_not(sides, by):
    """A cone's constant, another scale, and noise, by the definition; all have a cosine near 1 with a collapsed student."""
    teacher, student, _ = sides
    cone = (1 + 0.01 * student) * by
    noisy = cone + 0.005 * by * np.random.default_rng(2).normal(size=cone.shape)
    constant = cone.mean(0) + 1e-9 * by * student
    files = {"noisy": noisy, "scaled": 2 * cone, "constant": constant}
    found = audit(teacher, cone, artefacts=files, groups={"alignment"}).stages
    spread = np.square(cone / by - (cone / by).mean(0)).sum()
    for stage, rows in zip(found[2:], files.values(), strict=True):
        value = stage.values["student_r2"]
        assert stage.values["mean_cosine"].value > 0.99
        assert value.value == pytest.approx(1 - np.square((rows - cone) / by).sum() / spread, abs=1e-6)
        assert value.low - 1e-6 <= value.value <= value.high + 1e-6
    assert "student_r2" not in found[1].values
