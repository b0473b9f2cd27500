"""What every objective must do, whatever it computes; and each against another form: loops in float64, SciPy, a closed form."""

from __future__ import annotations

import inspect
import itertools
import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from scipy.spatial.distance import cdist, pdist, squareform
from scipy.special import huber, log_softmax, logsumexp, rel_entr, softmax
from sklearn.metrics import log_loss
from sklearn.neighbors import NearestNeighbors

from builders import refused
from builders.tiny import tiny_study
from distillscope.objectives import GIVEN
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
from distillscope.objectives.soft_labels import soft_labels
from distillscope.registry import objectives, projectors, targets

ITEMS, DIM, QUEUED, CLASSES = 12, 6, 7, 3
PAGE = (Path(__file__).parents[2] / "docs" / "objectives.md").read_text()
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
CLOSE = {"rel": 2e-5, "abs": 2e-6}  # float32 against float64 on numbers of order one


def given(seed: int = 0, dtype: torch.dtype = torch.float32, **changes: torch.Tensor) -> dict[str, torch.Tensor]:
    """A batch of everything that an objective may ask for."""
    generator = torch.Generator().manual_seed(seed)

    def rows(count: int, width: int) -> torch.Tensor:
        return torch.randn(count, width, generator=generator).to(dtype)

    batch = {"student": rows(ITEMS, DIM), "teacher": rows(ITEMS, DIM), "other": rows(ITEMS, DIM),
             "logits": rows(ITEMS, CLASSES), "earlier": rows(QUEUED, DIM), "labels": torch.arange(ITEMS) % CLASSES,
             "log_scale": torch.tensor(2.0, dtype=dtype), "teacher_logits": rows(ITEMS, CLASSES)}
    return {**batch, **changes}


