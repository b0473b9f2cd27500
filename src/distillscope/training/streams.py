"""Where a trial's random draws come from: initial weights, order of the images, and (in the notebook) its noise."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
import torch

from distillscope.config.parts import NoiseSpec
from distillscope.config.study import Training
from distillscope.data.noise import Noise, with_noise
from distillscope.draws import keyed_rng, keyed_seed

T = TypeVar("T")


class KeyedStreams:
    """Every draw keyed by (seed, purpose, epoch): arms with one seed share initial weights, order and noise."""

    def __init__(self, seed: int, label: str, own_noise: bool = False) -> None:
        self.seed, self.label, self.own_noise = seed, label, own_noise

    def build(self, make: Callable[[], T]) -> T:
        """The student with its initial weights."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(keyed_seed(self.seed, "initial weights", self.label))
            return make()

    def order(self, epoch: int, count: int) -> np.ndarray:
        """Permutation of the training items at that epoch."""
        return keyed_rng(self.seed, "order", epoch).permutation(count)

    def probe_items(self, count: int) -> np.ndarray:
        """Which training items the probe is fitted on: all, in their order."""
        return np.arange(count)

    def noise(self, conditions: Sequence[Noise], num_items: int) -> list[Any]:
        """The test noise: the same for every trial, or with ``own_noise`` for every trial of this seed."""
        return [replace(noise, seed=self.noise_seed(noise.seed)) for noise in conditions]

    def noise_seed(self, shared: int) -> int:
        """The seed of test noise, of the ``shared`` one."""
        return keyed_seed(shared, "noise of seed", self.seed) if self.own_noise else shared


class NotebookStreams(KeyedStreams):
    """The paper's notebook: two streams for each seed, shared by S, M and L in turn, replayed up to this trial's part.

    The global stream, seeded once, initialises all students before any training, then draws the test noise of one
    student after the other (batches of 64, sigmas ascending from 0), with one base seed for each pass of a loader that has no
    generator. The training loader's generator, seeded once with the same seed, makes epochs + 1 passes for each
    student, each drawing a base seed and then a permutation. `set_seed` is undefined in the notebook, so its numbers
    cannot be matched bit for bit; nor is any claimed.
    """

    def __init__(self, seed: int, label: str, makers: Sequence[Callable[[], torch.nn.Module]], position: int,
                 training: Training, unseeded: bool = False) -> None:
        super().__init__(seed, label)
        self.makers, self.position, self.training, self.unseeded = makers, position, training, unseeded

    def build(self, make: Callable[[], T]) -> T:
        if self.unseeded:  # the augmentation control: seed 42 fixes its order only; ours is keyed so that it repeats
            return super().build(make)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            for maker in self.makers[: self.position]:
                maker()
            return make()

    def _passes(self, count: int, upto: int) -> np.ndarray:
        generator = torch.Generator().manual_seed(self.seed)
        for _ in range(upto + 1):
            torch.empty((), dtype=torch.int64).random_(generator=generator)  # the loader's base seed
            permutation = torch.randperm(count, generator=generator)
            torch.randperm(count, generator=generator)  # torch's sampler draws one more at the end of a pass, unused
        return permutation.numpy()

    def order(self, epoch: int, count: int) -> np.ndarray:
        skipped = 0 if self.unseeded else self.position * (self.training.epochs + 1)
        return self._passes(count, skipped + epoch)

    def probe_items(self, count: int) -> np.ndarray:
        """The pass after the last epoch, drop_last: 49,984 of 50,000; the augmentation control takes all, in order."""
        if self.unseeded:
            return np.arange(count)
        return self.order(self.training.epochs, count)[: self.training.in_whole_batches(count)]

    def noise(self, conditions: Sequence[Noise], num_items: int) -> list[Any]:
        if self.unseeded:
            return list(conditions)
        return [NotebookNoise(c, self, i, len(conditions), num_items) for i, c in enumerate(conditions)]


AS_DRAWN = NoiseSpec(where="input", clip=False)
"""The notebook's noise is added to the normalised input and not clipped, whatever is declared."""


class NotebookNoise:
    """Noise from the notebook's global stream, in the order in which the test images come."""

    where = "input"
    std = AS_DRAWN.std

    def __init__(self, noise: Noise, streams: NotebookStreams, index: int, count: int, num_items: int) -> None:
        self.declared, self.streams, self.index, self.count, self.num_items = noise, streams, index, count, num_items
        self.generator: torch.Generator | None = None

    def _replay(self, shape: Sequence[int]) -> torch.Generator:
        """The stream at this condition: past the initial weights of all students and the noise that came before."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.streams.seed)
            for maker in self.streams.makers:
                maker()
            state = torch.random.get_rng_state()
        generator = torch.Generator()
        generator.set_state(state)
        # Each student's sweep: sigma 0 (its pass draws a base seed and its noise too, scaled by 0), then the sigmas.
        sweeps = self.streams.position * (self.count + 1) + self.index + 1
        for _ in range(sweeps):
            torch.empty((), dtype=torch.int64).random_(generator=generator)
            done = 0
            while done < self.num_items:
                step = min(64, self.num_items - done)
                torch.randn((step, *shape), generator=generator)
                done += step
        torch.empty((), dtype=torch.int64).random_(generator=generator)
        return generator

    def __call__(self, inputs: torch.Tensor, ids: Sequence[str] | np.ndarray) -> torch.Tensor:
        if self.generator is None:
            self.generator = self._replay(inputs.shape[1:])
        normal = torch.randn(tuple(inputs.shape), generator=self.generator)
        return with_noise(inputs, normal, self.declared.sigma, AS_DRAWN)

    def describe(self) -> dict[str, Any]:
        return {**self.declared.describe(), "stream": "notebook", "seed": self.streams.seed}
