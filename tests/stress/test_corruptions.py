"""Common corruptions: fourteen, graded, replayable, on any size; and what is made of their accuracies."""

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import ndimage

from builders.clouds import make_source
from builders.refusals import refused
from distillscope import registry
from distillscope.data.corruptions import (
    SEVERITIES,
    affine_of,
    apply_corruption,
    defocus_kernel,
    motion_blurred,
    plasma,
    zoomed,
)
from distillscope.registry import stresses
from distillscope.results.robustness import against_teacher, mean_corruption_error, relative_corruption_error
from distillscope.stress.corruptions import Corruption
from distillscope.stress.run import run_stresses

NAMES = list(registry.corruptions)
# CIFAR-10-C's own order is not that of the distance: its elastic maps shift less as they bend more, and the fourth
# severity of glass blurs less than the third before it shuffles twice.
NOT_GRADED = {"elastic_transform", "glass_blur"}


def images(count=12, side=32):
    return make_source(count, side).pixels


def test_all_but_frost():
    assert len(NAMES) == 14 and "frost" not in NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_corruption_changes_the_image_and_replays_from_its_generator(name):
    for image in (images(1)[0], images(1, 24)[0, :20]):
        first, second = (apply_corruption(name, image, 3, np.random.default_rng(5)) for _ in range(2))
        assert first.shape == image.shape and first.dtype == np.uint8
        assert (first == second).all() and (first != image).any()


@pytest.mark.parametrize("name", NAMES)
def test_distance_to_the_clean_image_grows_with_severity(name):
    distances = [np.mean([np.linalg.norm(apply_corruption(name, image, s, np.random.default_rng(i)) / 255 - image / 255)
                          for i, image in enumerate(images())]) for s in SEVERITIES]
    assert min(distances) > 0
    if name not in NOT_GRADED:
        assert (np.diff(distances) >= 0).all() and distances[4] > distances[0], distances  # motion: 3 and 4 weigh alike


@pytest.mark.parametrize("severity", [0, 6])
def test_severities_are_one_to_five(subject, test_items, severity):
    with refused(where="severity", expected=("1", "5"), got=severity):
        apply_corruption("fog", images(1)[0], severity, np.random.default_rng(0))
    with refused(where="corruptions.severities", expected=("1", "5"), got=severity):
        stresses.call("corruptions", {"severities": (severity,)}, subject, test_items, test_items.labels, 0)


def test_an_unknown_corruption_is_guessed(subject, test_items):
    with refused(got="'frog'", advice="'fog'"):
        stresses.call("corruptions", {"names": ("frog",)}, subject, test_items, test_items.labels, 0)


def test_closed_forms():
    flat = np.full((32, 32, 3), 100, np.uint8)
    rng = np.random.default_rng(0)
    for name in ("contrast", "pixelate", "zoom_blur", "motion_blur", "defocus_blur", "glass_blur", "elastic_transform"):
        assert np.abs(apply_corruption(name, flat, 5, rng).astype(int) - 100).max() <= 1, name
    assert apply_corruption("brightness", flat, 1, rng)[0, 0, 0] == int(100 + 0.05 * 255)
    many = np.full((256, 256, 3), 128, np.uint8)
    noise = apply_corruption("gaussian_noise", many, 1, rng) / 255 - 128 / 255
    assert noise.std() == pytest.approx(0.04, rel=0.02)  # 196,608 values; cutting off adds (1/255)^2 / 12
    shot = apply_corruption("shot_noise", many, 5, rng) / 255
    assert shot.std() == pytest.approx(np.sqrt(128 / 255 / 50), rel=0.02)
    struck = np.isin(apply_corruption("impulse_noise", many, 5, rng), (0, 255))
    assert struck.mean() == pytest.approx(0.07, rel=0.05)


