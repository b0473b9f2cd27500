"""One trial, and one student: what is kept and measured; `distill --resume` goes on with the same request and no other."""

from __future__ import annotations

import json
import os
from dataclasses import replace

import numpy as np
import pytest
import torch
import yaml
from torch.nn.functional import cross_entropy

from builders import refused
from builders.tiny import scratch, tiny_study, tiny_values
from distillscope.config.load import study_from
from distillscope.config.parts import CLIP_MEAN, CLIP_STD
from distillscope.config.recipe import FIRST_RECIPE, one_student
from distillscope.data.noise import Noise
from distillscope.errors import UserError
from distillscope.measure.audit import prepare
from distillscope.measure.contrastive import TEMPERATURES
from distillscope.measure.probe import ridge_map
from distillscope.measure.rows import unit
from distillscope.results.run_files import trials_of
from distillscope.results.rundir import is_complete
from distillscope.students.load import build_student
from distillscope.study.measuring import best_temperature, folds_of, mapped_measures, mapped_rows, teacher_side
from distillscope.study.plan import plan_student
from distillscope.study.prepared import load_data, prepare_targets
from distillscope.study.run import run_study
from distillscope.study.student import IGNORED, REQUEST, compare_request, distill_one
from distillscope.study.trial import fresh_student, make_health, make_streams, run_trial
from distillscope.targets.transforms import load_target
from distillscope.teachers.encoder import load_teacher
from distillscope.training import loop
from distillscope.training.streams import KeyedStreams, NotebookStreams

TEST, TRAIN, DIM, NOISE = 3000, 1200, 12, 2.0
OTHERS = [
    ({"training": {"epochs": 9, "batch_size": 16}}, {}, r"training.epochs: expected 1 as when it started, got 9"),
    ({"training": {"epochs": 1, "batch_size": 16, "learning_rate": 0.1}}, {}, "training.learning_rate: expected 0.001"),
    ({"training": {"epochs": 1, "batch_size": 8}}, {}, "training.batch_size"),
    ({"seeds": [7]}, {}, "seeds.0: expected 1 as when it started, got 7"),
    ({"limit": 60}, {}, "limit: expected 80"),
    ({"data": ["cifar10"]}, {}, "data.0.name: expected \"digits\""),
    ({"arms": [{"name": "cosine", "objective": "mse"}]}, {}, "objective.0.name: expected \"cosine\""),
    ({"students": [{"name": "paper_cnn", "label": "S", "width": 2, "image_size": 16}]}, {},
     "student.width: expected 1 as when it started, got 2"),
    ({"target": {"name": "pca", "dim": 4}}, {}, "target.dim"),
    ({}, {"precision": "bfloat16"}, "precision: expected \"float32\""),
]


@pytest.fixture
def ready(monkeypatch):
    """A study with its data and its teacher's targets."""
    monkeypatch.setenv("DISTILLSCOPE_CACHE", str(scratch() / "cache"))

    def make(**changes):
        study = tiny_study(**changes)
        splits = load_data(study, study.data[0])
        encoder = load_teacher(study.teacher[0], "cpu", None)
        return study, splits, prepare_targets(study, encoder, splits, study.target, list(study.arms))

    return make


def test_a_trial_counts_its_training_images_and_keeps_its_targets_transform(ready, tmp_path):
    study, splits, prepared = ready(
        target={"name": "pca", "dim": 16}, probes={"paper": True, "tuned": True, "cs": [0.1, 1.0]}
    )
    counted = []
    run_trial(study, trials_of(study)[0], splits, prepared, tmp_path, advance=counted.append)
    assert sum(counted) == 2 * 160
    assert is_complete(tmp_path)
    assert (tmp_path / "target.safetensors").is_file()
    assert "probe.student.accuracy" in (tmp_path / "results.csv").read_text()


