"""Band noise: nothing outside its band, the power that it states, the same draw for all; the top k; and common corruptions."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import ndimage

from builders import refused
from builders.training import make_source, make_subject
from distillscope import registry
from distillscope.config.parts import CLIP_STD, NoiseSpec
from distillscope.data.corruptions import (
    SEVERITIES,
    affine_of,
    apply_corruption,
    defocus_kernel,
    motion_blurred,
    plasma,
    zoomed,
)
from distillscope.data.noise import Noise
from distillscope.errors import UserError
from distillscope.measure.probe import linear_probe
from distillscope.registry import stresses
from distillscope.results.robustness import against_teacher, mean_corruption_error, relative_corruption_error
from distillscope.results.rows import Condition
from distillscope.stress.corruptions import Corruption
from distillscope.stress.frequencies import BandNoise, band_mask, radial_energy, radial_frequency
from distillscope.stress.noise import cuts, disjoint_parts, top_k, unit_rows
from distillscope.stress.subject import Findings, Subject, rehearse, run_stresses

GREY = torch.full((300, 3, 16, 16), 128, dtype=torch.uint8)
IDS = [f"i{i}" for i in range(300)]
QUARTERS = [(0, 0.25), (0.25, 0.5), (0.5, 0.75), (0.75, 1)]


def added(noise: BandNoise, images=GREY, ids=IDS) -> np.ndarray:
    return (noise(images, ids) - images.float() / 255).double().numpy()


@pytest.mark.parametrize("band", QUARTERS)
def test_no_power_lies_outside_the_band(band):
    spectrum = np.abs(np.fft.fft2(added(BandNoise(*band, 0.2, NoiseSpec(clip=False))))).max(axis=(0, 1))
    y, x = np.meshgrid(*[np.minimum(np.arange(16), 16 - np.arange(16)) / 8] * 2, indexing="ij")  # by hand, in units of Nyquist
    inside = (np.sqrt(x**2 + y**2) >= band[0]) & (np.sqrt(x**2 + y**2) < band[1] + (band[1] == 1) * 1e-9)
    assert inside.any()
    assert spectrum[~inside].max() < 1e-4 * spectrum[inside].min()  # float32 rounding of images near 0.5


@pytest.mark.parametrize("band", QUARTERS)
def test_every_band_has_the_total_power_that_both_units_state(band):
    # The narrowest band has 5 of 256 frequencies: 300 x 5 draws a channel, so a std is good to 2 %.
    pixel = added(BandNoise(*band, 0.1, NoiseSpec(unit="pixel", clip=False))).std(axis=(0, 2, 3))
    assert pixel == pytest.approx(np.full(3, 0.1), rel=0.08)
    normalised = added(BandNoise(*band, 0.1, NoiseSpec(clip=False))).std(axis=(0, 2, 3))
    assert normalised == pytest.approx(0.1 * np.array(CLIP_STD), rel=0.08)
    both = BandNoise(*band, 0.1).both_units()
    assert both["sigma_pixel"] == pytest.approx(0.1 * np.mean(CLIP_STD)) and both["sigma_normalised"] == 0.1


def test_bands_share_one_draw_that_they_split():
    white = np.random.default_rng(0).standard_normal((2, 3, 16, 16)).astype(np.float32)
    radius = radial_frequency(16, 16)
    parts = [BandNoise(*b, 1.0).filtered(white) * np.sqrt(band_mask(radius, *b).sum() / radius.size) for b in QUARTERS]
    inside = np.fft.ifft2(np.fft.fft2(white) * (radius <= 1)).real
    assert np.allclose(sum(parts), inside, atol=1e-5)
    assert torch.equal(BandNoise(0, 0.5, 0.1)(GREY, IDS)[7:8], BandNoise(0, 0.5, 0.1)(GREY[7:8], IDS[7:8]))
    assert not torch.equal(BandNoise(0, 0.5, 0.1)(GREY, IDS), BandNoise(0, 0.5, 0.1, draw=1)(GREY, IDS))
    assert np.allclose(added(BandNoise(0, 0.5, 0.2, NoiseSpec(clip=False))),
                       2 * added(BandNoise(0, 0.5, 0.1, NoiseSpec(clip=False))), atol=1e-6)


def test_at_the_input_a_band_above_one_is_out_of_the_source_images_band():
    x = torch.zeros(4, 3, 64, 64)
    noise = BandNoise(1, 2, 0.1, NoiseSpec(where="input"), source_side=16)(x, IDS[:4]).numpy()
    power = np.abs(np.fft.fft2(noise)) ** 2
    radius = radial_frequency(64, 64) * 4
    assert power[..., (radius < 1) | (radius >= 2.001)].sum() < 1e-6 * power.sum()
    assert noise.std() == pytest.approx(0.1, rel=0.05)
    with refused(expected=("0", "4")):
        BandNoise(6, 7, 0.1, NoiseSpec(where="input"), source_side=16)(x, IDS[:4])


def test_radial_energy_sums_to_the_squared_norm():
    images = np.random.default_rng(0).normal(size=(5, 3, 12, 16))
    for bins in (1, 5, 16):
        edges, energy = radial_energy(images, bins)
        assert energy.sum() == pytest.approx(np.square(images).sum(), rel=1e-12)
        assert len(edges) == len(energy) + 1 == bins + 2


def test_rows_name_band_sigma_and_draw(subject, test_items):
    settings = {"bands": ((0, 0.5), (0.5, 1)), "sigmas": (0.3,), "draws": 2, "items": 30}
    found = stresses.call("band_noise", settings, subject, test_items, test_items.labels, 0)
    names = [(r[0], r[1], r[2], r[4]) for r in found.rows]
    assert names == [("paper.probe.student.accuracy", "band=none", None, 30)] + [
        ("paper.probe.student.accuracy", f"band={b}/0.3", d, 30) for b in ("0-0.5", "0.5-1") for d in (0, 1)]
    again = stresses.call("band_noise", settings, subject, test_items, test_items.labels, 0)
    assert again.rows == found.rows
    assert found.conditions["band=0-0.5/0.3"]["where"] == "source pixels"


def test_a_band_that_the_input_does_not_show_is_left_out_and_said(subject, test_items):
    settings = {"bands": ((0, 1), (1, 2)), "where": "input"}
    found = stresses.call("band_noise", settings, subject, test_items, test_items.labels, 0)
    assert [r[1] for r in found.rows] == ["band=none", "band=0-1/0.1@input", "band=0-1/0.2@input"]
    assert found.skipped == ["band=1-2: this model's input shows only 0 to 1 of the source's Nyquist"]


@pytest.mark.parametrize(("settings", "message"), [
    ({"bands": ((0.5, 1.5),)}, r"bands: expected 0 <= low < high <= 1, got \[0.5, 1.5\]"),
    ({"bands": ((-0.1, 0.5),)}, r"0 <= low < high <= 1, got \[-0.1, 0.5\]"),
    ({"bands": ((0.5, 0.5),)}, "0 <= low < high"),
    ({"sigmas": (float("nan"),)}, r"sigmas: expected .*got \(nan,\).*finite number"),
    ({"items": -1}, "band_noise.items: expected a whole number of at least 1"),
])
def test_wrong_bands_are_one_line(subject, test_items, settings, message):
    with pytest.raises(UserError, match=message):
        stresses.call("band_noise", settings, subject, test_items, test_items.labels, 0)


def test_the_rehearsal_sees_what_a_run_shows(test_items, subject):
    class Part:
        name, settings = "band_noise", {"bands": ((0, 0.5),), "sigmas": (0.1,), "items": 20}

    wanted, found = rehearse([Part()], subject.train, test_items, 0)
    assert [(len(items), p and p.describe()["high"]) for items, p in wanted] == [(20, None), (20, 0.5)]
    assert list(found.conditions) == ["band=0-0.5/0.1"]


class Asked:
    def __init__(self, **settings):
        self.name, self.settings = "top_k", settings


@pytest.fixture(scope="module")
def teacher():
    return replace(make_subject(), side="teacher")


def values(found: Findings, condition: str) -> list[float]:
    return [v for m, c, _, v, *_ in found.rows if c == condition and m.endswith(".accuracy")]


def test_one_row_for_each_part_k_and_sigma(teacher):
    test = make_source(60)
    found = run_stresses([Asked(ks=[2, 8, 999], sigmas=[0.1, 0.5], parts=5)], teacher, test, 0)
    names = {"2", "8", "all", "whitened"}
    assert {c for _, c, *_ in found.rows} == {f"top_k={n}{s}" for n in names for s in ("", "/0.1", "/0.5")}
    assert found.skipped == ["top_k=999: the embedding has 32 dimensions"]
    assert all(len(values(found, f"top_k={n}/0.5")) == 5 for n in names)
    assert [r for r in found.rows if r[0] == "top_k.chance"] == [("top_k.chance", "top_k=all", None, 1 / 3, 60, "fraction")]
    assert {r[4] for r in found.rows if r[0].endswith(".accuracy")} == {12}
    assert {"sigma_pixel", "sigma_normalised"} <= set(found.conditions["top_k=8/0.1"])


def test_the_whole_teacher_is_the_teacher(teacher):
    """All of k is the probe of the embeddings as they are, and so is the projection on all components."""
    test = make_source(60)
    found = top_k(teacher, test, test.labels, 0, ks=(32,), parts=4)
    z = teacher.embed(test, None, "")
    expected = float((linear_probe(teacher.embed(teacher.train, None, ""),
                                   teacher.train.labels).predict(z) == test.labels).mean())
    assert np.mean(values(found, "top_k=all")) == pytest.approx(expected, abs=1e-9)
    assert np.mean(values(found, "top_k=32")) == pytest.approx(expected, abs=1 / 60 + 1e-9)  # a tie may fall either way


def test_a_cut_keeps_the_geometry_of_the_projection():
    """Against scikit-learn's PCA: transform and back, in all d dimensions."""
    from sklearn.decomposition import PCA

    rng = np.random.default_rng(0)
    train, rows = (unit_rows(rng.normal(size=(n, 12)) * np.linspace(3, 0.2, 12) + 0.7) for n in (200, 30))
    found = Findings()
    made = cuts(train, (3, 12), True, found)
    for k in (3, 12):
        oracle = PCA(k, svd_solver="full").fit(train)
        back = oracle.inverse_transform(oracle.transform(rows))
        assert made[str(k)](rows) @ made[str(k)](rows).T == pytest.approx(back @ back.T, abs=1e-9)
    assert np.cov(made["whitened"](train).T, bias=True) == pytest.approx(np.eye(12), abs=1e-9)
    assert made["all"](rows) is rows


