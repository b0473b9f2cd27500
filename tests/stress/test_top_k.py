"""The projection control: what is left of a teacher's robustness when its dimensions are taken away."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from builders.blobs import make_source, make_subject
from distillscope.errors import UserError
from distillscope.measure.probe import linear_probe
from distillscope.stress.run import rehearse, run_stresses
from distillscope.stress.subject import Findings, Subject
from distillscope.stress.top_k import cuts, disjoint_parts, top_k, unit_rows


class Asked:
    def __init__(self, **settings):
        self.name, self.settings = "top_k", settings


@pytest.fixture(scope="module")
def teacher():
    return replace(make_subject(), side="teacher")


def values(found: Findings, condition: str) -> list[float]:
    return [v for m, c, _, v, *_ in found.rows if c == condition and m.endswith("accuracy")]


def test_one_row_for_each_part_k_and_sigma(teacher):
    test = make_source(60)
    found = run_stresses([Asked(ks=[2, 8, 999], sigmas=[0.1, 0.5], parts=5)], teacher, test, 0)
    names = {"2", "8", "all", "whitened"}
    assert {c for _, c, *_ in found.rows} == {f"top_k={n}{s}" for n in names for s in ("", "/0.1", "/0.5")}
    assert found.skipped == ["top_k=999: the embedding has 32 dimensions"]
    assert all(len(values(found, f"top_k={n}/0.5")) == 5 for n in names)
    assert [r for r in found.rows if r[0] == "top_k.chance"] == [("top_k.chance", "top_k=all", None, 1 / 3, 60, "fraction")]
    assert {r[4] for r in found.rows if r[0] != "top_k.chance"} == {12}
    assert {"sigma_pixel", "sigma_normalised"} <= set(found.conditions["top_k=8/0.1"])


def test_the_whole_teacher_is_the_teacher(teacher):
    """All of k is the probe of the embeddings as they are, and so is the projection on all components."""
    test = make_source(60)
    found = top_k(teacher, test, test.labels, 0, ks=(32,), parts=4)
    z = teacher.embed(test, None, "")
    expected = float((linear_probe(teacher.embed(teacher.train, None, ""),
                                   teacher.train.labels).predict(z) == test.labels).mean())
    assert np.mean(values(found, "top_k=all")) == pytest.approx(expected, abs=1e-9)
    assert np.mean(values(found, "top_k=32")) == pytest.approx(expected, abs=1 / 60 + 1e-9)  # a tie may fall either way


def test_a_cut_keeps_the_geometry_of_the_projection():
    """Against scikit-learn's PCA: transform and back, in all d dimensions."""
    from sklearn.decomposition import PCA

    rng = np.random.default_rng(0)
    train, rows = (unit_rows(rng.normal(size=(n, 12)) * np.linspace(3, 0.2, 12) + 0.7) for n in (200, 30))
    found = Findings()
    made = cuts(train, (3, 12), True, found)
    for k in (3, 12):
        oracle = PCA(k, svd_solver="full").fit(train)
        back = oracle.inverse_transform(oracle.transform(rows))
        assert made[str(k)](rows) @ made[str(k)](rows).T == pytest.approx(back @ back.T, abs=1e-9)
    assert np.cov(made["whitened"](train).T, bias=True) == pytest.approx(np.eye(12), abs=1e-9)
    assert made["all"](rows) is rows


def test_a_planted_teacher_loses_what_it_is_cut_from():
    """Classes live on the third and fourth strongest directions: two components know nothing, four know all."""
    rng = np.random.default_rng(1)
    test, train = make_source(90), make_source(300, split="train")

    def embed(items, perturbation, label):
        z = rng.normal(size=(len(items), 6)) * [5, 5, 0.1, 0.1, 0.1, 0.1]
        z[:, 2] += 3 * (items.labels == 0)
        z[:, 3] += 3 * (items.labels == 1)
        return (z + [0, 0, 0, 0, 0, 20.0]).astype(np.float32)

    def fit(z, labels):
        return {"paper.probe": linear_probe(z, labels, c=1e4)}

    found = top_k(Subject("teacher", embed, {}, train, fit), test, test.labels, 0, ks=(2, 4), parts=3)
    assert np.mean(values(found, "top_k=2")) < 0.6 and np.mean(values(found, "top_k=4")) > 0.95


def test_parts_share_nothing_and_hold_every_class():
    items = make_source(61)
    groups = disjoint_parts(items, 7)
    assert sorted(np.concatenate(groups).tolist()) == list(range(61))
    for group in groups:
        assert np.bincount(items.labels[group], minlength=3).min() >= 2
    assert [g.tolist() for g in disjoint_parts(items, 7)] == [g.tolist() for g in groups]
    assert len(disjoint_parts(make_source(5), 10)) == 5


def test_students_are_left_out_unless_asked_for(subject):
    test = make_source(60)
    assert run_stresses([Asked(ks=[4])], subject, test, 0).rows == []
    found = run_stresses([Asked(ks=[4], students=True, whitened=False)], subject, test, 0)
    assert {m for m, *_ in found.rows} == {"top_k.chance", "top_k.paper.student.accuracy"}


@pytest.mark.parametrize(("settings", "message"), [
    (dict(ks=[]), "stresses.top_k: expected ks and parts from 1 up, got ks=\\[\\], parts=10"),
    (dict(ks=[0]), "ks and parts from 1 up"),
    (dict(parts=0), "ks and parts from 1 up"),
    (dict(sigmas=[-1]), "stresses.top_k.sigmas: expected a finite number from 0 up, got -1"),
])
def test_bad_settings(teacher, settings, message):
    with pytest.raises(UserError, match=message):
        run_stresses([Asked(**settings)], teacher, make_source(60), 0)


def test_without_labels_it_says_so(teacher):
    with pytest.raises(UserError, match="data with labels"):
        run_stresses([Asked()], teacher, make_source(60, labels=False), 0)


def test_it_can_be_rehearsed_without_a_model():
    wanted, found = rehearse([Asked(ks=[4], sigmas=[0.1, 0.2])], make_source(50, split="train"), make_source(60), 0)
    assert [getattr(p, "sigma", None) for _, p in wanted] == [None, None, 0.1, 0.2]
    assert "top_k=4/0.2" in found.conditions
