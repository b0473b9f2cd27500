"""Noise on a model's own input is of one strength in pixels for teacher and students, whatever each is normalised by."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from builders import refused
from builders.tiny import tiny_values
from distillscope.config.load import study_from
from distillscope.config.parts import CLIP_STD, NoiseSpec
from distillscope.config.resolve import with_noise
from distillscope.data.noise import Noise, on_input
from distillscope.data.preprocess import Preprocess
from distillscope.data.views import OnTop, View
from distillscope.results.merge import merge_runs
from distillscope.stress.frequencies import BandNoise
from distillscope.study.marks import MARK, WEIGHTS
from distillscope.study.prepared import seen_view
from distillscope.study.run import run_study
from distillscope.teachers.cache import entry_path
from distillscope.teachers.encoder import Encoder

IDS = ["a", "b"]
HALF = Preprocess(32, (0.5,) * 3, (0.5,) * 3)


def noises(**spec):
    at = NoiseSpec(where="input", clip=False, **spec)
    view = View("noise", {"sigma": 0.1, "fixed": True, **at.model_dump()}, 1, 0)
    on_top = OnTop(view, View("noise", view.settings, 1, "on top"))
    return [Noise(0.1, at), BandNoise(0.25, 0.5, 0.1, at, source_side=16), view, on_top]


def in_pixels(noise, seen):
    """What the noise adds to grey images, in values of [0, 1], (2, 3, 32, 32)."""
    inputs = seen.normalise(torch.full((2, 3, 32, 32), 0.5))
    return (on_input(noise, inputs, IDS, seen.std) - inputs) * torch.tensor(seen.std).view(3, 1, 1)


@pytest.mark.parametrize("unit", ["normalised", "pixel"])
@pytest.mark.parametrize("kind", range(3))
def test_one_sigma_is_one_strength_in_pixels(unit, kind):
    noise = noises(unit=unit)[kind]
    one, other = in_pixels(noise, Preprocess(32)), in_pixels(noise, HALF)
    assert torch.allclose(one, other, atol=1e-6)
    stated = torch.tensor(CLIP_STD) * 0.1 if unit == "normalised" else torch.tensor([0.1] * 3)
    if kind != 1:
        assert torch.allclose(other.std((0, 2, 3)), stated, rtol=0.06)


@pytest.mark.parametrize("kind", range(4))
def test_of_a_model_of_the_noises_own_std_nothing_changes(kind):
    noise, inputs = noises()[kind], torch.randn(2, 3, 32, 32)
    assert (on_input(noise, inputs, IDS, CLIP_STD) == noise(inputs, IDS)).all()
    assert (on_input(noise, inputs, IDS, tuple(round(s, 6) for s in CLIP_STD)) == noise(inputs, IDS)).all()
    assert not (on_input(noise, inputs, IDS, HALF.std) == noise(inputs, IDS)).all()


def test_the_cache_names_what_is_computed_otherwise_and_nothing_else():
    for seen, named in ((Preprocess(32), False), (HALF, True)):
        encoder = Encoder("mine", torch.nn.Flatten(), 3072, seen, "0")
        assert [("noise" in entry_path(encoder, noise)[1]) for noise in noises()[:3]] == [named] * 3
        assert not any("noise" in entry_path(encoder, p)[1] for p in (None, Noise(0.1), View("crop_flip", {}, 1, 0)))
        rows, pixels = encoder.encode(np.full((2, 32, 32, 3), 128, np.uint8), IDS, noises()[0]), np.float32(128 / 255)
        added = (rows.reshape(2, 3, -1) * np.array(seen.std)[:, None] + np.array(seen.mean)[:, None] - pixels).std((0, 2))
        assert added == pytest.approx([0.1 * s for s in CLIP_STD], rel=0.06)


def values_of(**changes):
    return tiny_values(**{"noise": {"where": "input", "clip": False, "sigmas": [0.1], "draws": 1}, "seeds": [1],
                          "training": {"epochs": 1, "batch_size": 16}, **changes})


def as_older(folder):
    """The run's results as a version wrote them that had noise of a strength for each std."""
    for path in folder.glob("references/*/complete.json"):
        done = json.loads(path.read_text())
        assert done["fingerprint"][WEIGHTS].endswith(MARK)
        path.write_text(json.dumps({**done, "fingerprint": {**done["fingerprint"],
                                                            WEIGHTS: done["fingerprint"][WEIGHTS].removesuffix(MARK)}}))


@pytest.mark.parametrize(("std", "goes_on"), [(CLIP_STD, True), ((0.5, 0.5, 0.5), False)])
def test_an_older_run_goes_on_where_its_students_had_the_noise_that_is_stated(std, goes_on, tmp_path):
    students = [{"name": "paper_cnn", "label": "S", "std": list(std)}]
    study, run, new = study_from(values_of(students=students)), tmp_path / "run", tmp_path / "new"
    run_study(study, run, jobs=1, report=False)
    as_older(run)
    more = study.model_copy(update={"seeds": (1, 2)})
    if goes_on:
        run_study(more, run, jobs=1, report=False, resume=True)
    else:
        with refused(where=f"--resume {run}", expected=WEIGHTS, got="noise on inputs"):
            run_study(more, run, jobs=1, report=False, resume=True)
    run_study(study.model_copy(update={"seeds": (3,)}), new, jobs=1, report=False)
    with refused(where="fingerprint"):  # the teacher's noise is of two strengths
        merge_runs((run, new), tmp_path / "joined")


def test_two_noises_on_an_input_count_in_units_of_one_std():
    arm = {"name": "a", "view": "noise", "student_view": {"name": "noise", "std": [0.5, 0.5, 0.5]}}
    study = with_noise(study_from(values_of(arms=[arm])))
    with refused(where="arms.a.student_view.std"):
        seen_view(study.arms[0], 1, 0)
