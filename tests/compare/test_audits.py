"""compare of audits: what depends on how many items there were, or on what was fitted to, is not set against one another."""

from __future__ import annotations

import functools
import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

from builders.browser import data_of
from builders.tiny import FEW, labelled, of_two_dimensions
from distillscope.compare.audits import mover
from distillscope.compare.runs import compare_runs
from distillscope.errors import UserError
from distillscope.measure.audit import audit
from distillscope.measure.results import Audit, Value
from distillscope.report.compare_page import write_comparison

GROUPS = ("spectrum", "alignment", "similarity", "retrieval", "paper", "probe", "knn")
CLASSIFIED = {"accuracy", "accuracy_paper", "knn"}
COUNTED = {"effective_rank", "r2", "recall", "overlap"}


@functools.cache
def made(n: int, train: int = 0, named: int | None = None, groups: tuple[str, ...] = GROUPS, mixed: bool = False) -> Audit:
    """The first ``n`` of 400 items of four classes, of which ``named`` have a label; ``mixed``: labels of no meaning."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, 800)
    teacher = 0.8 * rng.normal(size=(4, 12))[labels] + rng.normal(size=(800, 12))
    student = teacher + rng.normal(size=teacher.shape)
    held = rng.permutation(labels) if mixed else labels
    known = np.ma.masked_array(held[:n], np.arange(n) >= (n if named is None else named))
    more = {"train_teacher": teacher[400 : 400 + train], "train_student": student[400 : 400 + train],
            "train_labels": labels[400 : 400 + train]} if train else {}
    return audit(teacher[:n], student[:n], known, groups=groups, settings=FEW, **more)


def compared(folder, first: Audit, second: Audit, older: bool = False):
    """The second against the first; ``older``: as audits were written before they said what they fitted to."""
    for name, found in (("first", first), ("second", second)):
        held = found.to_dict()
        if older:
            del held["labels"]["train_items"]
        (folder / f"{name}.json").write_text(json.dumps(held))
    return compare_runs([folder / "first.json", folder / "second.json"])


def left_out(found, reason: str) -> set[str]:
    return {d.quantity.key for d in found.differences if d.left_out == reason}


def test_audits_are_compared_by_both_intervals(tmp_path):
    labelled().to_json(tmp_path / "one.json")
    of_two_dimensions().to_json(tmp_path / "two.json")
    found = compare_runs([tmp_path / "one.json", tmp_path / "two.json"])
    d = next(d for d in found.differences if d.quantity.key == "r2")
    first, second = labelled().measured["alignment.teacher_r2"], of_two_dimensions().measured["alignment.teacher_r2"]
    assert d.value == pytest.approx(second.value - first.value) and d.low < d.value < d.high
    assert next(d for d in found.differences if d.quantity.key == "accuracy").left_out == "only one of the two measured it"
    page = write_comparison(found, tmp_path / "out")
    drawn = {f["key"] for f in data_of(page.read_text())["figures"]}
    assert drawn == {"differences", "cumulative_variance", "alignment", "component_r2"}


def test_mover_agrees_with_a_normal_difference():
    a, b = Value(0.5, 0.5 - 1.96 * 0.03, 0.5 + 1.96 * 0.03, 99, "", ""), Value(0.6, 0.6 - 1.96 * 0.04, 0.6 + 1.96 * 0.04, 99,
                                                                               "", "")
    assert mover(a, b) == pytest.approx((0.1 - 1.96 * 0.05, 0.1 + 1.96 * 0.05))


def test_an_audits_page_alone_is_enough(tmp_path):
    from distillscope.report.audit_page import write_audit

    write_audit(labelled(), tmp_path / "a", teacher="T", student="S", command="", provenance={})
    sent = shutil.copy(tmp_path / "a" / "report.html", tmp_path / "sent.html")
    of_two_dimensions().to_json(tmp_path / "b.json")
    found = compare_runs([sent, tmp_path / "b.json"])
    assert found.labels == ["sent", "b"]
    d = next(d for d in found.differences if d.quantity.key == "r2")
    assert d.a == labelled()["alignment.teacher_r2"]
    with pytest.raises(UserError, match="Name each run once"):
        compare_runs([tmp_path / "a", tmp_path / "a" / "audit.json"])


def test_of_other_numbers_of_items_all_that_depends_on_them_is_left_out_and_named(tmp_path):
    found = compared(tmp_path, made(100), made(400))
    assert left_out(found, "the numbers of items differ") == COUNTED | CLASSIFIED
    assert [d.quantity.key for d in found.differences if d.known] == ["cka"]
    (said,) = found.warnings
    assert said.startswith("second has 400 items and first 100: what depends on their number")
    assert "(ranks, R², recall, index overlap, cross-validated probes and neighbours) is left out, and whether" in said


def test_probes_that_were_fitted_to_as_many_training_items_are_compared_on_other_numbers_of_items(tmp_path):
    found = compared(tmp_path, made(100, train=200), made(400, train=200))
    assert left_out(found, "the numbers of items differ") == COUNTED
    assert {d.quantity.key for d in found.differences if d.known} == CLASSIFIED | {"cka"}
    assert "(ranks, R², recall, index overlap) is left out" in found.warnings[0]


@pytest.mark.parametrize(("train", "said"), [(0, "its own items, by cross-validation"), (300, "300 training items")])
def test_what_probes_were_fitted_to_is_what_differs_between_audits_of_the_same_items(tmp_path, train, said):
    found = compared(tmp_path, made(200, train=train), made(200, train=200))
    assert left_out(found, "the numbers of training items differ") == CLASSIFIED
    assert found.warnings[0] == ("second fits probes and neighbours to 200 training items, "
                                 f"first to {said}: their accuracies are left out.")
    assert not any("other teachers or items" in w for w in found.warnings)


def test_audits_of_the_same_items_share_everything(tmp_path):
    found = compared(tmp_path, made(200), made(200))
    assert all(d.known for d in found.differences)
    assert found.warnings == ["Every number that second and first share is equal: is one a copy?"]


def test_cross_validated_probes_of_other_numbers_of_labels_are_left_out(tmp_path):
    found = compared(tmp_path, made(200, named=80), made(200))
    assert left_out(found, "the numbers of labelled items differ") == CLASSIFIED
    assert "second classifies 200 labelled items and first 80" in found.warnings[0]


@pytest.mark.parametrize(("n", "train"), [(100, 0), (200, 200)], ids=["other number", "other fit"])
def test_an_older_audit_does_not_say_what_it_fitted_to_and_its_accuracies_are_left_out(tmp_path, n, train):
    found = compared(tmp_path, made(n, train=train), made(200), older=True)
    assert left_out(found, "it is not recorded what they are fitted to") == CLASSIFIED
    assert any(w.startswith("Older audits do not say") for w in found.warnings)


def test_older_audits_whose_teachers_are_classified_alike_are_compared(tmp_path):
    assert all(d.known for d in compared(tmp_path, made(200), made(200), older=True).differences)


def test_other_labels_of_the_same_items_are_not_taken_for_other_items(tmp_path):
    found = compared(tmp_path, made(200), made(200, mixed=True))
    (said,) = [w for w in found.warnings if "own numbers differ" in w]
    assert "are of other labels or training items" in said and "teachers" not in said.partition("):")[2]


def test_audits_that_share_nothing_that_may_be_compared_are_one_line(tmp_path):
    with pytest.raises(UserError, match=r"none that may be compared, since the numbers of items differ\. Audit equal numbers"):
        compared(tmp_path, made(100, groups=("retrieval",)), made(400, groups=("retrieval",)))


def test_an_audit_says_to_how_many_training_items_it_fitted():
    assert (made(200).labels["train_items"], made(200, train=200).labels["train_items"]) == (0, 200)


def test_other_images_under_the_same_names_are_said(tmp_path):
    """Their teacher's numbers may happen to be equal, as those of the same embeddings are here."""
    def of(found: Audit, **marks: str) -> Audit:
        return replace(found, inputs={name: {"fingerprint": mark} for name, mark in marks.items()})

    found = compared(tmp_path, of(made(200), images="1"), of(made(200, mixed=True), images="2"))
    (said,) = found.warnings
    assert said.startswith("second and first were measured on other images, as their fingerprints say: only compare what each")
    assert not any("other images" in w for w in compared(tmp_path, of(made(200), images="1"), made(200)).warnings)
    one, other = (of(made(200, train=200), images="1", train_images=mark) for mark in "12")
    assert any("fits probes and neighbours to other training images" in w for w in compared(tmp_path, one, other).warnings)
    assert not any("training images" in w for w in compared(tmp_path, one, one).warnings)