def test_a_planted_teacher_loses_what_it_is_cut_from():
    """Classes live on the third and fourth strongest directions: two components know nothing, four know all."""
    rng = np.random.default_rng(1)
    test, train = make_source(90), make_source(300, split="train")

    def embed(items, perturbation, label):
        z = rng.normal(size=(len(items), 6)) * [5, 5, 0.1, 0.1, 0.1, 0.1]
        z[:, 2] += 3 * (items.labels == 0)
        z[:, 3] += 3 * (items.labels == 1)
        return (z + [0, 0, 0, 0, 0, 20.0]).astype(np.float32)

    def fit(z, labels):
        return {"paper.probe": linear_probe(z, labels, c=1e4)}

    found = top_k(Subject("teacher", embed, {}, train, fit), test, test.labels, 0, ks=(2, 4), parts=3)
    assert np.mean(values(found, "top_k=2")) < 0.6 and np.mean(values(found, "top_k=4")) > 0.95


def test_parts_share_nothing_and_hold_every_class():
    items = make_source(61)
    groups = disjoint_parts(items, 7)
    assert sorted(np.concatenate(groups).tolist()) == list(range(61))
    for group in groups:
        assert np.bincount(items.labels[group], minlength=3).min() >= 2
    assert [g.tolist() for g in disjoint_parts(items, 7)] == [g.tolist() for g in groups]
    assert len(disjoint_parts(make_source(5), 10)) == 5