def test_an_arm_changes_its_students_network_and_nothing_else(ready, tmp_path):
    import torch

    from distillscope import load_student
    arms = [{"name": "cosine"}, {"name": "blur", "student": {"blur_pool": True}}]
    study, splits, prepared = ready(arms=arms, training={"epochs": 1, "batch_size": 32})
    plain, blur = (fresh_student(study, a, study.student_of(a, "S"), 1, prepared, "cpu", "float32")[0] for a in study.arms)
    assert all(torch.equal(x, y) for x, y in zip(plain.module.parameters(), blur.module.parameters(), strict=True))
    assert str(plain.module) != str(blur.module)
    run_trial(study, next(t for t in trials_of(study) if t.arm == "blur"), splits, prepared, tmp_path)
    assert str(load_student(tmp_path).module) == str(blur.module)


@pytest.mark.parametrize(("settings", "message"), [
    ({"blur_poool": True}, "Did you mean 'blur_pool'"), ({"name": "timm"}, "Another network is another student"),
])
def test_a_wrong_setting_of_an_arms_network_is_one_line(settings, message):
    from distillscope.errors import UserError

    with pytest.raises(UserError, match=message):
        tiny_study(arms=[{"name": "blur", "student": settings}])


def test_a_trial_that_fails_while_measuring_is_not_complete(ready, tmp_path, monkeypatch):
    import distillscope.study.trial as module

    study, splits, prepared = ready()

    def broken(*args, **kwargs):
        raise RuntimeError("no")

    monkeypatch.setattr(module, "evaluate", broken)
    with pytest.raises(RuntimeError):
        run_trial(study, trials_of(study)[0], splits, prepared, tmp_path)
    assert not is_complete(tmp_path)
    monkeypatch.undo()
    monkeypatch.setenv("DISTILLSCOPE_CACHE", str(scratch() / "cache"))
    before = (tmp_path / "weights.safetensors").read_bytes()
    run_trial(study, trials_of(study)[0], splits, prepared, tmp_path)  # goes on from the last checkpoint
    assert (tmp_path / "weights.safetensors").read_bytes() == before


def test_tuned_probes_without_validation_are_left_out_and_said(ready, tmp_path):
    study, splits, prepared = ready(validation=0, probes={"paper": True, "tuned": True})
    run_trial(study, trials_of(study)[0], splits, prepared, tmp_path)
    assert "no validation part; set validation=1000" in (tmp_path / "complete.json").read_text()


def test_health_is_measured_on_what_is_held_out(ready):
    _, splits, prepared = ready()
    health = make_health(splits, prepared)
    assert health.split == "validation"
    assert not set(health.held_out.ids) & set(splits.train.ids)
    assert not set(health.held_out.ids) & set(health.gallery.ids)


def test_a_study_chooses_its_streams(ready):
    study, _, prepared = ready(streams="notebook")
    dim = prepared.rows("train").shape[1]
    assert isinstance(make_streams(study, study.arms[0], study.students[0], 1, dim), NotebookStreams)
    keyed = study.model_copy(update={"streams": "keyed"})
    assert type(make_streams(keyed, study.arms[0], study.students[0], 1, dim)) is KeyedStreams


def test_noise_of_each_seed_is_shared_within_it_and_by_no_other():
    sweep = [Noise(0.1), Noise(0.2)]
    assert KeyedStreams(1, "S").noise(sweep, 5) == sweep and KeyedStreams(1, "S").noise_seed(7) == 7
    one, large, other = KeyedStreams(1, "S", True), KeyedStreams(1, "L", True), KeyedStreams(2, "S", True)
    assert one.noise(sweep, 5) == large.noise(sweep, 5) != other.noise(sweep, 5)
    assert [n.sigma for n in one.noise(sweep, 5)] == [0.1, 0.2] and len({n.seed for n in one.noise(sweep, 5)}) == 1
    study = tiny_study(noise={"sigmas": [0.1], "per_seed": True, "decides": 0.1})
    of_study = make_streams(study, study.arms[0], study.students[0], 3, DIM)
    assert of_study.noise_seed(0) == KeyedStreams(3, "S", True).noise_seed(0)
    with refused(where="noise.decides", expected="0.1", got="0.3"):
        tiny_study(noise={"sigmas": [0.1], "decides": 0.3})


