"""Contrastive retention: can a student embedding pick out its item's teacher embedding among K?

InfoNCE is at most log K in what it can show, and teacher and student are deterministic functions of one image, so this
is no estimate of mutual information; it is always shown with log K.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from distillscope.measure import tolerances
from distillscope.measure.results import NotMeasured, Points
from distillscope.measure.rows import unit
from distillscope.measure.threads import over_blocks
from distillscope.registry import curves, measures

PAPER_BATCH, PAPER_TEMPERATURE = 64, 0.1
BATCHES = (16, 64, 256, 1024, 4096)
TEMPERATURES = (0.01, 0.02, 0.03, 0.05, 0.07, 0.1, 0.2, 0.5, 1.0)
SATURATED = 0.1
COLD = 0.003  # exp(-2 / temperature) is 0 below about this temperature
STRIP = 256  # items whose cosines are held at a time
CACHED = 2**17  # of these, how many stay in cache while they are worked on: 1 MiB


def infonce_losses(student: np.ndarray, teacher: np.ndarray, temperature: float = 0.1) -> np.ndarray:
    """Cross-entropy (..., K) in nats of each student row against its own teacher row among the K of its batch.

    ``student``, ``teacher``: (..., K, d), scaled to unit rows here. Between 0 and, at chance, about log K. The logits
    are student @ teacher.T / temperature (van den Oord et al. 2018; one direction, as arXiv:2603.06698).

    >>> infonce_losses(np.eye(4)[:, :1] * 0 + 1, np.ones((4, 1))).round(6).tolist() == [round(float(np.log(4)), 6)] * 4
    True
    """
    return _losses(_cosines(_unit(student), _unit(teacher)), temperature)


def _unit(z: np.ndarray) -> np.ndarray:
    return unit(z.reshape(-1, z.shape[-1])).reshape(z.shape)


def _cosines(student: np.ndarray, teacher: np.ndarray) -> np.ndarray:
    return student @ np.swapaxes(teacher, -1, -2)


def _losses(cosines: np.ndarray, temperature: float) -> np.ndarray:
    own = np.diagonal(cosines, axis1=-2, axis2=-1)
    top, sums = kernel_sums(cosines.reshape(-1, cosines.shape[-1]), temperature)
    return (top.reshape(own.shape) - own) / temperature + np.log(sums.reshape(own.shape))


def kernel_sums(cosines: np.ndarray, temperature: float, weights: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """``top`` (m,) and sums of exp((c - top) / temperature) over each row c of ``cosines`` (m, K): (m,), or (m, g) by weights.

    ``weights`` (K, g) is one where an item is in a group. The top is 1, which no cosine exceeds, but where so cold a
    temperature lets all of a row vanish: there it is the row's largest.
    """
    top = cosines.max(axis=1) if temperature < COLD else np.ones(len(cosines))
    sums = np.empty(len(cosines) if weights is None else (len(cosines), weights.shape[1]))
    step = max(1, CACHED // cosines.shape[1])
    for start in range(0, len(cosines), step):
        part = slice(start, start + step)
        kernel = cosines[part] - top[part, None]
        kernel /= temperature
        np.exp(kernel, out=kernel)
        sums[part] = kernel.sum(axis=1) if weights is None else kernel @ weights
    return top, sums


@dataclass(frozen=True)
class Batched:
    """What batches of K gave: an item's loss with groups G kept is ``constant`` (n,) + log of its ``sums`` (n, g) over G.

    An item is also another's negative, so that leaving it out must take it from both places. ``by_size`` and
    ``by_temperature`` are the losses at other K, and at K and other temperatures on the first items.
    """

    constant: np.ndarray
    sums: np.ndarray
    by_size: dict[int, np.ndarray]
    by_temperature: dict[float, np.ndarray]


def batched(student: np.ndarray, teacher: np.ndarray, size: int, temperature: float, member: np.ndarray,
            sizes: Sequence[int] = (), temperatures: Sequence[float] = (), first: int = 0) -> Batched:
    """Losses of unit rows (n, d) in batches of ``size``, which n is a multiple of, from one product of both sides.

    ``member`` (n, g) says which group an item is in, ``sizes`` are other K, ``temperatures`` are for the ``first`` items. K
    above ``size`` are points of a curve, and come from a product in float32: `tolerances.SINGLE`.
    """
    count = len(student)
    found = Batched(np.empty(count), np.empty((count, member.shape[1])), {k: np.empty(count // k * k) for k in sizes},
                    {t: np.empty(min(first, count)) for t in temperatures})

    def strip(start: int, stop: int) -> None:
        widths = {k for k in (size, *sizes) if start < count // k * k}
        measure(start, stop, {k for k in widths if k <= size}, np.float64)
        if max(widths) > size:
            measure(start, stop, {k for k in widths if k > size}, np.float32)

    def measure(start: int, stop: int, widths: set[int], dtype: type[np.floating]) -> None:
        low = min(start // k * k for k in widths)
        high = max(min(-(-stop // k) * k, count // k * k) for k in widths)
        cosines = student[start:stop].astype(dtype, copy=False) @ teacher[low:high].astype(dtype, copy=False).T
        own = cosines[np.arange(len(cosines)), start - low + np.arange(len(cosines))]
        for k in widths:
            for at in range(start // k * k, min(stop, count // k * k), k):
                rows = slice(max(at, start), min(at + k, stop))
                inside = slice(rows.start - start, rows.stop - start)
                block, mine = cosines[inside, at - low : at - low + k], own[inside]
                if k in found.by_size:
                    top, sums = kernel_sums(block, temperature)
                    found.by_size[k][rows] = (top - mine) / temperature + np.log(sums)
                if k == size:
                    top, found.sums[rows] = kernel_sums(block, temperature, member[at : at + k])
                    found.constant[rows] = (top - mine) / temperature
                    for t, losses in found.by_temperature.items():
                        if rows.stop <= len(losses):
                            top, sums = kernel_sums(block, t)
                            losses[rows] = (top - mine) / t + np.log(sums)

    over_blocks(strip, ((start, min(start + STRIP, count)) for start in range(0, count, STRIP)))
    return found


def batch_uniformity(z: np.ndarray) -> np.ndarray:
    """log mean exp(-2 |z_i - z_j|^2) over all pairs of each batch of ``z`` (..., K, d), self-pairs included.

    The paper's quirk: with self-pairs it is never below -log K.
    """
    return _uniformity(_unit(z))


def _uniformity(z: np.ndarray) -> np.ndarray:
    kernel = _cosines(z, z).clip(-1, 1)
    kernel -= 1
    kernel *= 4
    return np.log(np.exp(kernel, out=kernel).mean(axis=(-2, -1)))


@dataclass(frozen=True)
class PaperBatches:
    """Mean loss and both sides' uniformity of each of the paper's batches (b,), in row order, the short last one included."""

    losses: np.ndarray
    student: np.ndarray
    teacher: np.ndarray

    @classmethod
    def of(cls, count: int) -> PaperBatches:
        """Places for so many batches."""
        return cls(np.empty(count), np.empty(count), np.empty(count))

    def measure(self, first: int, student: np.ndarray, teacher: np.ndarray) -> None:
        """Batches from number ``first`` on, from their unit rows (n, d); losses where both have one dimension."""
        whole = len(student) // PAPER_BATCH
        for place, rows, size in ((slice(first, first + whole), slice(whole * PAPER_BATCH), PAPER_BATCH),
                                  (slice(first + whole, first + whole + 1), slice(whole * PAPER_BATCH, None),
                                   len(student) - whole * PAPER_BATCH)):
            s, t = (in_batches(z[rows], max(1, size)) for z in (student, teacher))
            if len(s):
                self.student[place], self.teacher[place] = _uniformity(s), _uniformity(t)
                if s.shape == t.shape:
                    self.losses[place] = _losses(_cosines(s, t), PAPER_TEMPERATURE).mean(axis=-1)


def in_batches(rows: np.ndarray, size: int) -> np.ndarray:
    """``rows`` (n, d) cut into (n // size, size, d); the rest is dropped, so that log K is one number."""
    count = len(rows) // size
    return rows[: count * size].reshape(count, size, rows.shape[1])


# -- a batch of K in content order, the incomplete last one dropped ------------------------------------------------------


@measures.register("contrastive.infonce", unit="nats", group="contrastive", interval="jackknife", n="contrastive_count",
                   title="InfoNCE", few=2, difference="nats", better="lower", heading="InfoNCE, nats")
def infonce(contrastive_losses: np.ndarray) -> float:
    """Mean InfoNCE loss of student against teacher at K = 1,024 (or the largest that fits), temperature 0.1."""
    return float(np.mean(contrastive_losses))


@measures.register("contrastive.ceiling", unit="nats", group="contrastive", n="contrastive_count", title="ceiling",
                   difference="nats", heading="its ceiling", hint="what equal rows give", constant=True)
def ceiling(contrastive_chance: float) -> float:
    """log K: the loss of equal rows, and the most that log K - loss can show; unrelated rows lose more."""
    return float(contrastive_chance)


@measures.register("contrastive.teacher_infonce", unit="nats", group="contrastive", interval="jackknife",
                   n="contrastive_count", title="teacher's InfoNCE", difference="nats")
def teacher_infonce(contrastive_teacher_losses: np.ndarray) -> float:
    """Mean InfoNCE loss of the teacher against itself, same K and temperature: what a perfect student would reach."""
    return float(np.mean(contrastive_teacher_losses))


@measures.register("contrastive.retained_share", unit="share", group="contrastive", interval="jackknife",
                   n="contrastive_count", ratio=True, title="retained share", percent=True, better="higher")
def retained_share(contrastive_losses: np.ndarray, contrastive_teacher_losses: np.ndarray, contrastive_chance: float) -> float:
    """(log K - student's loss) / (log K - teacher's own loss): 1 as the teacher, 0 for equal rows."""
    most = contrastive_chance - contrastive_teacher_losses.mean()
    if not most > tolerances.REORDERED:
        raise NotMeasured("the teacher cannot distinguish its own items")
    return float((contrastive_chance - contrastive_losses.mean()) / most)


@measures.register("contrastive.saturated", unit="flag", group="contrastive", n="contrastive_count")
def saturated(contrastive_losses: np.ndarray, contrastive_chance: float) -> int:
    """1 where the loss is below a tenth of log K: K is then too small to distinguish students; else 0."""
    return int(np.mean(contrastive_losses) < SATURATED * contrastive_chance)


@measures.register("contrastive.best_temperature", unit="temperature", group="contrastive", n="contrastive_count")
def best_temperature(contrastive_by_temperature: dict) -> float:
    """The temperature of the curve at which the loss is smallest."""
    return float(min(contrastive_by_temperature, key=lambda t: contrastive_by_temperature[t].mean()))


@measures.register("contrastive.infonce_best_temperature", unit="nats", group="contrastive", n="contrastive_count",
                   title="InfoNCE, best temp.", difference="nats", better="lower")
def infonce_best_temperature(contrastive_by_temperature: dict) -> float:
    """Mean InfoNCE loss at the temperature at which it is smallest: free of the choice of 0.1."""
    return float(min(losses.mean() for losses in contrastive_by_temperature.values()))


@curves.register("contrastive.infonce_by_temperature", unit="nats", group="contrastive")
def infonce_by_temperature_curve(contrastive_by_temperature: dict) -> Points:
    """Mean InfoNCE loss over the temperature, at K = 1,024 or the largest that fits."""
    return Points(np.array(list(contrastive_by_temperature)),
                  np.array([losses.mean() for losses in contrastive_by_temperature.values()]))


@curves.register("contrastive.infonce_by_k", unit="nats", group="contrastive")
def infonce_by_k_curve(contrastive_by_k: dict) -> Points:
    """Mean InfoNCE loss over the batch K, at temperature 0.1."""
    return Points(np.array(list(contrastive_by_k)), np.array([losses.mean() for losses in contrastive_by_k.values()]))


@curves.register("contrastive.ceiling_by_k", unit="nats", group="contrastive")
def ceiling_by_k_curve(contrastive_by_k: dict) -> Points:
    """log K, the loss of equal rows, over the batch K."""
    k = np.array(list(contrastive_by_k))
    return Points(k, np.log(k))


# -- the paper's: batches of 64 in the order given, the short last one with equal weight ---------------------------------


@measures.register("paper.infonce", unit="nats", group="paper", interval="batches", title="InfoNCE", few=2, difference="nats",
                   better="lower", heading="InfoNCE, nats", hint="batches of 64, as in the paper")
def paper_infonce(paper_batch_losses: np.ndarray) -> float:
    """The paper's InfoNCE: batches of 64 in the order given, temperature 0.1, mean over batches."""
    return float(np.mean(paper_batch_losses))


@measures.register("paper.infonce_ceiling", unit="nats", group="paper", title="InfoNCE ceiling", difference="nats",
                   heading="its ceiling", hint="what equal rows give", constant=True)
def paper_infonce_ceiling(paper_batch_sizes: np.ndarray) -> float:
    """What equal rows lose by the paper's InfoNCE: mean over batches of the log of their size."""
    return float(np.mean(np.log(paper_batch_sizes)))


@measures.register("paper.uniformity", unit="log kernel", group="paper", interval="batches", title="uniformity",
                   better="lower", hint="batches of 64, self-pairs included, as in the paper")
def paper_uniformity(paper_student_uniformities: np.ndarray) -> float:
    """The paper's uniformity of the student: unit norm, self-pairs included, batches of 64, mean over batches."""
    return float(np.mean(paper_student_uniformities))


@measures.register("paper.teacher_uniformity", unit="log kernel", group="paper", interval="batches")
def paper_teacher_uniformity(paper_teacher_uniformities: np.ndarray) -> float:
    """The paper's uniformity, of the teacher: unit norm, self-pairs included, batches of 64, mean over batches."""
    return float(np.mean(paper_teacher_uniformities))