def test_parts_with_a_part_of_train_of_their_own_are_fitted_to_nothing_else(teacher):
    """Each part against a hand-made run on its own tenth of train and test alone."""
    test, ks, sigma = make_source(60), (2, 8), 0.3
    found = top_k(teacher, test, test.labels, 0, ks=ks, sigmas=(sigma,), parts=3, own_train=True)
    parts = zip(disjoint_parts(teacher.train, 3), disjoint_parts(test, 3), strict=True)
    noisy = teacher.embed(test, Noise(sigma, NoiseSpec(), 0, 0), "")
    for i, (fitted_on, group) in enumerate(parts):
        train = unit_rows(teacher.embed(teacher.train, None, ""))[fitted_on].astype(np.float64)
        right = {}
        for name, cut in cuts(train, ks, True, Findings()).items():
            probe = teacher.fit(cut(train), teacher.train.labels[fitted_on])["paper.probe"]
            for level, rows in ((None, teacher.embed(test, None, "")), (sigma, noisy)):
                right[name, level] = probe.predict(cut(unit_rows(rows[group]).astype(np.float64))) == test.labels[group]
        always = right["2", None] & right["8", None] & right["all", None]
        of_part = {(m.split(".")[-1], c): (v, n) for m, c, draw, v, n, _ in found.rows if draw == i}
        for (name, level), hits in right.items():
            condition = Condition.top_k(name, level)
            assert of_part["accuracy", condition][0] == pytest.approx(hits.mean())
            if level is not None:
                assert of_part["kept_accuracy", condition] == (pytest.approx(hits[always].mean()), always.sum())


