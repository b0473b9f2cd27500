"""An arm's terms: what they see, what is trained beside the student, what is remembered, what is refused."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from builders import refused
from builders.training import DIM, ITEMS, source, student, targets
from distillscope.config.parts import Part
from distillscope.config.study import Arm, Training
from distillscope.data.source import Source
from distillscope.data.views import View
from distillscope.errors import UserError
from distillscope.facts import ObjectiveFacts
from distillscope.registry import objectives
from distillscope.students.load import load_student, save_student
from distillscope.training.loop import TrainingSet, distill
from distillscope.training.loss import Memory, Terms, check_arm, check_dims, target_dim
from distillscope.training.streams import KeyedStreams

NAMES = list(objectives)  # all are registered before a test puts its own in their place
EVERYTHING = Arm(name="all", view={"name": "crop_flip"}, projector={"name": "mlp", "hidden": 6}, objective=(
    {"name": "cosine", "projected": False},
    {"name": "infonce_learned", "queue": 24, "weight": 0.5},
    {"name": "crd", "memory": 20, "weight": 0.1},
    {"name": "cross_entropy"},
    {"name": "infonce_views", "weight": 0.1},
))


def batch(count: int = 6, seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    rows = {n: torch.randn(count, DIM, generator=generator) for n in ("student", "teacher", "other")}
    return {**rows, "labels": torch.arange(count) % 3}


def train(folder, arm, one=None, stop_at=None, **settings):
    """A run, stopped as if by Ctrl-C after that many images."""
    seen = 0

    def advance(count):
        nonlocal seen
        seen += count
        if seen == stop_at:
            raise KeyboardInterrupt

    view = (lambda epoch: View("crop_flip", {"padding": 1}, 0, epoch)) if arm.view else (lambda epoch: None)
    one = one or student()
    history = distill(one, TrainingSet(source(), lambda epoch: targets(), view), arm,
                      Training(**{"epochs": 4, "batch_size": 8, **settings}), KeyedStreams(0, "S"), folder, advance=advance)
    return one, history


def test_the_loss_is_the_weighted_sum_and_a_weight_of_nothing_is_not_computed(monkeypatch):
    arm = Arm(name="x",
              objective=({"name": "cosine", "weight": 2}, {"name": "mse", "weight": 0.5}, {"name": "koleo", "weight": 0}))
    monkeypatch.setitem(objectives._parts, "koleo", lambda student: 1 / 0)
    terms, given = Terms(arm, DIM, DIM), batch()
    assert terms.needs == {"student", "teacher"}
    parts = [objectives.get(n)(given["student"], given["teacher"]) for n in ("cosine", "mse")]
    assert float(terms(given, torch.arange(6), 6)) == pytest.approx(float(2 * parts[0] + 0.5 * parts[1]), rel=1e-6)


def test_terms_see_the_projector_unless_they_ask_for_the_students_own():
    arm = Arm(name="x", projector={"name": "linear", "dim": 3}, objective=(
        {"name": "uniformity"}, {"name": "uniformity", "projected": False, "t": 3.0}, {"name": "cross_entropy"}))
    terms, given = Terms(arm, DIM, DIM, 3), batch()
    shown = terms.projector(given["student"])
    assert terms.terms[2].head.in_features == 3
    by_hand = (objectives.get("uniformity")(shown) + objectives.get("uniformity")(given["student"], t=3.0)
               + objectives.get("cross_entropy")(terms.terms[2].head(shown), given["labels"]))
    assert float(terms(given, torch.arange(6), 6).detach()) == pytest.approx(float(by_hand.detach()), rel=1e-6)


def test_projector_head_and_scale_are_trained_and_thrown_away(tmp_path):
    one, history = train(tmp_path, EVERYTHING, epochs=6)
    assert history[-1]["loss"] < history[0]["loss"]
    state = torch.load(tmp_path / "checkpoint.pt", weights_only=True)["terms"]["parameters"]
    began = Terms(EVERYTHING, DIM, DIM, 3, seed=0).state_dict()
    assert state.keys() == began.keys()
    assert all(not torch.equal(state[k], began[k]) for k in state)
    save_student(one, tmp_path / "saved")
    again = load_student(tmp_path / "saved", device="cpu")
    assert set(again.module.state_dict()) == set(student().module.state_dict())
    images = source().read(range(5))
    assert np.array_equal(again.encode(images, source().ids[:5]), one.encode(images, source().ids[:5]))


def test_labels_are_learned_through_the_head(tmp_path):
    history = train(tmp_path, Arm(name="x", objective="cross_entropy"), epochs=25, learning_rate=3e-3)[1]
    assert history[-1]["loss"] < 0.6 < math.log(3) < history[0]["loss"] + 0.2


def test_what_stands_beside_the_student_does_not_touch_its_initial_weights_and_shares_its_own():
    torch.manual_seed(7)
    before = torch.random.get_rng_state()
    one, two = Terms(EVERYTHING, DIM, DIM, 3, seed=5), Terms(EVERYTHING, DIM, DIM, 3, seed=5)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
    other = Terms(EVERYTHING, DIM, DIM, 3, seed=6)
    assert not torch.equal(next(one.projector.parameters()), next(other.projector.parameters()))


def test_a_memory_keeps_the_newest_rows_each_item_once_and_never_one_of_the_batch():
    memory, kept, rng = Memory(20), {}, np.random.default_rng(0)
    for _ in range(40):
        items = torch.from_numpy(rng.permutation(30)[:8])
        rows = torch.from_numpy(rng.normal(size=(8, 3))).float()
        found = memory.without(items, rows)
        kept = {i: r for i, r in kept.items() if i not in set(items.tolist())}  # a dict keeps the order of insertion
        assert memory.items.tolist() == list(kept)
        assert found.shape == (len(kept), 3) and (not kept or torch.equal(found, torch.stack(list(kept.values()))))
        memory.add(rows, items)
        kept = dict(list({**kept, **dict(zip(items.tolist(), rows, strict=True))}.items())[-20:])
    assert len(memory.rows) == 20
    none = Memory(0)
    none.add(rows, items)
    assert none.without(items, rows).shape == (0, 3)


def test_the_queue_holds_what_the_loop_saw_before(tmp_path, monkeypatch):
    seen = []

    def spy(student, teacher, earlier, *, queue: int = 0):
        seen.append((teacher.clone(), earlier.clone()))
        return (student**2).mean()

    monkeypatch.setitem(objectives._parts, "infonce", spy)
    train(tmp_path, Arm(name="x", objective={"name": "infonce", "queue": 20}), epochs=1)
    assert [len(earlier) for _, earlier in seen] == [0, 8, 16, 20, 20, 20]
    for step in range(1, 6):
        assert torch.equal(seen[step][1], torch.cat([teacher for teacher, _ in seen[:step]])[-20:])


def test_an_interrupted_run_goes_on_to_the_same_bits_with_memory_projector_head_and_scale(tmp_path):
    never, _ = train(tmp_path / "never", EVERYTHING)
    for stop_at in (8 * 4, 8 * 11):  # images since the start, and since going on, which counts those before
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path / "killed", EVERYTHING, stop_at=stop_at)
    killed, history = train(tmp_path / "killed", EVERYTHING)
    assert history[-1]["step"] == 4 * ITEMS // 8
    for a, b in zip(never.module.state_dict().values(), killed.module.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_a_learned_temperature_that_reaches_the_largest_scale_is_held_there_and_comes_back():
    arm = Arm(name="x", objective={"name": "infonce_learned", "temperature": 0.01})
    terms, same = Terms(arm, DIM, DIM), torch.nn.functional.normalize(batch()["teacher"])
    (term,) = terms
    optimizer = torch.optim.SGD(terms.parameters(), lr=0.001)
    for _ in range(2):  # where it begins, and where it is held
        optimizer.zero_grad()
        terms({"student": same.flip(0), "teacher": same}, torch.arange(6), 6).backward()  # every image is another's
        optimizer.step()
        assert term.log_scale.exp().item() < 99
        with torch.no_grad():
            term.log_scale += 3
        terms.hold_scales()
        assert term.log_scale.exp().item() == pytest.approx(100)


def test_the_loop_holds_a_learned_temperature_after_every_step(tmp_path, monkeypatch):
    found, hold = [], Terms.hold_scales
    monkeypatch.setattr(Terms, "hold_scales", lambda self: (hold(self), found.append(next(iter(self)).log_scale.item())))
    train(tmp_path, Arm(name="x", objective={"name": "infonce_learned", "temperature": 0.011}), epochs=2, learning_rate=0.2)
    assert len(found) == 12 and max(found) <= math.log(100) + 1e-6


# -- what cannot be given ---------------------------------------------------------------------------------------------------


def bare() -> Source:
    return Source("bare", "train", source().ids, source().fetch, pixels=source().pixels)


@pytest.mark.parametrize(("objective", "settings", "data", "message"), [
    ("cross_entropy", {}, bare(),
     r"arms\.x\.objective \(cross_entropy\): expected data with labels, got bare/train without\. Name"),
    ({"name": "infonce", "queue": 33}, {}, source(),
     r"arms\.x\.objective \(infonce\) queue: expected at most 32, the 48 training images.*, got 33\. Set a smaller queue"),
    ({"name": "crd"}, {}, source(), r"\(crd\) memory: expected at most 32.*got 1024"),
    ({"name": "infonce", "queue": -1}, {}, source(), r"objective\.queue: .*greater than or equal to 0"),
    ({"name": "infonce", "temperature": 0}, {}, source(), r"objective\.temperature: .*greater than 0"),
    ({"name": "infonce_learned", "temperature": 0.005}, {}, source(),
     r"objective\.temperature: .*greater than or equal to 0\.01"),
    ("infonce_views", {}, source(), r"arms\.x\.objective: expected a view, since infonce_views compares two views, got none"),
    ({"name": "cosine", "weight": 0}, {}, source(), r"arms\.x\.objective: expected weights that sum to more than 0"),
    ("infonce", {"drop_last": False, "batch_size": 47}, source(),
     r"training\.drop_last: expected true, since the last batch would be one image.*got false with 48 images in batches of 47"),
])
def test_what_the_data_or_the_batch_cannot_give_is_said_before_any_work(objective, settings, data, message, tmp_path):
    arm, training = Arm(name="x", objective=objective), Training(**{"batch_size": 16, **settings})
    with pytest.raises(UserError, match=message) as error:
        check_arm(arm, training, data)
    assert "\n" not in str(error.value)
    with pytest.raises(UserError, match=message):  # and by the loop, for whoever calls it alone
        distill(student(), TrainingSet(data, lambda epoch: targets()), arm, training, KeyedStreams(0, "S"), tmp_path)


def test_the_largest_queue_that_fits_is_let_through(tmp_path):
    check_arm(Arm(name="x", objective={"name": "infonce", "queue": 32}), Training(batch_size=16), source())


def test_dimensions_that_cannot_be_compared_are_said_by_the_arm_and_the_term():
    arm = Arm(name="x", projector={"name": "linear", "dim": 3}, objective=("gram", "mse"))
    with pytest.raises(UserError, match=r"arms\.x\.objective \(mse\): expected as many dimensions as the target's 8, since it "
                                        r"compares coordinates, got 3\. Leave projector\.dim out"):
        check_dims(arm, Part(name="none"), 8)
    check_dims(arm.model_copy(update={"objective": arm.objective[:1]}), Part(name="none"), 8)  # a relation needs no equal dims
    check_dims(arm, Part(name="whiten", dim=3), 8)
    with refused(where="target.dim", expected="8", got="512"):
        check_dims(arm, Part(name="pca"), 8)
    assert [target_dim(Part(name=n, **s), 600)
            for n, s in (("none", {}), ("pca", {}), ("whiten", {"dim": 9}), ("phi_s", {}))] == [
        600, 512, 9, 600]


def test_a_term_that_asks_for_something_unknown_is_said(monkeypatch):
    def odd(student, techer):
        """Odd."""

    monkeypatch.setitem(objectives._parts, "odd", odd)
    monkeypatch.setitem(objectives._facts, "odd", ObjectiveFacts())
    with refused(got="'techer'", advice="'teacher'"):
        Terms(Arm(name="x", objective="odd"), DIM, DIM)
