"""Heat map, input gradient, attacks, latency, noise probe: closed forms and refusals."""

import sys

import numpy as np
import pytest
import torch

from builders import refused
from builders.training import make_source, make_subject
from distillscope.config.parts import CLIP_STD
from distillscope.data.preprocess import Preprocess
from distillscope.data.source import Source
from distillscope.measure.probe import linear_probe, standardised_probe
from distillscope.registry import stresses
from distillscope.stress.attack import Classifier, accuracy_under_pgd
from distillscope.stress.frequencies import FourierNoise, by_third, energy_by_frequency, fourier_basis, half_plane, heat_map
from distillscope.stress.subject import Subject, probe_logits, rehearse, run_stresses


class Part:
    def __init__(self, name, **settings):
        self.name, self.settings = name, settings


@pytest.mark.parametrize(("row", "column"), [(0, 0), (1, 0), (0, 3), (-4, 2), (4, 4), (-4, -4)])
def test_a_basis_wave_has_unit_norm_and_two_frequencies(row, column):
    wave = fourier_basis(8, 8, row, column)
    assert np.linalg.norm(wave) == pytest.approx(1)
    found = {tuple(p) for p in np.argwhere(np.abs(np.fft.fft2(wave)) > 1e-6)}
    assert found == {(row % 8, column % 8), (-row % 8, -column % 8)}


def test_half_a_plane_covers_the_whole_by_mirroring():
    for height, width in ((8, 8), (7, 5), (4, 6)):
        covered = [p for r, c in half_plane(height, width, 1) for p in {(r % height, c % width), (-r % height, -c % width)}]
        assert len(covered) == len(set(covered)) == height * width
    assert np.isfinite(heat_map(8, 8, dict.fromkeys(half_plane(8, 8, 1), 0.5))).all()
    assert heat_map(8, 8, {(0, 0): 1.0})[4, 4] == 1
    table = heat_map(8, 8, {(1, 2): 0.3})
    assert table[5, 6] == table[3, 2] == 0.3 and np.isnan(table).sum() == 62
    # The mean over thirds is over the map, not over half of it.
    errors = {(0, 0): 1.0, (0, 1): 0.0}
    assert by_third(errors, 8, 8) == {"low": pytest.approx(1 / 3)}


def test_fourier_noise_has_its_norm_in_each_channel_and_a_sign_of_its_own():
    grey = torch.full((40, 3, 16, 16), 128, dtype=torch.uint8)
    ids = [str(i) for i in range(40)]
    added = FourierNoise(3, 2, 1.5)(grey, ids) - grey / 255
    assert added.norm(dim=(2, 3)).numpy() == pytest.approx(np.full((40, 3), 1.5), rel=1e-5)
    signs = (added * torch.from_numpy(fourier_basis(16, 16, 3, 2))).sum(dim=(2, 3)).sign()
    assert 0.3 < (signs > 0).float().mean() < 0.7
    assert torch.equal(FourierNoise(3, 2, 1.5)(grey[5:6], ids[5:6])[0], FourierNoise(3, 2, 1.5)(grey, ids)[5])


def test_the_map_is_saved_and_summarised(subject, test_items, tmp_path):
    found = run_stresses([Part("fourier", norm=2.0, step=4, items=20)], subject, test_items, 0, tmp_path)
    saved = np.load(tmp_path / "stress" / "fourier.paper.probe.npy", allow_pickle=False)
    assert saved.shape == (16, 16) and np.isfinite(saved).sum() == 16
    assert {r[1] for r in found.rows} == {"fourier=low", "fourier=mid", "fourier=high"}
    assert found.conditions["fourier=low"]["rms_pixel"] == 2 / 16
    teacher = run_stresses([Part("fourier")], make_subject(side="teacher"), test_items, 0)
    assert teacher.rows == [] and "students only" in teacher.skipped[0]


class Listens(torch.nn.Module):
    """z = (<image, wave>, 1): its gradient has one frequency."""

    def __init__(self, wave: np.ndarray) -> None:
        super().__init__()
        self.register_buffer("wave", torch.from_numpy(wave).float())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        heard = (x * self.wave).sum(dim=(1, 2, 3))[:, None]
        return torch.cat([heard, torch.ones_like(heard)], dim=1)