def test_the_temperature_is_that_of_the_least_loss():
    student, teacher = pair(300, 2.0, 0)
    cosines = torch.from_numpy(unit(student) @ teacher.T)
    losses = {t: float(cross_entropy(cosines / t, torch.arange(300))) for t in TEMPERATURES}
    assert best_temperature(student, teacher) == min(losses, key=losses.__getitem__)


def one_point(name, settings, dim, preprocess, label, device, precision):
    made = build_student(name, settings, dim, preprocess, label, device, precision)
    return replace(made, module=OneEmbedding(dim))


class OneEmbedding(torch.nn.Module):
    """One embedding for every image, whatever it learns."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.only = torch.nn.Parameter(torch.ones(dim))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.only.expand(len(images), -1) + 0 * images.mean()


def test_a_student_that_collapsed_to_one_point_is_measured_like_any_other(tmp_path, monkeypatch):
    monkeypatch.setattr("distillscope.study.trial.build_student", one_point)
    study = tiny_study(arms=[{"name": "a"}], seeds=[1], probes={"tuned": True}, target={"name": "pca", "dim": 8},
                       remedies=[{"name": "posthoc", "target": "whiten"}],
                       stresses=[{"name": "top_k", "ks": [2], "students": True}])
    run = run_study(study, tmp_path / "run", jobs=1)
    found = run.results[run.results["student"] == "S"].set_index(["measure", "condition"])["value"]
    assert run.training["effective_rank"].tolist() == [0.0] * len(run.training)
    assert "student.effective_rank" not in found
    assert found["paper.probe.student.accuracy", "clean"] == pytest.approx(0.1, abs=0.05)
    assert (tmp_path / "run" / "report.html").is_file()


def pair(count: int, noise: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Unit teacher rows, and a student that holds them under isotropic noise."""
    rng = np.random.default_rng(seed)
    teacher = unit(rng.normal(size=(count, DIM)))
    return teacher + noise / np.sqrt(DIM) * rng.normal(size=(count, DIM)), teacher


def mapped(student: np.ndarray, teacher: np.ndarray) -> dict[str, float]:
    return {row.measure: row.value for row in mapped_measures(student, prepare(teacher, normalize="l2"))}


def test_a_student_that_memorised_its_train_images_gets_the_r2_of_what_it_knows_of_others():
    """Of unseen images R2 is 1 / (1 + noise^2); a map fitted where the student is right says less than nothing."""
    student, teacher = pair(TEST, NOISE, 0)
    known = mapped(student, teacher)
    unit_noise = mapped(unit(student), teacher)
    expected = 1 / (1 + NOISE**2)
    assert known["mapped.teacher_r2"] == pytest.approx(expected, abs=0.03) and unit_noise == pytest.approx(known)
    memorised, seen = pair(TRAIN, 0.0, 1)
    missed = teacher - ridge_map(unit(memorised), seen)(unit(student))
    assert 1 - np.square(missed).sum() / np.square(teacher - teacher.mean(0)).sum() < 0  # the fit of before


def test_chance_reads_as_nothing_and_the_order_of_items_changes_nothing():
    rng = np.random.default_rng(2)
    student, teacher = rng.normal(size=(500, 20)), rng.normal(size=(500, 30))
    found = mapped(student, teacher)
    assert -0.02 < found["mapped.teacher_r2"] < 0.02 and found["mapped.recall_at_1"] < 0.02
    order = rng.permutation(500)
    again = mapped(student[order], teacher[order])
    assert again == pytest.approx(found, abs=1e-9)


