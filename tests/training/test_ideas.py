"""What moved the frontier or might: weights averaged over steps, terms for a part of the training, targets averaged over
versions of an image, and several teachers as one."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from builders import refused
from builders.tiny import TEACHER, scratch, teacher_weights, tiny_study
from builders.training import DIM, student, train
from distillscope.config.parts import Teacher
from distillscope.config.resolve import check_parts
from distillscope.config.study import Arm
from distillscope.data.noise import Noise
from distillscope.results.arms import arms_of
from distillscope.results.run_files import trials_of
from distillscope.results.rundir import is_complete
from distillscope.study.prepared import load_data, prepare_targets, rehearse_views, seen_view, view_name
from distillscope.study.trial import run_trial, training_set
from distillscope.targets.transforms import unit_rows
from distillscope.teachers.encoder import load_teacher
from distillscope.training import loop
from distillscope.training.averaging import Averaged
from distillscope.training.loss import Terms

# -- weights averaged over steps ---------------------------------------------------------------------------------------------


def test_the_mean_is_that_of_a_loop_and_counters_are_copied():
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
    mean, by_hand = Averaged(module, 0.5), copy.deepcopy(module.state_dict())
    for step in range(1, 30):
        for value in module.parameters():
            value.data.normal_()
        module[1].num_batches_tracked += 1
        mean.update(module, step)
        decay = min(0.5, (1 + step) / (10 + step))
        by_hand = {k: decay * by_hand[k] + (1 - decay) * v if v.is_floating_point() else v.clone()
                   for k, v in module.state_dict().items()}
    mean.give(module)
    for key, value in module.state_dict().items():
        assert torch.allclose(value, by_hand[key], atol=1e-6), key


def test_a_student_ends_with_the_mean_and_a_killed_run_with_the_same_bits(tmp_path, monkeypatch):
    plain, averaged = student(), student()
    seen = []
    monkeypatch.setattr(Averaged, "update", lambda self, module, step: seen.append(copy.deepcopy(module.state_dict())))
    train(tmp_path / "plain", plain, epochs=3, average=0.9)
    monkeypatch.undo()
    train(tmp_path / "whole", averaged, epochs=3, average=0.9)
    expected = Averaged(student().module, 0.9)
    for step, state in enumerate(seen, 1):
        one = student().module
        one.load_state_dict(state)
        expected.update(one, step)
    assert all(torch.allclose(a, expected.mean[k], atol=1e-6) for k, a in averaged.module.state_dict().items())
    saved = loop.save_checkpoint

    def stop(path, state):
        saved(path, state)
        if state["step"] == 6:
            raise KeyboardInterrupt

    monkeypatch.setattr(loop, "save_checkpoint", stop)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "killed", epochs=3, average=0.9)
    monkeypatch.setattr(loop, "save_checkpoint", saved)
    again = student()
    train(tmp_path / "killed", again, epochs=3, average=0.9)
    assert all(torch.equal(a, averaged.module.state_dict()[k]) for k, a in again.module.state_dict().items())
    with refused(expected="checkpoint of this student"):
        train(tmp_path / "plain-first")
        train(tmp_path / "plain-first", average=0.9)


# -- terms for a part of the training ----------------------------------------------------------------------------------------

STAGES = [{"name": "relational_distance", "during": [0, 0.5]}, {"name": "cosine", "during": [0.5, 1]}]


def test_a_term_counts_in_its_part_of_the_training_alone():
    terms = Terms(Arm(name="a", objective=STAGES), DIM, DIM)
    given = {"student": torch.randn(6, DIM), "teacher": torch.randn(6, DIM)}
    first, second = (term.function(*(given[need] for need in term.needs)) for term in terms)
    for done, wanted in ((0.0, first), (0.49, first), (0.5, second), (0.99, second), (1.0, second)):
        terms.done = done
        assert torch.equal(terms(given, torch.arange(6), 6), wanted)


def test_the_loop_goes_from_one_stage_to_the_next(tmp_path, monkeypatch):
    seen = []
    forward = Terms.forward
    monkeypatch.setattr(Terms, "forward", lambda self, *args: seen.append(self.done) or forward(self, *args))
    history = train(tmp_path, arm=Arm(name="a", objective=STAGES), epochs=2)
    assert seen == [step / 6 for step in range(6)] and history[-1]["loss"] > 0


@pytest.mark.parametrize("begins", [0.0, 0.3])
def test_the_queue_of_a_term_that_begins_later_holds_each_image_once(begins):
    queued = {"name": "infonce", "queue": 30, **({"during": (begins, 1)} if begins else {})}
    terms, rng = Terms(Arm(name="x", objective=("cosine", queued)), 8, 8), np.random.default_rng(0)
    epochs, batch, seen = 4, 10, 0
    memory = next(term.memory for term in terms if term.memory)
    for step, items in enumerate(np.concatenate([rng.permutation(40).reshape(-1, batch) for _ in range(epochs)])):
        terms.done, rows = step / (epochs * 40 // batch), torch.randn(batch, 8)
        terms({"student": rows, "teacher": rows}, torch.from_numpy(items), batch)
        terms.remember()
        kept = memory.items.tolist()
        assert len(set(kept)) == len(kept) and kept[-batch:] == items.tolist()
        seen = max(seen, len(kept))
    assert seen == 30


@pytest.mark.parametrize(("during", "line"), [
    ([[0, 0.5], [0.6, 1]], "none after 50 % of it"), ([[0.1, 1], [0.2, 1]], "none after 0 % of it"),
    ([[0, 0.5], [0.2, 0.9]], "none after 90 % of it")])
def test_a_time_without_a_term_is_refused(during, line):
    terms = [{"name": name, "during": span} for name, span in zip(("cosine", "mse"), during, strict=True)]
    with refused(where="arms.a.objective", got=line):
        check_parts(tiny_study(arms=[{"name": "a", "objective": terms}]))


def test_stages_are_checked_and_make_another_arm():
    with refused(where="objective cosine.during", got="[0.5, 0.2]"):
        tiny_study(arms=[{"name": "a", "objective": {"name": "cosine", "during": [0.5, 0.2]}}])
    both = ["relational_distance", "cosine"]
    arms = arms_of(tiny_study(arms=[{"name": "a", "objective": STAGES}, {"name": "b", "objective": both},
                                    {"name": "c", "training": {"average": 0.99}}, {"name": "d"}]))
    assert arms["a"].differs(arms["b"]) == {"terms"} and arms["c"].trained_otherwise(arms["d"]) == {"average"}


# -- targets averaged over versions ------------------------------------------------------------------------------------------


def test_the_mean_target_is_that_of_all_versions_in_the_bank(tmp_path, monkeypatch):
    monkeypatch.setenv("DISTILLSCOPE_CACHE", str(tmp_path / "cache"))
    arms = [{"name": "mean", "view": "crop_flip", "view_bank": 3, "view_target": "mean", "seeds": [1]}]
    study = tiny_study(arms=arms, training={"epochs": 1, "batch_size": 32}, limit=120, target={"name": "pca", "dim": 8})
    splits = load_data(study, study.data[0])
    prepared = prepare_targets(study, load_teacher(study.teacher[0], "cpu", None), splits, study.target, list(study.arms))
    shown = training_set(study.arms[0], 1, splits, prepared)
    versions = [prepared.rows(view_name(study.arms[0], 1, number)) for number in range(3)]
    np.testing.assert_allclose(shown.targets(0), np.mean(versions, axis=0), atol=1e-6)
    assert shown.targets(4) is not None and not np.allclose(shown.targets(0), prepared.rows("train"))
    run_trial(study, trials_of(study)[0], splits, prepared, tmp_path / "trial")
    assert is_complete(tmp_path / "trial")


def test_a_student_sees_on_top_of_the_view_what_its_teacher_does_not(tmp_path, monkeypatch):
    monkeypatch.setenv("DISTILLSCOPE_CACHE", str(tmp_path / "cache"))
    under = {"name": "a", "view": "crop_flip", "view_bank": 2, "seeds": [1]}
    arms = [under, {**under, "name": "b", "student_view": {"name": "noise", "sigma": 0.4}}]
    study = tiny_study(arms=arms, training={"epochs": 3, "batch_size": 32}, limit=120)
    splits = load_data(study, study.data[0])
    prepared = prepare_targets(study, load_teacher(study.teacher[0], "cpu", None), splits, study.target, list(study.arms))
    plain, noisy = (training_set(arm, 1, splits, prepared) for arm in study.arms)
    images, ids = splits.train.read([0, 1]), splits.train.ids[:2]
    assert all(np.array_equal(plain.targets(epoch), noisy.targets(epoch)) for epoch in range(3))
    seen = [noisy.view(epoch)(images, ids) for epoch in range(3)]
    moved = [plain.view(epoch)(images, ids) for epoch in range(3)]
    assert torch.equal(moved[0], moved[2]) and not torch.equal(seen[0], seen[2]), "the bank repeats, the noise does not"
    again = noisy.view(0).then(moved[0], ids)
    assert torch.equal(again, seen[0])
    twice = seen_view(study.arms[0].model_copy(update={"view_bank": None, "student_view": study.arms[0].view}), 1, 0)
    steps = torch.arange(0, 160, 10, dtype=torch.uint8).repeat(24, 3, 16, 1)
    names = [str(i) for i in range(24)]
    falls = [(one(steps, names)[:, 0, 7, 6:10].float().diff().mean(dim=1) < 0).tolist() for one in (twice.first, twice)]
    assert sum(falls[0]) > 6 and sum(falls[1]) > 6, "a flip on top of a flip is drawn again: by the same draw none was left"
    run_trial(study, trials_of(study)[1], splits, prepared, tmp_path / "trial")
    assert is_complete(tmp_path / "trial")
    with refused(where="arms.b.student_view.where", expected="source", got="input"):
        rehearse_views(tiny_study(arms=[{**arms[1], "student_view": {"name": "noise", "where": "input"}}]), splits.train)
    with refused(where="arms.c.view", expected="a view"):
        check_parts(tiny_study(arms=[{"name": "c", "student_view": "noise"}]))


@pytest.mark.parametrize(("changes", "where"), [
    ({"view_target": "mean"}, "arms.a.view_bank"), ({"view_target": "mean", "view_bank": 1}, "arms.a.view_bank"),
    ({"view_target": "mean", "view_bank": 4, "objective": "soft_labels"}, "arms.a.view_target")])
def test_a_mean_needs_versions_and_embeddings(changes, where):
    with refused(where=where):
        check_parts(tiny_study(arms=[{"name": "a", "view": "crop_flip", **changes}]))


# -- several teachers as one -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def names():
    """The tiny teacher, and another of other weights."""
    import timm
    from safetensors.torch import save_file

    other = scratch() / "other-teacher.safetensors"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        save_file(timm.create_model(TEACHER, pretrained=False).state_dict(), other)
    return [f"timm/{TEACHER}:{teacher_weights()}", f"timm/{TEACHER}:{other}"]


def test_an_ensemble_is_the_unit_rows_of_its_teachers_side_by_side(names, tmp_path, monkeypatch):
    monkeypatch.setenv("DISTILLSCOPE_CACHE", str(tmp_path / "cache"))
    study = tiny_study(teacher=[{"name": "ensemble", "of": names, "label": "both"}], limit=120, seeds=[1],
                       training={"epochs": 1, "batch_size": 32}, target={"name": "pca", "dim": 8})
    splits = load_data(study, study.data[0])
    whole = load_teacher(study.teacher[0], "cpu", None)
    parts = [load_teacher(Teacher.model_validate(name), "cpu", None) for name in names]
    few, noise = splits.test.take(range(6)), Noise(0.2, study.noise.spec, 0, 0)
    for perturbation in (None, noise):
        wanted = np.hstack([unit_rows(part.rows(few, perturbation)) for part in parts]) / np.sqrt(2)
        np.testing.assert_allclose(whole.rows(few, perturbation), wanted, atol=1e-6)
        np.testing.assert_allclose(whole.encode(few.read(range(6)), few.ids, perturbation), wanted, atol=1e-5)
    assert np.allclose(np.linalg.norm(wanted, axis=1), 1) and whole.dim == 2 * parts[0].dim and whole.num_missing(few) == 0
    prepared = prepare_targets(study, whole, splits, study.target, list(study.arms))
    run_trial(study, trials_of(study)[0], splits, prepared, tmp_path / "trial")
    assert is_complete(tmp_path / "trial")


def test_an_ensemble_of_one_or_of_ready_rows_is_refused(names, tmp_path):
    np.save(tmp_path / "train.npy", np.zeros((3, 2), np.float32))
    for of in (names[:1], [names[0]] * 2):
        with refused(where="teacher.of", expected="two teachers"):
            load_teacher(Teacher.model_validate({"name": "ensemble", "of": of}), "cpu", None)