def test_gradient_energy_lies_where_the_model_listens(test_items):
    network = Listens(fourier_basis(16, 16, 3, 0))
    edges, energy = energy_by_frequency(network, Preprocess(16), torch.device("cpu"), None, test_items, 8, 0)
    place = np.flatnonzero((edges[:-1] <= 3 / 8) & (edges[1:] > 3 / 8))[0]
    assert energy[place] == pytest.approx(energy.sum(), rel=1e-6)


def test_gradient_energy_is_the_squared_norm_of_the_gradient(subject, test_items):
    for of in ("embedding", "margin"):
        found = stresses.call("gradient", {"of": of, "items": 8, "bins": 4}, subject, test_items, test_items.labels, 0)
        name = "gradient.student" if of == "embedding" else "gradient.margin.student"
        rows = {r[0]: r[3] for r in found.rows}
        assert set(rows) == {f"{name}.energy", f"{name}.frequency", f"{name}.high_share"}
        assert sum(found.curves[f"stress.{name}"]["y"]) == pytest.approx(1)
        assert 0 < rows[f"{name}.frequency"] < np.sqrt(2)


def test_the_margins_gradient_against_finite_differences(subject, test_items):
    one = test_items.take([4])
    head = probe_logits(subject.probes["paper.probe"]).double()
    network = make_subject().module.double()
    pixels = torch.from_numpy(one.pixels).permute(0, 3, 1, 2).double() / 255
    shift = torch.tensor(Preprocess(16).mean).double().view(1, 3, 1, 1)
    std = torch.tensor(CLIP_STD).double().view(1, 3, 1, 1)

    def margins(x):
        logits = head(network((x - shift) / std))
        true = int(one.labels[0])
        return logits[:, true] - logits[:, [k for k in range(3) if k != true]].max(dim=1).values

    device = torch.device("cpu")
    probe = probe_logits(subject.probes["paper.probe"])
    _, energy = energy_by_frequency(subject.module, subject.preprocess, device, probe, one, 4, 0)
    steps = 1e-6 * torch.eye(pixels.numel(), dtype=torch.float64).view(-1, *pixels.shape[1:])
    with torch.no_grad():
        slopes = (margins(pixels + steps) - margins(pixels - steps)) / 2e-6
    total = float(slopes.square().sum())
    assert energy.sum() == pytest.approx(total, rel=1e-3)


def test_probe_logits_are_the_probes_scores():
    rng = np.random.default_rng(0)
    z, labels = rng.normal(size=(90, 6)) + 1, np.repeat([2, 5, 9], 30)
    for fit in (linear_probe, standardised_probe):
        probe = fit(z, labels)
        layer = probe_logits(probe)
        assert layer(torch.from_numpy(z).float()).numpy() == pytest.approx(probe.scores(z), abs=1e-4)
        assert layer.places(np.array([9, 2])).tolist() == [2, 0]


def linear_classifier(weight: float) -> tuple[Classifier, Source]:
    """Two classes by the mean of all pixels: an attack of eps per pixel moves the margin by a known amount."""
    levels = np.array([100, 120, 136, 156], np.uint8)
    pixels = np.broadcast_to(levels[:, None, None, None], (4, 8, 8, 3)).copy()
    items = Source("flat", "test", np.arange(4).astype(str), lambda i: pixels[i], np.array([0, 0, 1, 1]), pixels=pixels)

    class Mean(torch.nn.Module):
        def forward(self, x):
            return x.mean(dim=(1, 2, 3))[:, None] - 128 / 255

    class Flat:
        unit_norm, classes, weights = False, np.array([0, 1]), np.array([[-weight], [weight]])
        bias, shift, scale = np.zeros(2), np.zeros(1), np.ones(1)

    return Classifier(Mean(), lambda x: x, probe_logits(Flat()), torch.device("cpu")), items


def test_attacks_reach_the_closed_form_of_a_linear_model():
    pytest.importorskip("art")
    target, items = linear_classifier(50.0)
    # Distances to the boundary: 28 and 8 grey levels; in L2, 1/255 of them times sqrt(192 values).
    def run(norm, eps):
        return accuracy_under_pgd(target, items, (8, 8), norm, eps, steps=20, restarts=1)

    assert [run("linf", e / 255) for e in (7, 9, 27, 29)] == [1.0, 0.5, 0.5, 0.0]
    assert [run("l2", e / 255 * np.sqrt(192)) for e in (7, 9, 27, 29)] == [1.0, 0.5, 0.5, 0.0]


