"""What every objective must do, whatever it computes."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest
import torch
import yaml

from builders.tiny import tiny_study
from distillscope.objectives import GIVEN
from distillscope.registry import objectives, projectors, targets

B, D, Q, CLASSES = 12, 6, 7, 3


def given(seed: int = 0, dtype: torch.dtype = torch.float32, **changes: torch.Tensor) -> dict[str, torch.Tensor]:
    """A batch of everything that an objective may ask for."""
    generator = torch.Generator().manual_seed(seed)

    def rows(count: int, width: int) -> torch.Tensor:
        return torch.randn(count, width, generator=generator).to(dtype)

    batch = {"student": rows(B, D), "teacher": rows(B, D), "other": rows(B, D), "logits": rows(B, CLASSES),
             "earlier": rows(Q, D), "labels": torch.arange(B) % CLASSES, "log_scale": torch.tensor(2.0, dtype=dtype)}
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
        pytest.skip("its normalising constant carries no gradient, by design; see test_oracles")
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
    collapsed = given(student=torch.ones(B, D), other=torch.ones(B, D), logits=torch.ones(B, CLASSES))
    for batch in (twice, nearly, collapsed):
        batch[seen(name)].requires_grad_()
        loss = loss_of(name, batch)
        loss.backward()
        assert torch.isfinite(loss)
        assert batch[seen(name)].grad.abs().max() < 1e3


@pytest.mark.parametrize("name", list(objectives))
def test_the_order_of_the_batch_changes_nothing(name):
    batch, order = given(), torch.randperm(B, generator=torch.Generator().manual_seed(2))
    turned = {k: v[order] if v.shape[:1] == (B,) else v for k, v in batch.items()}
    assert float(loss_of(name, turned)) == pytest.approx(float(loss_of(name, batch)), rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("name", list(projectors))
def test_projectors_go_from_the_students_to_the_targets_dimension_or_to_their_own(name):
    z = torch.randn(4, 6)
    assert projectors.call(name, {}, 6, 9)(z).shape == (4, 9)
    assert projectors.call(name, {"dim": 5}, 6, 9)(z).shape == (4, 5)


PAGE = (Path(__file__).parents[2] / "docs" / "objectives.md").read_text()
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


def test_every_part_stands_in_its_table():
    rows = set(re.findall(r"^\| `(\w+)` \|", PAGE, re.MULTILINE))
    assert rows == set(objectives) | set(targets)
    assert all(name in PAGE for name in projectors)
    assert all(f"`{name}`" in PAGE for name in GIVEN)


def test_the_yaml_is_a_study():
    (text,) = [body for language, body in BLOCKS if language == "yaml"]
    assert [a.name for a in tiny_study(**yaml.safe_load(text)).arms] == ["mixed", "projected"]


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
