"""The post-hoc twin as a remedy: the transform of a trained student's own embeddings, stored with it, probes fitted anew."""

import numpy as np
import pytest
import torch

from builders.blobs import make_source, make_student
from builders.refusals import refused
from builders.tiny import scratch, tiny_study, tiny_values
from distillscope.config.load import study_from
from distillscope.data.preprocess import Preprocess
from distillscope.errors import UserError
from distillscope.registry import remedies, targets
from distillscope.remedies.posthoc import posthoc
from distillscope.students.load import build_student, load_student, save_student
from distillscope.students.networks import Transform, capacity
from distillscope.study.run import run_study
from distillscope.targets.transforms import Target, posthoc_twin

SETTINGS = {"pca": {"dim": 4}, "top_k": {"k": 3}, "whiten": {"exponent": 0.5, "dim": 5}, "phi_s": {"dim": 8},
            "random": {"dim": 6}}


@pytest.fixture(scope="module")
def student():
    return make_student()


@pytest.fixture(scope="module")
def train():
    return make_source(120, split="train")


@pytest.mark.parametrize("name", [n for n in targets if n != "none"])
def test_the_layer_gives_the_numbers_of_the_target_and_is_stored_with_the_student(name, student, train, tmp_path, test_items):
    changed = remedies.call("posthoc", {"target": name, **SETTINGS.get(name, {})}, student, train, 0)
    if name == "standardise" and isinstance(changed, str):  # dead units
        pytest.skip(changed)
    twin = posthoc_twin(name, SETTINGS.get(name, {}), student.embed(train))
    wanted = twin(student.embed(test_items))
    found = changed.embed(test_items)
    assert found.shape == wanted.shape == (len(test_items), changed.dim)
    assert np.allclose(found, wanted, atol=2e-3 * np.abs(wanted).max())
    save_student(changed, tmp_path, {"remedy": {"name": "posthoc"}})
    again = load_student(tmp_path, "cpu")
    assert np.array_equal(again.embed(test_items), found) and again.dim == changed.dim
    assert capacity(again.module, 16)["parameters"] == again.num_parameters > student.num_parameters
    assert sorted(p.name for p in tmp_path.iterdir()) == ["student.json", "weights.safetensors"]


def test_whitened_train_embeddings_are_white_and_the_student_is_left_alone(student, train):
    before = {k: v.clone() for k, v in student.module.state_dict().items()}
    changed = posthoc(student, train, 0, target="whiten", exponent=1.0, dim=4)
    assert np.allclose(np.cov(changed.embed(train).T, bias=True), np.eye(4), atol=0.01)
    assert all(torch.equal(v, before[k]) for k, v in student.module.state_dict().items()) and "transform" not in student.recipe


def test_labels_are_not_asked_for(student):
    z = [posthoc(student, make_source(120, labels=has, split="train"), 0, dim=4).embed(make_source()) for has in (True, False)]
    assert np.array_equal(*z)


def test_the_layer_is_exact_in_float32_even_under_autocast_and_for_a_zero_row():
    rng = np.random.default_rng(0)
    target = Target("t", rng.normal(size=4).astype(np.float32), rng.normal(size=(4, 3)).astype(np.float32),
                    np.ones(3, np.float32), True)
    layer = Transform({k: torch.from_numpy(getattr(target, k)) for k in ("mean", "matrix", "offset")}, wave=True)
    rows = np.vstack([rng.normal(size=(5, 4)), np.zeros((1, 4))]).astype(np.float32)
    with torch.autocast("cpu", torch.bfloat16):
        assert np.allclose(layer(torch.from_numpy(rows)).numpy(), target(rows), atol=1e-6)


def test_what_cannot_be_fitted_is_left_out_with_the_reason(student, train):
    few = train.take(np.arange(10))
    assert "rank 9 on 10 train images" in posthoc(student, few, 0, target="whiten", exponent=0.5)
    assert posthoc(student, few, 0, target="none") == "the target none changes nothing"


@pytest.mark.parametrize(("changes", "message"), [
    ({"target": "whitn"}, "remedies.posthoc.target: expected a known target, got 'whitn'. Did you mean 'whiten'"),
    ({"target": "whiten", "exponent": 2}, "remedies.posthoc.exponent: expected float, got 2"),
    ({"target": "whiten", "k": 3}, "remedies.posthoc.k: expected a known setting of target 'whiten', got 'k'"),
    ({"target": "top_k"}, "remedies.posthoc.k: expected a value"),
])
def test_wrong_settings_are_said_before_any_work(changes, message):
    with pytest.raises(UserError, match=message):
        study_from(tiny_values(remedies=[{"name": "posthoc", **changes}]))


def test_a_broken_description_is_one_line(student, train, tmp_path):
    save_student(posthoc(student, train, 0, dim=4), tmp_path)
    file = tmp_path / "student.json"
    file.write_text(file.read_text().replace('"shapes"', '"shape"'))
    with refused(where="student.json transform.shapes", got="nothing"):
        load_student(tmp_path)


def test_a_timm_student_takes_it_too(train):
    other = build_student("timm", {"model": "test_vit"}, 8, Preprocess(32), "V", torch.device("cpu"))
    assert posthoc(other, train, 0, target="centre").embed(train).mean(axis=0) == pytest.approx(0, abs=1e-5)


def test_in_a_study_it_is_an_arm_with_probes_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setenv("DISTILLSCOPE_CACHE", str(scratch() / "cache"))
    study = tiny_study(seeds=[1], limit=120, limit_test=40, training={"epochs": 1, "batch_size": 32},
                       remedies=[{"name": "posthoc", "target": "whiten", "exponent": 0.5, "dim": 12, "label": "half"},
                                 {"name": "posthoc", "target": "whiten", "dim": 99999, "label": "wide"}, "bn"],
                       stresses=[{"name": "gradient", "items": 16}, {"name": "latency", "repeats": 2}])
    run = run_study(study, tmp_path / "run", jobs=1, report=False)
    rows = run.results[run.results["split"] == "test"].set_index(["arm", "measure", "condition"])["value"]
    assert set(run.results["arm"]) == {"", "cosine", "cosine+half", "cosine+bn"}  # the teacher is of no arm
    for measure, condition in (("paper.probe.student.accuracy", "noise=0.1"), ("mapped.effective_rank", "clean"),
                               ("gradient.student.frequency", "clean"), ("capacity.latency_ms", "clean")):
        assert np.isfinite(rows["cosine+half", measure, condition])
    norm = "paper.probe.student.gradient_norm"
    assert rows["cosine+bn", norm, "clean"] == rows["cosine", norm, "clean"] != rows["cosine+half", norm, "clean"]
    size = "capacity.parameters"
    dim = run.student("S").dim
    assert rows["cosine+half", size, "clean"] == rows["cosine", size, "clean"] + dim + 12 * dim
    assert rows["cosine+half", "student.effective_rank", "clean"] <= 12
    trial, = (run.path / "trials").iterdir()
    assert load_student(trial / "remedies" / "half").dim == 12
    assert "remedy wide: target.dim" in (trial / "complete.json").read_text()
