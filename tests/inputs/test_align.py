"""Teacher and student come out with one row an item, and what was done to get there is said."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from builders.refusals import refused
from distillscope.inputs.embeddings import Embeddings, align
from distillscope.inputs.members import strings


def side(name: str, ids: list[str] | None, labels: list | None = None, count: int | None = None) -> Embeddings:
    """Row i is made from the id, so that rows tell whose they are."""
    numbers = np.array([int(i) for i in ids]) if ids is not None else np.arange(count)
    return Embeddings(np.outer(numbers, [1.0, 2.0]), None if ids is None else strings(ids, name),
                      None if labels is None else np.array(labels), name)


@given(st.lists(st.integers(0, 30), min_size=1, unique=True), st.lists(st.integers(0, 30), min_size=1, unique=True))
def test_alignment_keeps_the_common_items_in_the_teachers_order(first, second):
    teacher, student = side("t", [str(i) for i in first]), side("s", [str(i) for i in second])
    common = [i for i in first if i in second]
    if not common:
        with refused(got="none in common"):
            align(teacher, student)
        return
    a, b, pairing = align(teacher, student)
    assert np.asarray(a.rows)[:, 0].tolist() == np.asarray(b.rows)[:, 0].tolist() == common
    assert list(a.ids) == list(b.ids) == [str(i) for i in common]
    assert (pairing.note is None) == (first == second) and pairing.matched == len(common) and pairing.by == "id"
    assert pairing.dropped == (len(first) - len(common), len(second) - len(common))
    if any(pairing.dropped):
        dropped = len(first) - len(common)
        assert f"{len(common)} items in both; dropped {dropped} of {len(first)} of the teacher, " in pairing.note
        assert f"{len(second) - len(common)} of {len(second)} of the student" in pairing.note


def test_rows_in_order_are_not_copied():
    teacher, student = side("t", ["1", "2"]), side("s", ["1", "2"])
    a, b, pairing = align(teacher, student)
    assert a.rows is teacher.rows and b.rows is student.rows and pairing.note is None
    longer = side("s", ["2", "1", "3"])
    a, b, _ = align(teacher, longer)
    assert a.rows is teacher.rows and np.shares_memory(b.rows.parts[0], longer.rows)


def test_without_ids_rows_go_by_order():
    a, b, pairing = align(side("t", None, count=3), side("s", None, count=3))
    assert len(a) == len(b) == 3 and pairing.by == "order" and "neither side has ids" in pairing.note
    assert "only the teacher has ids" in align(side("t", ["1", "2"]), side("s", None, count=2))[2].note
    with refused(where="student s", expected="3", got="2"):
        align(side("t", None, count=3), side("s", ["1", "2"]))


def test_ids_that_repeat_are_refused():
    with refused(where="student s ids", got="2 repeated, first '1'"):
        align(side("t", ["1", "2"]), side("s", ["1", "1", "1", "2"]))
    with refused(where="teacher t ids"):
        align(side("t", ["1", "1"]), side("s", ["1", "1"]))


def test_labels_that_disagree_tell_that_rows_do_not_match():
    with refused(got="others for 2 of 3 items"):
        align(side("t", None, [0, 1, 0], 3), side("s", None, [0, 0, 1], 3))
    a, b, _ = align(side("t", ["1", "2"], [7, 8]), side("s", ["2", "1"], [8, 7]))
    assert a.labels.tolist() == b.labels.tolist() == [7, 8]
    align(side("t", None, [0, 1, 0], 3), side("s", None, ["zero", "one", "zero"], 3))
    with refused(got="others for 1 of 5 items"):  # whatever the classes are called
        align(side("t", None, [0, 1, 0, 1, 0], 5), side("s", None, ["zero", "one", "one", "one", "zero"], 5))