def test_kernels_against_other_forms():
    assert defocus_kernel(0.3, 0.4).sum() == pytest.approx(1)
    point = np.zeros((33, 33, 1))
    point[16, 16] = 1
    trail = motion_blurred(point, 6, 2, 0)[16, :, 0]
    weights = np.exp(-np.arange(13) ** 2 / 8)
    assert trail[4:17][::-1] == pytest.approx(weights / weights.sum(), abs=1e-4)  # each pixel looks to its right
    image = images(1)[0] / 255
    for factor in (1.0, 1.13, 1.26):
        kept = int(np.ceil(32 / factor))
        first = (32 - kept) // 2
        whole = ndimage.zoom(image[first : first + kept, first : first + kept], (factor, factor, 1), order=1)
        start = (len(whole) - 32) // 2
        assert np.allclose(zoomed(image, factor), whole[start : start + 32, start : start + 32], atol=1e-12)
    cloud = plasma(32, 2.0, np.random.default_rng(0))
    assert cloud.shape == (32, 32) and cloud.min() == 0 and cloud.max() == 1
    matrix, offset = affine_of(32, 32, np.zeros((3, 2)))
    assert np.allclose(matrix, np.eye(2)) and np.allclose(offset, 0)
    matrix, offset = affine_of(32, 32, np.full((3, 2), 2.0))
    assert np.allclose(matrix, np.eye(2)) and np.allclose(offset, -2)


def test_every_model_sees_the_same_corrupted_image():
    batch = torch.from_numpy(images(6)).permute(0, 3, 1, 2)
    ids = [f"i{i}" for i in range(6)]
    whole = Corruption("fog", 3)(batch, ids)
    assert torch.equal(whole[4:5], Corruption("fog", 3)(batch[4:5], ids[4:5])) and whole.dtype == torch.uint8
    assert not torch.equal(whole, Corruption("fog", 3, seed=1)(batch, ids))


class Part:
    def __init__(self, name, **settings):
        self.name, self.settings = name, settings


def test_the_suite_gives_every_condition_and_the_plain_mean(subject, test_items):
    found = run_stresses([Part("corruptions", names=("contrast", "gaussian_noise"), severities=(1, 5), items=30)], subject,
                         test_items, 0)
    rows = {r[1]: r[3] for r in found.rows}
    assert set(rows) == {"corruption=contrast/1", "corruption=contrast/5", "corruption=gaussian_noise/1",
                         "corruption=gaussian_noise/5",
                         "corruption=mean", "corruption=none"}
    four = [v for k, v in rows.items() if "/" in k]
    assert rows["corruption=mean"] == pytest.approx(1 - np.mean(four))
    assert all(r[4] == 30 for r in found.rows)


def test_one_condition_twice_is_an_error(subject, test_items):
    twice = [Part("corruptions", names=("fog",), severities=(1,)),
             Part("corruptions", names=("fog",), severities=(1,), items=30)]
    with refused(got="'corruption=fog/1' twice"):
        run_stresses(twice, subject, test_items, 0)


def test_corruption_errors_against_the_teacher():
    student, teacher = [[0.5, 0.3], [0.7, 0.7]], [[0.8, 0.8], [0.9, 0.7]]
    assert mean_corruption_error(student, teacher) == pytest.approx(((0.5 + 0.7) / 0.4 + 0.6 / 0.4) / 2)
    assert relative_corruption_error(student, teacher, 0.8, 0.95) == pytest.approx((0.8 / 0.3 + 0.2 / 0.3) / 2)
    assert mean_corruption_error(teacher, teacher) == 1
    assert np.isnan(mean_corruption_error([[0.5]], [[1.0]]))
    shared = {"dataset": "d", "split": "test", "teacher": "t", "target": "none", "draw": None}
    rows = []
    for side, clean, fog in (("teacher", 0.9, (0.8, 0.7)), ("student", 0.6, (0.3, 0.3))):
        own = {**shared, "student": "S" if side == "student" else "teacher", "arm": "cosine" if side == "student" else None,
               "seed": 1 if side == "student" else None, "measure": f"paper.probe.{side}.accuracy", "n": 10}
        rows += [{**own, "condition": "corruption=none", "value": clean}, {**own, "condition": "clean", "value": 0.5},
                 *({**own, "condition": f"corruption=fog/{s + 1}", "value": v} for s, v in enumerate(fog))]
    table = against_teacher(pd.DataFrame(rows)).set_index("condition")
    assert table.loc["corruption=fog/1", "retention"] == pytest.approx(0.5)
    assert table.loc["corruption=fog/2", "relative_retention"] == pytest.approx(0.5 / (0.7 / 0.9))
    assert table.loc["corruption=mean", "mean_corruption_error"] == pytest.approx(1.4 / 0.5)
    assert table.loc["corruption=mean", "relative_corruption_error"] == pytest.approx(0.6 / 0.3)
    assert list(table.index) == ["corruption=fog/1", "corruption=fog/2", "corruption=mean"]