def test_attacks_repeat_and_leave_numpys_stream_alone(subject, test_items):
    pytest.importorskip("art")
    np.random.seed(3)
    before = np.random.get_state()[1].copy()
    settings = {"linf": (4.0,), "l2": (0.5,), "steps": 5, "items": 30}
    first, second = (stresses.call("attack", settings, subject, test_items, test_items.labels, 0) for _ in range(2))
    assert first.rows == second.rows
    assert (np.random.get_state()[1] == before).all()
    rows = {r[1]: r[3] for r in first.rows}
    assert rows["attack=linf/4"] <= rows["attack=none"] and rows["attack=l2/0.5"] <= rows["attack=none"]


def test_a_missing_attack_library_is_one_line(subject, test_items, monkeypatch):
    monkeypatch.setitem(sys.modules, "art", None)
    monkeypatch.setitem(sys.modules, "art.attacks.evasion", None)
    with refused(expected="adversarial-robustness-toolbox", got="not installed", advice="pip install 'distillscope[attacks]'"):
        stresses.call("attack", {}, subject, test_items, test_items.labels, 0)


def test_latency_is_a_median_on_one_thread_that_puts_things_back(subject, test_items):
    threads = torch.get_num_threads()
    found = stresses.call("latency", {"repeats": 3}, subject, test_items, None, 0)
    (measure, condition, draw, value, n, unit), = found.rows
    assert (measure, condition, draw, n) == ("capacity.latency_ms", "clean", None, 3) and 0 < value < 1000
    assert "one" not in unit and "batch 1, 1 thread" in unit and torch.get_num_threads() == threads


def test_a_noise_probe_wins_back_a_shift_but_not_a_loss(test_items):
    train = make_source(120, split="train")
    rng = np.random.default_rng(0)

    def embed(lost):
        def at(items, perturbation, label):
            z = np.eye(3, 6)[items.labels] * 4 + rng.normal(0, 0.3, (len(items), 6))
            if perturbation is None:
                return z
            return rng.normal(0, 1, z.shape) if lost else z[:, ::-1] - 3  # noise moves every embedding the same way
        return at

    def fit(z, labels):
        return {"paper.probe": linear_probe(z, labels, unit_norm=False)}

    for lost in (False, True):
        model = Subject("student", embed(lost), {}, train, fit)
        found = stresses.call("noise_probe", {"sigmas": (0.2,)}, model, test_items, test_items.labels, 0)
        rows = {(r[0].split(".")[-1], r[1]): r[3] for r in found.rows}
        assert rows["accuracy", "noise_probe=0"] == 1
        assert rows["clean_fit_accuracy", "noise_probe=0.2"] < 0.6
        assert (rows["accuracy", "noise_probe=0.2"] > 0.9) is not lost
    assert found.rows[0][0] == "noise_probe.paper.student.accuracy"


@pytest.mark.parametrize("name", ["band_noise", "corruptions", "fourier", "attack", "noise_probe"])
def test_stresses_that_need_labels_say_so(subject, name):
    plain = make_source(labels=False)
    with refused(where=f"stresses.{name}", got="none"):
        stresses.call(name, {}, subject, plain, None, 0)


def test_what_needs_no_labels_runs_without(subject):
    plain = make_source(labels=False)
    found = run_stresses([Part("gradient", items=8), Part("latency", repeats=2)], subject, plain, 0)
    assert len(found.rows) == 4


def test_images_of_several_sizes_have_no_nyquist_in_common(subject):
    mixed = [np.zeros((8 + i % 2, 8, 3), np.uint8) for i in range(6)]
    items = Source("mixed", "test", np.arange(6).astype(str), lambda i: mixed[i], np.arange(6) % 2)
    with refused(got="2 sizes"):
        stresses.call("fourier", {}, subject, items, items.labels, 0)


def test_every_stress_takes_its_settings_by_name():
    with refused(expected="'fourier'", got="'itmes'", advice="'items'"):
        stresses.check("fourier", {"itmes": 3})
    assert {"band_noise", "corruptions", "fourier", "gradient", "attack", "latency", "noise_probe"} <= set(stresses)


@pytest.mark.parametrize("side", ["student", "teacher"])
@pytest.mark.parametrize("name", sorted(stresses))
def test_every_stress_is_rehearsed_without_a_model(name, side):
    settings = {"ks": [2]} if name == "top_k" else {}
    wanted, _ = rehearse([Part(name, **settings)], make_source(50, split="train"), make_source(60), 0, side)
    assert all(len(items) for items, _ in wanted)
