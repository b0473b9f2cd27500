"""Each objective against another form of it: double loops in float64, SciPy, scikit-learn, or a closed form."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist, pdist, squareform
from scipy.special import huber, log_softmax, logsumexp, softmax
from sklearn.metrics import log_loss
from sklearn.neighbors import NearestNeighbors

from builders.refusals import refused
from distillscope.objectives.contrastive import crd, infonce, infonce_learned, infonce_views, similarity_kl
from distillscope.objectives.regression import centred_cosine, cosine, cross_entropy, mse, smooth_l1
from distillscope.objectives.relational import (
    cka,
    gram,
    koleo,
    relational_angle,
    relational_distance,
    uniformity,
    vicreg_covariance,
    vicreg_variance,
)

B, D, Q = 10, 5, 6
CLOSE = {"rel": 2e-5, "abs": 2e-6}  # float32 against float64 on numbers of order one


@pytest.fixture
def sides() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.normal(size=(B, D)) + 0.5, rng.normal(size=(B, D)), rng.normal(size=(Q, D))


def tensors(*arrays: np.ndarray) -> list[torch.Tensor]:
    return [torch.from_numpy(a).float() for a in arrays]


def unit(z: np.ndarray) -> np.ndarray:
    return z / np.linalg.norm(z, axis=1, keepdims=True)


def cos(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b / math.sqrt(a @ a) / math.sqrt(b @ b))


def test_regression(sides):
    s, t, _ = sides
    assert float(cosine(*tensors(s, t))) == pytest.approx(np.mean(np.diag(cdist(s, t, "cosine"))), **CLOSE)
    assert float(mse(*tensors(s, t))) == pytest.approx(np.mean([(a - b) ** 2 for a, b in zip(s.flat, t.flat, strict=True)]),
                                                       **CLOSE)
    for beta in (0.1, 1.0, 3.0):
        by_scipy = huber(beta, s - t).mean() / beta
        assert float(smooth_l1(*tensors(s, t), beta=beta)) == pytest.approx(by_scipy, **CLOSE)


def test_centred_cosine_is_cosine_of_what_is_left_without_the_common_direction(sides):
    s, t, _ = sides
    us, ut = unit(s), unit(t)
    ms, mt = sum(us) / B, sum(ut) / B
    assert float(centred_cosine(*tensors(s, t))) == pytest.approx(np.mean([1 - cos(a - ms, b - mt)
                                                                           for a, b in zip(us, ut, strict=True)]), **CLOSE)
    # A student that knows only the common direction: cosine is content, centred cosine is not.
    common = np.zeros(D)
    common[0] = 20
    only, wanted = np.random.default_rng(3).normal(size=(B, D)) + common, np.random.default_rng(4).normal(size=(B, D)) + common
    assert float(cosine(*tensors(only, wanted))) < 0.02
    assert float(centred_cosine(*tensors(only, wanted))) > 0.5


@pytest.mark.parametrize("temperature", [0.1, 1.0])
def test_infonce_with_and_without_a_queue(sides, temperature):
    s, t, q = sides
    for earlier in (None, q):
        anchors = t if earlier is None else np.concatenate([t, earlier])
        losses = [-log_softmax([cos(s[i], a) / temperature for a in anchors])[i] for i in range(B)]
        given = tensors(s, t) + ([] if earlier is None else tensors(q))
        assert float(infonce(*given, temperature=temperature)) == pytest.approx(np.mean(losses), **CLOSE)
        s_, t_, *rest = given
        learned = infonce_learned(s_, t_, torch.tensor(-math.log(temperature)), *rest)
        assert float(learned) == pytest.approx(np.mean(losses), **CLOSE)
    assert float(infonce(*tensors(s, t, q[:0]))) == float(infonce(*tensors(s, t)))


def test_a_learned_temperature_moves_against_the_loss_and_stops_at_a_scale_of_100(sides):
    s, t, _ = sides
    for start, moves in ((math.log(10), True), (math.log(200), False)):
        scale = torch.tensor(start, requires_grad=True)
        infonce_learned(*tensors(t + 0.1 * s, t), scale).backward()
        assert (scale.grad != 0) == moves


def test_infonce_views_is_the_mean_of_both_directions(sides):
    s, t, _ = sides
    logits = unit(s) @ unit(t).T / 0.1
    one, other = (np.mean([logsumexp(row) - row[i] for i, row in enumerate(m)]) for m in (logits, logits.T))
    assert float(infonce_views(*tensors(s, t))) == pytest.approx((one + other) / 2, **CLOSE)


def crd_by_loops(s, t, q, temperature, prior=None):
    anchors = np.concatenate([t, q])
    others = len(anchors) - 1
    p = np.array([[math.exp(cos(a, b) / temperature) for b in anchors] for a in s])
    mean = np.mean([p[i, j] for i in range(len(s)) for j in range(len(anchors)) if i != j]) if prior is None else prior
    loss = 0.0
    for i in range(len(s)):
        for j in range(len(anchors)):
            h = p[i, j] / mean / (p[i, j] / mean + others)
            loss -= math.log(h) if i == j else math.log(1 - h)
    return loss / len(s), mean


def test_crd_and_its_gradient_with_the_normalising_constant_held(sides):
    s, t, q = sides
    loss, mean = crd_by_loops(s, t, q, 0.5)
    s_, t_, q_ = tensors(s, t, q)
    s_.requires_grad_()
    found = crd(s_, t_, q_, temperature=0.5)
    assert float(found.detach()) == pytest.approx(loss, **CLOSE)
    found.backward()
    direction = np.random.default_rng(5).normal(size=s.shape)
    ahead, behind = (crd_by_loops(s + step * direction, t, q, 0.5, mean)[0] for step in (1e-5, -1e-5))
    assert float((s_.grad.numpy() * direction).sum()) == pytest.approx((ahead - behind) / 2e-5, rel=1e-4)
    equal = torch.ones(B, D)  # all cosines equal: h is 1 / (N + 1) everywhere
    others = B - 1
    assert float(crd(equal, equal)) == pytest.approx(math.log(1 + others) + others * math.log(1 + 1 / others), rel=1e-5)


def test_similarity_kl(sides):
    s, t, q = sides
    anchors = np.concatenate([t, q])
    total = 0.0
    for a, b in zip(s, t, strict=True):
        p = softmax([cos(b, c) / 0.07 for c in anchors])
        total += sum(p * (np.log(p) - log_softmax([cos(a, c) / 0.2 for c in anchors])))
    found = similarity_kl(*tensors(s, t, q), temperature=0.2, teacher_temperature=0.07)
    assert float(found) == pytest.approx(total / B, **CLOSE)


def test_relational_distance(sides):
    s, t, _ = sides
    ds, dt = pdist(s), pdist(t)
    assert float(relational_distance(*tensors(s, t))) == pytest.approx(np.mean(huber(1, ds / ds.mean() - dt / dt.mean())),
                                                                       **CLOSE)


def test_relational_angle_over_all_triples_of_the_first_items(sides):
    s, t, _ = sides
    for items in (7, 64):
        losses = [huber(1, cos(s[i] - s[j], s[k] - s[j]) - cos(t[i] - t[j], t[k] - t[j]))
                  for i, j, k in itertools.permutations(range(min(items, B)), 3)]
        assert float(relational_angle(*tensors(s, t), items=items)) == pytest.approx(np.mean(losses), rel=1e-4)


@pytest.mark.parametrize("objective", [relational_distance, relational_angle, cka])
def test_relations_do_not_see_rotation_scale_or_shift_and_need_no_equal_dimensions(objective, sides):
    s, t, _ = sides
    rotation = np.linalg.qr(np.random.default_rng(1).normal(size=(D, D)))[0]
    moved = 3 * s @ rotation + 2
    assert float(objective(*tensors(moved, t))) == pytest.approx(float(objective(*tensors(s, t))), rel=1e-3)
    assert float(objective(*tensors(moved, s))) == pytest.approx(0, abs=1e-5)
    wide = np.concatenate([s, np.zeros((B, 3))], axis=1)
    assert float(objective(*tensors(wide, t))) == pytest.approx(float(objective(*tensors(s, t))), rel=1e-4)


def test_cka_and_gram(sides):
    s, t, _ = sides
    cs, ct = s - s.mean(axis=0), t - t.mean(axis=0)
    by_features = np.linalg.norm(cs.T @ ct) ** 2 / np.linalg.norm(cs.T @ cs) / np.linalg.norm(ct.T @ ct)
    assert float(cka(*tensors(s, t))) == pytest.approx(1 - by_features, **CLOSE)
    pairs = [(cos(s[i], s[j]) - cos(t[i], t[j])) ** 2 for i in range(B) for j in range(B) if i != j]
    assert float(gram(*tensors(s, t))) == pytest.approx(np.mean(pairs), **CLOSE)
    wide = np.concatenate([s, np.zeros((B, 3))], axis=1)
    assert float(gram(*tensors(wide, t))) == pytest.approx(np.mean(pairs), **CLOSE)


@pytest.mark.parametrize("normalise", [False, True])
def test_vicregs_terms(sides, normalise):
    s, _, _ = sides
    z = unit(s) * math.sqrt(D) if normalise else s
    stds = [math.sqrt(np.var(z[:, j], ddof=1) + 1e-4) for j in range(D)]
    covariance = np.cov(z.T)
    assert float(vicreg_variance(*tensors(s), gamma=1.2, normalise=normalise)) == pytest.approx(
        np.mean([max(0.0, 1.2 - d) for d in stds]), **CLOSE)
    off = sum(covariance[i, j] ** 2 for i in range(D) for j in range(D) if i != j)
    assert float(vicreg_covariance(*tensors(s), normalise=normalise)) == pytest.approx(off / D, **CLOSE)


def test_koleo_by_a_search_tree(sides):
    s, _, _ = sides
    nearest = NearestNeighbors(n_neighbors=2, algorithm="ball_tree").fit(unit(s)).kneighbors(unit(s))[0][:, 1]
    assert float(koleo(*tensors(s))) == pytest.approx(-np.log(nearest).mean(), **CLOSE)


@pytest.mark.parametrize("t", [0.5, 2.0])
def test_uniformity_leaves_self_pairs_out(sides, t):
    s, _, _ = sides
    squared = squareform(pdist(unit(s), "sqeuclidean"))
    values = [math.exp(-t * squared[i, j]) for i in range(B) for j in range(i)]
    assert float(uniformity(*tensors(s), t=t)) == pytest.approx(math.log(np.mean(values)), **CLOSE)


def test_spread_grows_when_a_collapsed_student_spreads():
    rng = np.random.default_rng(0)
    wide, narrow = rng.normal(size=(64, D)), rng.normal(size=(64, D)) * 0.1 + 1
    for objective in (koleo, uniformity, vicreg_variance):
        assert float(objective(*tensors(wide))) < float(objective(*tensors(narrow)))


def test_cross_entropy():
    logits = np.random.default_rng(0).normal(size=(B, 3))
    labels = np.arange(B) % 3
    found = cross_entropy(*tensors(logits), torch.from_numpy(labels))
    assert float(found) == pytest.approx(log_loss(labels, softmax(logits, axis=1)), **CLOSE)
    smoothed = -np.mean([0.9 * row[y] + 0.1 * row.mean() for row, y in zip(log_softmax(logits, axis=1), labels, strict=True)])
    found = cross_entropy(*tensors(logits), torch.from_numpy(labels), label_smoothing=0.1)
    assert float(found) == pytest.approx(smoothed, **CLOSE)


@pytest.mark.parametrize("objective", [cosine, centred_cosine, mse, smooth_l1, infonce, infonce_views, crd, similarity_kl])
def test_what_compares_coordinates_refuses_other_dimensions(objective):
    with refused(expected="4", got="3"):
        objective(torch.randn(B, 3), torch.randn(B, 4))