def test_a_class_that_a_part_of_train_lacks_is_said(teacher):
    with pytest.raises(UserError, match="every class in each of 70 parts of train"):
        run_stresses([Asked(ks=[2], parts=70, own_train=True)], teacher, make_source(80), 0)


def test_students_are_left_out_unless_asked_for(subject):
    test = make_source(60)
    assert run_stresses([Asked(ks=[4])], subject, test, 0).rows == []
    found = run_stresses([Asked(ks=[4], students=True, whitened=False)], subject, test, 0)
    assert {m for m, *_ in found.rows} == {"top_k.chance", "top_k.paper.student.accuracy", "top_k.paper.student.kept_accuracy"}


@pytest.mark.parametrize(("settings", "message"), [
    (dict(ks=[]), "stresses.top_k: expected ks and parts of at least 1, got ks=\\[\\], parts=10"),
    (dict(ks=[0]), "ks and parts of at least 1"),
    (dict(parts=0), "ks and parts of at least 1"),
    (dict(sigmas=[-1]), "stresses.top_k.sigmas: expected a finite number of at least 0, got -1"),
])
def test_bad_settings(teacher, settings, message):
    with pytest.raises(UserError, match=message):
        run_stresses([Asked(**settings)], teacher, make_source(60), 0)


def test_without_labels_it_says_so(teacher):
    with pytest.raises(UserError, match="data with labels"):
        run_stresses([Asked()], teacher, make_source(60, labels=False), 0)


def test_it_can_be_rehearsed_without_a_model():
    wanted, found = rehearse([Asked(ks=[4], sigmas=[0.1, 0.2])], make_source(50, split="train"), make_source(60), 0)
    assert [getattr(p, "sigma", None) for _, p in wanted] == [None, None, 0.1, 0.2]
    assert "top_k=4/0.2" in found.conditions


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