@pytest.mark.parametrize("count", [60, 30])
def test_each_image_is_mapped_by_the_ridge_map_of_the_other_folds(count):
    """From the moments of the folds, in the span of few items too."""
    rng = np.random.default_rng(5)
    student, teacher = rng.normal(size=(count, 40)), rng.normal(size=(count, 12))
    folds, found = folds_of(teacher), mapped_rows(student, teacher)
    for fold in range(5):
        out = folds == fold
        np.testing.assert_allclose(found[out], ridge_map(student[~out], teacher[~out])(student[out]), rtol=1e-7, atol=1e-9)


def test_the_teachers_rows_are_prepared_once_for_all_students(tmp_path):
    path, z = tmp_path / "test.npy", np.random.default_rng(0).normal(size=(40, 6))
    np.save(path, z)
    side = teacher_side(path)
    mapped_measures(z, side)
    assert teacher_side(path) is side
    np.save(path, z[:30])
    os.utime(path, ns=(0, 0))
    assert teacher_side(path).count == 30


def test_repeats_share_a_fold_and_few_items_have_fewer_folds():
    teacher = np.repeat(np.random.default_rng(3).normal(size=(40, 4)), 3, axis=0)
    folds = folds_of(teacher)
    assert (folds.reshape(40, 3) == folds[::3, None]).all() and sorted(np.bincount(folds)) == [24] * 5
    assert set(folds_of(teacher[:9])) == {0, 1, 2}


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DISTILLSCOPE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.mark.parametrize(("changes", "message"), [
    ({"objective": {"name": "infonce", "queue": 5000}},
     r"arms\.a\.objective \(infonce\) queue: expected at most 128, the 160 training"),
    ({"objective": "crd"}, r"\(crd\) memory: expected at most 128.*got 1024\. Set a smaller memory"),
    ({"objective": "infonce_views"}, r"arms\.a\.objective: expected a view"),
    ({"projector": {"name": "linear", "dim": 3}},
     r"arms\.a\.objective \(cosine\): expected as many dimensions as the target's"),
    ({"projector": {"name": "mpl"}}, r"arms\.a\.projector\.name: expected a known projector, got 'mpl'\. Did you mean 'mlp'"),
    ({"objective": {"name": "cosine", "weight": 0}}, r"arms\.a\.objective: expected weights that sum to more than 0, got 0"),
    ({"target": {"name": "whiten", "exponent": 2}}, r"target\.exponent: expected float less than or equal to 1, got 2"),
    ({"target": {"name": "pca", "dim": 99999}}, r"target\.dim: expected 1 to the teacher's"),
])
def test_what_cannot_be_is_one_line_before_any_embedding(changes, message, cache, tmp_path):
    with pytest.raises(UserError, match=message) as error:
        run_study(tiny_study(arms=[{"name": "a", **changes}]), tmp_path / "run", jobs=1)
    assert "\n" not in str(error.value)
    assert not list(cache.glob("**/*.npy"))


def test_labels_that_are_not_there_are_said_before_any_embedding(cache, tmp_path, monkeypatch):
    def bare(study, data, **options):
        splits = load_data(study, data, **options)
        return replace(splits, train=replace(splits.train, labels=None))

    monkeypatch.setattr("distillscope.study.run.load_data", bare)
    with pytest.raises(UserError,
                       match=r"arms\.a\.objective \(cross_entropy\): expected data with labels, got digits/train without"):
        run_study(tiny_study(arms=[{"name": "a", "objective": "cross_entropy"}]), tmp_path / "run", jobs=1)
    assert not list(cache.glob("**/*.npy"))


