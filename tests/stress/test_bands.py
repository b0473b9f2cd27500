"""Band noise: nothing outside its band, the power that it states, the same draw for all."""

import numpy as np
import pytest
import torch

from builders.refusals import refused
from distillscope.config.noise import CLIP_STD, NoiseSpec
from distillscope.errors import UserError
from distillscope.registry import stresses
from distillscope.stress.bands import BandNoise
from distillscope.stress.fourier import band_mask, radial_energy, radial_frequency
from distillscope.stress.run import rehearse

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
    ({"items": -1}, "band_noise.items: expected a whole number from 1 up"),
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
