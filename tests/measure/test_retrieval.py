"""Retrieval and neighbours against brute force; ties, collapse and the linear map."""

import numpy as np
import pytest

from builders.clouds import cloud, rotation, student_of
from builders.refusals import refused
from distillscope.measure import neighbours
from distillscope.measure.audit import audit
from distillscope.measure.neighbours import knn_accuracy, knn_predictions, nearest, own_ranks, top_positions
from distillscope.measure.pool import Settings


def run(teacher, student, **kwargs):
    return audit(teacher, student, groups={"retrieval"}, intervals=False, **kwargs)


def test_recall_is_brute_force(teacher):
    student = student_of(teacher, 1, noise=0.6)
    t, s = (z / np.linalg.norm(z, axis=1, keepdims=True) for z in (teacher, student))
    order = np.argsort(-(s @ t.T), axis=1)
    found = run(teacher, student)
    for k in (1, 5, 10):
        expected = np.mean([i in order[i, :k] for i in range(len(t))])
        assert found[f"retrieval.recall_at_{k}"] == pytest.approx(expected)
    assert found["retrieval.recall_at_1"] < found["retrieval.recall_at_10"] < 1


def test_a_perfect_and_a_collapsed_student(teacher):
    assert run(teacher, teacher.copy())["retrieval.recall_at_1"] == 1
    assert run(teacher, teacher.copy())["retrieval.neighbour_overlap_10"] == 1
    collapsed = run(teacher, np.ones_like(teacher))
    assert collapsed["retrieval.recall_at_10"] <= 0.06


def test_what_lies_in_the_direction_of_the_own_item_is_it_and_other_ties_count_against_the_query():
    gallery = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    assert own_ranks(gallery, gallery, np.arange(3)).tolist() == [1, 1, 1]
    between = np.full((3, 2), 0.5**0.5)  # as near to all rows
    assert own_ranks(gallery, between, np.arange(3)).tolist() == [2, 2, 3]


def test_rows_that_differ_in_length_alone_are_no_miss(teacher):
    scaled = np.vstack([teacher, 3 * teacher])
    found = run(scaled, scaled.copy())
    assert found["retrieval.recall_at_1"] == 1 == found["retrieval.neighbour_overlap_10"]


def test_the_map_undoes_a_rotation_and_a_change_of_dimension():
    teacher = cloud(0, n=400)
    rotated = teacher @ rotation(2, 12)
    found = run(teacher, rotated)
    assert found["retrieval.recall_at_1"] < 0.5 and found["retrieval.mapped_recall_at_1"] == 1
    wider = run(teacher, np.hstack([rotated, rotated[:, :3]]))
    assert wider["retrieval.mapped_recall_at_1"] == 1 and "retrieval.recall_at_1" in wider.left_out
    assert wider["retrieval.neighbour_overlap_10"] > 0


def test_gallery_and_queries_are_capped_and_stated(teacher, student):
    found = run(teacher, student, settings=Settings(gallery_items=100, retrieval_pairs=2000))
    assert found.values["retrieval.recall_at_1"].n == 20
    assert found["retrieval.recall_at_1"] >= run(teacher, student)["retrieval.recall_at_1"] - 0.2


@pytest.mark.parametrize("exclude_self", [False, True])
def test_nearest_in_blocks_is_a_full_sort(monkeypatch, exclude_self):
    monkeypatch.setattr(neighbours, "BLOCK_PAIRS", 7 * 40)
    z = cloud(0, n=40)
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    similarity = z @ z.T - (10 * np.eye(40) if exclude_self else 0)
    expected = np.argsort(-similarity, axis=1, kind="stable")[:, :6]
    assert (nearest(z, z, 6, exclude_self=exclude_self) == expected).all()


def test_ties_go_by_position():
    scores = np.array([[1.0, 2.0, 2.0, 2.0, 0.0], [0.0, 0.0, 0.0, 0.0, 0.0]])
    assert top_positions(scores, 2).tolist() == [[1, 2], [0, 1]]
    assert top_positions(scores, 5).tolist() == [[1, 2, 3, 0, 4], [0, 1, 2, 3, 4]]


def test_knn_is_scikit_learns_with_two_classes_and_odd_k():
    from sklearn.neighbors import KNeighborsClassifier

    rng = np.random.default_rng(0)
    gallery, queries = cloud(0, n=150), cloud(1, n=90)
    labels = (gallery[:, 0] + 0.3 * rng.normal(size=150) > gallery[:, 0].mean()).astype(int)
    theirs = KNeighborsClassifier(9, metric="cosine").fit(gallery, labels).predict(queries)
    assert (knn_predictions(gallery, labels, queries, 9) == theirs).all()


def test_a_tied_vote_goes_to_the_nearest_of_the_tied():
    gallery = np.array([[1.0, 0.0], [1.0, 0.2], [1.0, 0.4], [1.0, 0.6]])
    query = np.array([[1.0, -0.1]])
    assert knn_predictions(gallery, np.array(["b", "a", "a", "b"]), query, 4).tolist() == ["b"]
    assert knn_predictions(gallery, np.array(["c", "b", "a", "a"]), query, 4).tolist() == ["a"]


def test_leave_one_out_leaves_itself_out():
    z = np.repeat(np.eye(4), 2, axis=0)
    assert knn_accuracy(z, [0, 1] * 4, z, [0, 1] * 4, k=1, exclude_self=True) == 0
    assert knn_accuracy(z, [0, 0, 1, 1, 2, 2, 3, 3], z, [0, 0, 1, 1, 2, 2, 3, 3], k=1, exclude_self=True) == 1


def test_k_beyond_the_gallery_is_refused():
    with refused(where="neighbours k", expected=("1", "2"), got="3"):
        nearest(np.eye(3), np.eye(3), 3, exclude_self=True)