def loss_of(name: str, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    return objectives.get(name)(*(batch[need] for need in objectives.needs(name)))


def seen(name: str) -> str:
    """What carries the gradient."""
    return "logits" if "logits" in objectives.needs(name) else "student"


@pytest.mark.parametrize("name", list(objectives))
def test_it_asks_for_what_there_is_and_says_where_it_comes_from(name):
    assert objectives.needs(name) and set(objectives.needs(name)) <= set(GIVEN)
    doc = inspect.getdoc(objectives.get(name))
    assert any(c.isdigit() for c in doc) or "control" in doc, "no source"
    assert len(objectives.summary(name)) <= 127
    if "earlier" in objectives.needs(name):
        assert len({"queue", "memory"} & set(objectives.settings(name))) == 1
    if "log_scale" in objectives.needs(name):
        assert "temperature" in objectives.settings(name)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", list(objectives))
def test_it_gives_one_finite_float32_number_and_gradient_the_same_each_time(name, dtype):
    batch = given(dtype=dtype)
    batch[seen(name)].requires_grad_()
    loss = loss_of(name, batch)
    assert loss.shape == () and loss.dtype == torch.float32 and torch.isfinite(loss)
    loss.backward()
    gradient = batch[seen(name)].grad
    assert torch.isfinite(gradient).all() and gradient.abs().max() > 0
    assert torch.equal(loss, loss_of(name, batch))


@pytest.mark.parametrize("name", list(objectives))
def test_half_precision_input_costs_rounding_of_the_input_and_no_more(name):
    half = given(dtype=torch.float16)
    as_floats = {k: v.float() if v.is_floating_point() else v for k, v in half.items()}
    assert torch.equal(loss_of(name, half), loss_of(name, as_floats))


@pytest.mark.parametrize("name", list(objectives))
def test_the_gradient_is_that_of_finite_differences(name):
    if name == "crd":
        pytest.skip("its normalising constant carries no gradient, by design; see test_crd_and_its_gradient below")
    batch = {k: v.double() if v.is_floating_point() else v for k, v in given().items()}
    base = batch[seen(name)].clone().requires_grad_()
    loss_of(name, {**batch, seen(name): base}).backward()
    length = base.grad.norm()
    step = 1e-2  # the loss is float32, so a smaller step would measure its rounding
    ahead, behind = (loss_of(name, {**batch, seen(name): base.detach() + s * base.grad / length}) for s in (step, -step))
    assert float(ahead - behind) / (2 * step) == pytest.approx(float(length), rel=1e-2)


@pytest.mark.parametrize("name", list(objectives))
def test_images_that_occur_twice_and_a_collapsed_student_leave_gradients_finite_and_small(name):
    twice, nearly = given(), given()
    for key in ("student", "teacher", "other", "logits"):
        twice[key] = torch.cat([twice[key][:6], twice[key][:6]])
        nearly[key] = twice[key] + 1e-6 * nearly[key]
    collapsed = given(student=torch.ones(ITEMS, DIM), other=torch.ones(ITEMS, DIM), logits=torch.ones(ITEMS, CLASSES))
    for batch in (twice, nearly, collapsed):
        batch[seen(name)].requires_grad_()
        loss = loss_of(name, batch)
        loss.backward()
        assert torch.isfinite(loss)
        assert batch[seen(name)].grad.abs().max() < 1e3


@pytest.mark.parametrize("name", list(objectives))
def test_the_order_of_the_batch_changes_nothing(name):
    batch, order = given(), torch.randperm(ITEMS, generator=torch.Generator().manual_seed(2))
    turned = {k: v[order] if v.shape[:1] == (ITEMS,) else v for k, v in batch.items()}
    assert float(loss_of(name, turned)) == pytest.approx(float(loss_of(name, batch)), rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("name", list(projectors))
def test_projectors_go_from_the_students_to_the_targets_dimension_or_to_their_own(name):
    z = torch.randn(4, 6)
    assert projectors.call(name, {}, 6, 9)(z).shape == (4, 9)
    assert projectors.call(name, {"dim": 5}, 6, 9)(z).shape == (4, 5)


def test_every_part_stands_in_its_table():
    rows = set(re.findall(r"^\| `(\w+)` \|", PAGE, re.MULTILINE))
    assert rows == set(objectives) | set(targets)
    assert all(name in PAGE for name in projectors)
    assert all(f"`{name}`" in PAGE for name in GIVEN)


def test_the_yaml_is_a_study():
    (text,) = [body for language, body in BLOCKS if language == "yaml"]
    assert [a.name for a in tiny_study(**yaml.safe_load(text)).arms] == ["mixed", "projected", "staged"]


def test_the_example_of_twin_and_ridge_map_prints_what_it_says(capsys):
    exec([body for language, body in BLOCKS if language == "python"][0], {})
    raw, mapped = map(float, capsys.readouterr().out.split())
    assert raw == pytest.approx(15, abs=0.5)
    assert mapped == pytest.approx(3.5, abs=0.2)


def test_an_objective_of_ones_own_is_one_function(monkeypatch):
    monkeypatch.setattr(objectives, "_parts", dict(objectives._parts) if list(objectives) else {})
    exec([body for language, body in BLOCKS if language == "python"][1], {"__name__": "mine"})
    assert objectives.check("squared_cosine", {"power": 3}) == {"power": 3.0}
    tiny_study(arms=[{"name": "a", "objective": {"name": "squared_cosine", "power": 3}}])


@pytest.fixture
def sides() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.normal(size=(ITEMS, DIM)) + 0.5, rng.normal(size=(ITEMS, DIM)), rng.normal(size=(QUEUED, DIM))


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
    ms, mt = sum(us) / ITEMS, sum(ut) / ITEMS
    assert float(centred_cosine(*tensors(s, t))) == pytest.approx(np.mean([1 - cos(a - ms, b - mt)
                                                                           for a, b in zip(us, ut, strict=True)]), **CLOSE)
    # A student that knows only the common direction: cosine is content, centred cosine is not.
    common = np.zeros(DIM)
    common[0] = 20
    only, wanted = (np.random.default_rng(seed).normal(size=(ITEMS, DIM)) + common for seed in (3, 4))
    assert float(cosine(*tensors(only, wanted))) < 0.02
    assert float(centred_cosine(*tensors(only, wanted))) > 0.5


@pytest.mark.parametrize("temperature", [0.1, 1.0])
def test_infonce_with_and_without_a_queue(sides, temperature):
    s, t, q = sides
    for earlier in (None, q):
        anchors = t if earlier is None else np.concatenate([t, earlier])
        losses = [-log_softmax([cos(s[i], a) / temperature for a in anchors])[i] for i in range(ITEMS)]
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
    equal = torch.ones(ITEMS, DIM)  # all cosines equal: h is 1 / (N + 1) everywhere
    others = ITEMS - 1
    assert float(crd(equal, equal)) == pytest.approx(math.log(1 + others) + others * math.log(1 + 1 / others), rel=1e-5)


def test_similarity_kl(sides):
    s, t, q = sides
    anchors = np.concatenate([t, q])
    total = 0.0
    for a, b in zip(s, t, strict=True):
        p = softmax([cos(b, c) / 0.07 for c in anchors])
        total += sum(p * (np.log(p) - log_softmax([cos(a, c) / 0.2 for c in anchors])))
    found = similarity_kl(*tensors(s, t, q), temperature=0.2, teacher_temperature=0.07)
    assert float(found) == pytest.approx(total / ITEMS, **CLOSE)


def test_relational_distance(sides):
    s, t, _ = sides
    ds, dt = pdist(s), pdist(t)
    assert float(relational_distance(*tensors(s, t))) == pytest.approx(np.mean(huber(1, ds / ds.mean() - dt / dt.mean())),
                                                                       **CLOSE)


def test_relational_angle_over_all_triples_of_the_first_items(sides):
    s, t, _ = sides
    for items in (7, 64):
        losses = [huber(1, cos(s[i] - s[j], s[k] - s[j]) - cos(t[i] - t[j], t[k] - t[j]))
                  for i, j, k in itertools.permutations(range(min(items, ITEMS)), 3)]
        assert float(relational_angle(*tensors(s, t), items=items)) == pytest.approx(np.mean(losses), rel=1e-4)


@pytest.mark.parametrize("objective", [relational_distance, relational_angle, cka])
def test_relations_do_not_see_rotation_scale_or_shift_and_need_no_equal_dimensions(objective, sides):
    s, t, _ = sides
    rotation = np.linalg.qr(np.random.default_rng(1).normal(size=(DIM, DIM)))[0]
    moved = 3 * s @ rotation + 2
    assert float(objective(*tensors(moved, t))) == pytest.approx(float(objective(*tensors(s, t))), rel=1e-3)
    assert float(objective(*tensors(moved, s))) == pytest.approx(0, abs=1e-5)
    wide = np.concatenate([s, np.zeros((ITEMS, 3))], axis=1)
    assert float(objective(*tensors(wide, t))) == pytest.approx(float(objective(*tensors(s, t))), rel=1e-4)


def test_cka_and_gram(sides):
    s, t, _ = sides
    cs, ct = s - s.mean(axis=0), t - t.mean(axis=0)
    by_features = np.linalg.norm(cs.T @ ct) ** 2 / np.linalg.norm(cs.T @ cs) / np.linalg.norm(ct.T @ ct)
    assert float(cka(*tensors(s, t))) == pytest.approx(1 - by_features, **CLOSE)
    pairs = [(cos(s[i], s[j]) - cos(t[i], t[j])) ** 2 for i in range(ITEMS) for j in range(ITEMS) if i != j]
    assert float(gram(*tensors(s, t))) == pytest.approx(np.mean(pairs), **CLOSE)
    wide = np.concatenate([s, np.zeros((ITEMS, 3))], axis=1)
    assert float(gram(*tensors(wide, t))) == pytest.approx(np.mean(pairs), **CLOSE)


@pytest.mark.parametrize("normalise", [False, True])
def test_vicregs_terms(sides, normalise):
    s, _, _ = sides
    z = unit(s) * math.sqrt(DIM) if normalise else s
    stds = [math.sqrt(np.var(z[:, j], ddof=1) + 1e-4) for j in range(DIM)]
    covariance = np.cov(z.T)
    assert float(vicreg_variance(*tensors(s), gamma=1.2, normalise=normalise)) == pytest.approx(
        np.mean([max(0.0, 1.2 - d) for d in stds]), **CLOSE)
    off = sum(covariance[i, j] ** 2 for i in range(DIM) for j in range(DIM) if i != j)
    assert float(vicreg_covariance(*tensors(s), normalise=normalise)) == pytest.approx(off / DIM, **CLOSE)


def test_koleo_by_a_search_tree(sides):
    s, _, _ = sides
    nearest = NearestNeighbors(n_neighbors=2, algorithm="ball_tree").fit(unit(s)).kneighbors(unit(s))[0][:, 1]
    assert float(koleo(*tensors(s))) == pytest.approx(-np.log(nearest).mean(), **CLOSE)


@pytest.mark.parametrize("t", [0.5, 2.0])
def test_uniformity_leaves_self_pairs_out(sides, t):
    s, _, _ = sides
    squared = squareform(pdist(unit(s), "sqeuclidean"))
    values = [math.exp(-t * squared[i, j]) for i in range(ITEMS) for j in range(i)]
    assert float(uniformity(*tensors(s), t=t)) == pytest.approx(math.log(np.mean(values)), **CLOSE)


def test_spread_grows_when_a_collapsed_student_spreads():
    rng = np.random.default_rng(0)
    wide, narrow = rng.normal(size=(64, DIM)), rng.normal(size=(64, DIM)) * 0.1 + 1
    for objective in (koleo, uniformity, vicreg_variance):
        assert float(objective(*tensors(wide))) < float(objective(*tensors(narrow)))


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_soft_labels_are_scipys_relative_entropy(temperature):
    batch = given()
    mine, teachers = (batch[k].double().numpy() / temperature for k in ("logits", "teacher_logits"))
    wanted = temperature**2 * rel_entr(softmax(teachers, axis=1), softmax(mine, axis=1)).sum(axis=1).mean()
    found = soft_labels(batch["logits"], batch["teacher_logits"], temperature=temperature)
    assert float(found) == pytest.approx(wanted, **CLOSE)
    shifted = batch["logits"] + torch.arange(ITEMS)[:, None]
    assert float(soft_labels(shifted, batch["logits"])) == pytest.approx(0, abs=2e-5)


def test_at_a_high_temperature_soft_labels_regress_centred_logits():
    """Hinton et al. (2015), section 2.1: half the mean squared difference of centred logits, a class."""
    batch = given()
    mine, teachers = (batch[k] - batch[k].mean(dim=1, keepdim=True) for k in ("logits", "teacher_logits"))
    limit = float((mine - teachers).square().sum(dim=1).mean()) / (2 * CLASSES)
    assert float(soft_labels(batch["logits"], batch["teacher_logits"], temperature=300)) == pytest.approx(limit, rel=0.02)


def test_cross_entropy():
    logits = np.random.default_rng(0).normal(size=(ITEMS, 3))
    labels = np.arange(ITEMS) % 3
    found = cross_entropy(*tensors(logits), torch.from_numpy(labels))
    assert float(found) == pytest.approx(log_loss(labels, softmax(logits, axis=1)), **CLOSE)
    smoothed = -np.mean([0.9 * row[y] + 0.1 * row.mean() for row, y in zip(log_softmax(logits, axis=1), labels, strict=True)])
    found = cross_entropy(*tensors(logits), torch.from_numpy(labels), label_smoothing=0.1)
    assert float(found) == pytest.approx(smoothed, **CLOSE)


@pytest.mark.parametrize("objective", [cosine, centred_cosine, mse, smooth_l1, infonce, infonce_views, crd, similarity_kl])
def test_what_compares_coordinates_refuses_other_dimensions(objective):
    with refused(expected="4", got="3"):
        objective(torch.randn(ITEMS, 3), torch.randn(ITEMS, 4))