def test_a_study_of_targets_keeps_each_with_its_student(tmp_path, monkeypatch):
    monkeypatch.setenv("DISTILLSCOPE_CACHE", str(scratch() / "cache"))
    arms = [
        {"name": "white", "objective": "mse", "target": {"name": "whiten", "exponent": 0.5, "dim": 6}},
        {"name": "random", "objective": "smooth_l1", "target": "random", "projector": "mlp"},
        {"name": "labels", "objective": "cross_entropy"},
        {"name": "mixed",
         "objective": [{"name": "infonce", "queue": 100}, {"name": "relational_angle"}, {"name": "koleo", "weight": 0.1}]},
    ]
    study = tiny_study(arms=arms, seeds=[1], training={"epochs": 1, "batch_size": 32}, noise={"sigmas": []})
    run = run_study(study, tmp_path / "run", jobs=1, report=False)
    assert set(run.results.query("student == 'S'").arm) == {a["name"] for a in arms}
    names = {}
    for folder in (tmp_path / "run" / "trials").iterdir():
        target = load_target(folder / "target.safetensors")
        names[next(a["name"] for a in arms if a["name"] in folder.name)] = target.name
        rows = np.load(folder / "embeddings_test" / "img_emb" / "img_emb_0.npy")
        if target.mean is not None:
            assert rows.shape[1] == target(np.zeros((1, len(target.mean)), np.float32)).shape[1]
    assert names == {"white": "whiten0.5_6", "random": names["random"], "labels": "none", "mixed": "none"}
    assert names["random"].startswith("random")


def asked(**changes):
    values = tiny_values(limit=80, noise={"sigmas": []}, seeds=[1], training={"epochs": 1, "batch_size": 16})
    return study_from({**values, "limit_test": None, "validation": 1000, **changes})


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DISTILLSCOPE_CACHE", str(scratch() / "cache"))
        return distill_one(asked(), tmp_path_factory.mktemp("done") / "student")


@pytest.fixture(autouse=True)
def shared_cache(monkeypatch):
    monkeypatch.setenv("DISTILLSCOPE_CACHE", str(scratch() / "cache"))


@pytest.mark.parametrize(("changes", "options", "message"), OTHERS)
def test_another_request_is_refused_with_what_differs(finished, changes, options, message):
    before = {p.name: p.read_bytes() for p in finished.iterdir() if p.is_file()}
    with pytest.raises(UserError, match=message):
        distill_one(asked(**changes), finished, resume=True, **options)
    assert {p.name: p.read_bytes() for p in finished.iterdir() if p.is_file()} == before


def test_the_same_request_is_finished_already_also_in_a_renamed_folder(finished, tmp_path, capsys):
    (tmp_path / "link").symlink_to(finished)
    study = asked(name="other")
    assert distill_one(study, tmp_path / "link", resume=True) == tmp_path / "link"
    assert "finished already" in capsys.readouterr().err


def test_the_plan_of_one_student_does_nothing_and_refuses_what_the_work_refuses(finished, untimed, tmp_path):
    planned = dict(plan_student(asked(), tmp_path / "new", device="cpu"))
    assert not (tmp_path / "new").exists()
    assert planned["images"] == "digits, 72 for training, 8 held out" and planned["steps"] == "4 per epoch, 4 in all, 64 images"
    assert planned["student"].startswith("S, ") and planned["teacher forward passes"] == "0 to do, 80 cached"
    assert "finished already" in dict(plan_student(asked(), finished, resume=True))["into"]
    with refused(where="seeds.0", expected="1 as when", got="7"):
        plan_student(asked(seeds=[7]), finished, resume=True)
    with refused(where="--out", got="one with files", advice="--resume"):
        plan_student(asked(), finished)


def test_images_far_smaller_than_what_a_student_sees_are_said(untimed, tmp_path, capsys):
    wide = [{"name": "paper_cnn", "label": "S", "image_size": 96}]
    plan_student(asked(students=wide), tmp_path / "new", device="cpu")
    assert "images of 8 px are enlarged to 96 px for S; --image-size 8 would cost about 144 times less" in " ".join(
        capsys.readouterr().err.split())


def test_other_images_under_the_same_name_are_refused(finished, tmp_path):
    import shutil

    folder = shutil.copytree(finished, tmp_path / "student")
    request = yaml.safe_load((folder / REQUEST).read_text())
    request["fingerprint"] = dict.fromkeys(request["fingerprint"], "other")
    (folder / REQUEST).write_text(yaml.safe_dump(request))
    with pytest.raises(UserError, match="fingerprint.*as when it started"):
        distill_one(asked(), folder, resume=True)


