"""Every kind of Gaussian noise draws what it always drew: pixels and cache entries as recorded before they had one owner."""

from __future__ import annotations

import hashlib
import itertools

import numpy as np
import pytest
import torch

from distillscope.config.noise import NoiseSpec
from distillscope.config.study import NoiseSweep
from distillscope.data.noise import Noise
from distillscope.data.views import View
from distillscope.distill.streams import NotebookStreams
from distillscope.stress.bands import BandNoise
from distillscope.teachers.cache import entry_path

STORED = torch.from_numpy(np.random.default_rng(7).integers(0, 256, (3, 3, 12, 10), dtype=np.uint8))
MIXED = [STORED[0], STORED[1][:, :8, :8].contiguous(), STORED[2]]
IDS = ["test/0", "test/1", "a"]
STD = (0.2, 0.25, 0.3)

RECORDED = {  # (where, unit, clip): of the sweep, a view at a fixed sigma, and one at a sigma that is drawn
    ("source", "pixel", True): ("4ed5fac06532cfb6", "6eb2ca32ec1e4089", "de497153803fa64e"),
    ("source", "pixel", False): ("5403d211c3cd55df", "79031006ac64e085", "31836d83f39e3af1"),
    ("source", "normalised", True): ("0d41e385d1fb5338", "366748db3694dabf", "c38f4e2aa99e2706"),
    ("source", "normalised", False): ("d3d38be6e9b12226", "bd6980b5e6c741ec", "3b175fcc07d374a4"),
    ("input", "pixel", True): ("941b16b16c76584f", "58c11443a40c089d", "6ad6155f606ea821"),
    ("input", "normalised", True): ("2f862b71a5c3f1f5", "9e990465d2e9edd4", "ac047a17210196c1"),
}


def model_input() -> torch.Tensor:
    rng = np.random.default_rng(7)
    rng.integers(0, 256, (3, 3, 12, 10), dtype=np.uint8)  # as it was recorded
    return torch.from_numpy(rng.normal(size=(3, 3, 12, 10)).astype(np.float32))


def digest(images: torch.Tensor | list[torch.Tensor]) -> str:
    made = hashlib.blake2b(digest_size=8)
    for image in images if isinstance(images, list) else [images]:
        made.update(np.ascontiguousarray(image.numpy()).tobytes())
    return made.hexdigest()


@pytest.mark.parametrize(("where", "unit", "clip"), RECORDED)
def test_the_bytes_of_every_draw(where, unit, clip):
    spec, images = NoiseSpec(where=where, unit=unit, clip=clip, std=STD), STORED if where == "source" else model_input()
    views = [View("noise", {"sigma": 0.3, "fixed": fixed, **spec.model_dump()}, 5, 2) for fixed in (True, False)]
    assert tuple(digest(noise(images, IDS)) for noise in (Noise(0.3, spec, 1, 5), *views)) == RECORDED[where, unit, clip]


def test_the_bytes_on_images_of_several_sizes_and_in_the_notebooks_stream():
    assert digest(Noise(0.3, NoiseSpec(unit="pixel"))(MIXED, IDS)) == "a7d1a8ea19e9fffe"
    assert digest(View("noise", {}, 5, 2)(MIXED, IDS)) == "e3ef6bb88c14c7df"
    streams = NotebookStreams(42, "S", [lambda: torch.nn.Linear(3, 4), lambda: torch.nn.Linear(5, 2)], 1, 2)
    noises = streams.noise([Noise(sigma, NoiseSpec(where="input", clip=False)) for sigma in (0.1, 0.2)], 70)
    assert digest(noises[1](model_input(), IDS)) == "67b8980af2aa1b16"


def test_a_bands_draws():
    """Values, not bytes: a Fourier transform's last bit is the machine's own."""
    found = [float(v) for v in BandNoise(0.25, 0.75, 0.3, NoiseSpec(clip=False, std=STD), 1, 5)(STORED, IDS)[:, 1, 3, 4]]
    assert found == pytest.approx(BAND, abs=1e-6)


BAND = [0.25409987568855286, 0.7797159552574158, 0.17932972311973572]


class Stand:
    """A teacher of which only the description counts."""

    name = "x"

    def describe(self) -> dict[str, int]:
        return {"a": 1}


def test_cache_entries_have_the_names_that_they_had():
    spec = NoiseSpec(where="input", unit="pixel", clip=False, std=STD)
    named = {Noise(0.3, spec, 1, 5): "f360808ad48a", Noise(0.1, NoiseSpec(unit="pixel")): "9d1dedbeb220",
             BandNoise(0, 0.5, 0.1): "0b0bcba782e0", BandNoise(0, 2, 0.1, NoiseSpec(where="input"), 1, 0, 16): "dd844b900396"}
    for noise, name in named.items():
        assert entry_path(Stand(), noise)[0].name == f"x-{name}", noise
    for view, name in ((View("noise", {}, 1, 0), "a9948d48659e"), (View("crop_flip", {}, 1, 0), "eb118878c940"),
                       (View("noise", {"fixed": True, "std": (0.1, 0.1, 0.1)}, 1, 0), "861033bdd2ac")):
        assert entry_path(Stand(), view)[0].name == f"x-{name}", view


def test_a_sweep_says_the_same_as_its_spec():
    for where, unit, clip in itertools.product(("source", "input"), ("pixel", "normalised"), (True, False)):
        said = {"where": where, "unit": unit, "clip": clip, "std": STD}
        assert NoiseSweep(sigmas=(0.1,), **said).spec == NoiseSpec(**said)