def test_an_interrupted_one_goes_on_to_the_same_weights_and_another_is_refused(finished, tmp_path, monkeypatch):
    out = tmp_path / "student"
    with monkeypatch.context() as patch:
        def stop(*args):
            raise KeyboardInterrupt

        patch.setattr(loop, "warnings_of", stop)
        with pytest.raises(KeyboardInterrupt):
            distill_one(asked(), out)
    with refused(where="training.epochs"):
        distill_one(asked(training={"epochs": 2, "batch_size": 16}), out, resume=True)
    distill_one(asked(), out, resume=True)
    assert (out / "weights.safetensors").read_bytes() == (finished / "weights.safetensors").read_bytes()
    assert not (out / "checkpoint.pt").exists()


def test_a_folder_from_before_is_compared_by_what_its_description_says(finished, tmp_path, capsys):
    request = {"settings": asked().dump(), "precision": "float32"}
    said = json.loads((finished / "student.json").read_text())
    (tmp_path / "student.json").write_text(json.dumps(said))
    compare_request(tmp_path, request)
    warned = " ".join(capsys.readouterr().err.split())
    assert "only dataset, label, name, objective, seed, settings, teacher can be compared" in warned
    (tmp_path / "student.json").write_text(json.dumps({**said, "seed": 3}))
    with refused(where="seed", expected="3", got="1"):
        compare_request(tmp_path, request)


def request_of(**changes):
    study = one_student("student", "efficientnet_lite0", "digits", **changes)
    return {"settings": {k: v for k, v in study.dump().items() if k not in IGNORED}, "precision": "float32"}


def as_before(folder, **changes):
    """A folder of a student that was begun before there were recipes: the paper's, its only arm called student."""
    request = request_of(recipe=FIRST_RECIPE, **changes)
    request["settings"]["arms"][0]["name"] = "student"
    (folder / REQUEST).write_text(yaml.safe_dump(request))
    return folder


def test_a_student_begun_by_another_recipe_is_refused_with_its_name(tmp_path):
    (tmp_path / REQUEST).write_text(yaml.safe_dump(request_of(recipe="similarity")))
    with refused(where="objective.0.name", expected='"similarity_kl" as when', advice="add --recipe similarity, or"):
        compare_request(tmp_path, request_of())
    compare_request(tmp_path, request_of(recipe="similarity"))


def test_a_student_begun_before_there_were_recipes_goes_on_by_the_papers_only_and_that_is_said(tmp_path):
    as_before(tmp_path)
    with refused(expected="when it started", advice="It started before recipes existed: add --recipe paper"):
        compare_request(tmp_path, request_of())
    compare_request(tmp_path, request_of(recipe=FIRST_RECIPE))


def test_what_a_timm_student_saw_before_is_said_as_options(tmp_path):
    small = ["student.image_size=32", *(f"student.{k}={list(v)}" for k, v in (("mean", CLIP_MEAN), ("std", CLIP_STD)))]
    as_before(tmp_path, student="timm/resnet10t", overrides=small)
    with refused(where="student.image_size", expected="32", advice=f"--image-size 32 --set 'student.mean={list(CLIP_MEAN)}'"):
        compare_request(tmp_path, request_of(recipe=FIRST_RECIPE, student="timm/resnet10t"))


def test_a_checkpoint_from_before_requests_is_the_papers(tmp_path):
    (tmp_path / "checkpoint.pt").write_bytes(b"")
    with refused(where="--resume", expected="--recipe paper", got="robust"):
        compare_request(tmp_path, request_of())
    compare_request(tmp_path, request_of(recipe=FIRST_RECIPE))


def test_what_is_no_students_folder_is_not_written_into(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with refused(expected="distill.yaml", got="another one"):
        distill_one(asked(), tmp_path, resume=True)
    with refused(got="one with files"):
        distill_one(asked(), tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["notes.txt"]
