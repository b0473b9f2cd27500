"""Target transforms: fitted on the teacher's train embeddings, applied to all, stored with the student.

A target is one function (train embeddings (n, d), settings) -> Target; its setting ``dim``, where it has one, is how many
dimensions come out (by default the teacher's). All but ``none`` take unit rows, as the study's measures do. Fitted on
a trained student's own train embeddings, the same functions are that target's post-hoc twin: see `posthoc_twin`.

A target that asks for ``precision`` beside the embeddings is given the one in which they were made. Its fact ``check``,
(dimensions, number of train images, settings), says what cannot be fitted before anything is embedded.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from distillscope.errors import UserError
from distillscope.files.folders import room
from distillscope.files.writing import write_atomic
from distillscope.registry import Size, targets

BLOCK = 8192
RANK = 1e-12
"""Eigenvalues of the covariance below this share of the largest are rounding of the float64 sums, and count as zero."""
ROUNDING = {"float32": 32 * 2.0**-23, "float16": 2.0**-10, "bfloat16": 2.0**-7}
"""Precision -> a standard deviation, as a share of a value, that rounding does not reach.

A value in 16 bits is a float32 sum rounded once, off by a fifth of the spacing of numbers in root mean square (up to 0.4 of it
in directions that few images estimate). In float32 it is a sum whose every step was rounded: by up to 5 spacings for 2,048
terms.
"""


@dataclass(frozen=True)
class Target:
    """rows -> ((unit rows) - mean) @ matrix + offset, and sqrt(2) cos of that where ``wave``.

    ``matrix`` (d, k), or (d,) for a factor per dimension, or None for none; ``offset`` (k,) or None. Without ``mean`` the
    rows are left as they are.
    """

    name: str
    mean: np.ndarray | None = None
    matrix: np.ndarray | None = None
    offset: np.ndarray | None = None
    wave: bool = False

    def __call__(self, embeddings: np.ndarray) -> np.ndarray:
        """(n, d) float32 -> (n, k) float32."""
        if self.mean is None:
            return embeddings
        width = len(self.mean) if self.matrix is None or self.matrix.ndim == 1 else self.matrix.shape[1]
        out = room((len(embeddings), width))
        for i in range(0, len(embeddings), BLOCK):
            out[i : i + BLOCK] = self._block(unit_rows(embeddings[i : i + BLOCK]) - self.mean)
        return out

    def _block(self, rows: np.ndarray) -> np.ndarray:
        if self.matrix is not None:
            rows = rows * self.matrix if self.matrix.ndim == 1 else rows @ self.matrix
        if self.offset is not None:
            rows = rows + self.offset
        return np.sqrt(2, dtype=np.float32) * np.cos(rows) if self.wave else rows

    def save(self, path: Path) -> None:
        """As safetensors, beside the student's weights; nothing for ``none``."""
        from safetensors.numpy import save_file

        if self.mean is not None:
            arrays = {"mean": self.mean, "matrix": self.matrix, "offset": self.offset}
            tensors = {k: np.ascontiguousarray(v) for k, v in arrays.items() if v is not None}
            write_atomic(path, lambda p: save_file(tensors, p, metadata={"name": self.name, "wave": str(int(self.wave))}))


def load_target(path: Path | str) -> Target:
    """The target that a trained student's folder holds (``target.safetensors``); ``none`` where there is no such file."""
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    if not path.exists():
        return Target("none")
    try:
        with safe_open(path, framework="numpy") as file:
            kept, words = {name: file.get_tensor(name) for name in file.keys()}, file.metadata()  # noqa: SIM118
        return Target(words["name"], kept["mean"], kept.get("matrix"), kept.get("offset"), words.get("wave") == "1")
    except (SafetensorError, KeyError, TypeError) as error:
        raise UserError(str(path), "a stored target", f"{type(error).__name__}: {error}",
                        "Distil the student again.") from None


def fit_target(name: str, settings: Mapping[str, Any], train: np.ndarray, precision: str = "float32",
               where: str = "target") -> Target:
    """The target `name` fitted on train embeddings (n, d) that were made in ``precision``."""
    told = [precision] if "precision" in targets.needs(name) else []
    return targets.call(name, settings, train, *told, where=where)


def posthoc_twin(name: str, settings: Mapping[str, Any], train: np.ndarray, precision: str = "float32") -> Target:
    """The target `name` fitted on a trained student's own train embeddings (n, d): what it does without any training.

    The baseline of an arm that trains towards that target: what the same transform does to the plain student's rank
    and probe.

    >>> z = np.random.default_rng(0).normal(size=(200, 3)) @ np.diag([3.0, 1.0, 0.1])
    >>> bool(np.allclose(np.cov(posthoc_twin("whiten", {}, z)(z).T, bias=True), np.eye(3), atol=1e-4))
    True
    """
    return fit_target(name, settings, np.asarray(train), precision, "posthoc twin")


def check_target(name: str, settings: Mapping[str, Any], dim: int, count: int) -> None:
    """What cannot be fitted to ``count`` train embeddings of ``dim`` dimensions, said without any: by a target's ``check``.

    >>> check_target("top_k", {"k": 5000}, 1280, 45_000)
    Traceback (most recent call last):
    distillscope.errors.UserError: target.k: expected 1 to the teacher's 1280 dimensions, got 5000. Set a smaller target.k.
    """
    given = targets.check(name, settings, "target")
    defaults = {k: p.default for k, p in targets.settings(name).items()}
    if check := targets.facts(name).check:
        check(dim, count, **{**defaults, **given})


def unit_rows(embeddings: np.ndarray) -> np.ndarray:
    """Rows scaled to unit L2 norm; a row of zeros stays zero."""
    norms = np.linalg.norm(embeddings, axis=1, keepdims=True)
    return embeddings / np.where(norms == 0, 1, norms)


def moments(embeddings: np.ndarray, *, centre: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """Mean (d,) and second moment about it (d, d), over n, of the unit rows, in float64; about 0 without ``centre``.

    Sums are taken about the first block's mean: about zero they would lose the variance of a cloud far from the origin.
    """
    n, d = embeddings.shape
    about = unit_rows(embeddings[:BLOCK]).astype(np.float64).mean(axis=0) if centre else np.zeros(d)
    total, products = np.zeros(d), np.zeros((d, d))
    for i in range(0, n, BLOCK):
        block = unit_rows(embeddings[i : i + BLOCK]).astype(np.float64) - about
        total += block.sum(axis=0)
        products += block.T @ block
    shift = total / n if centre else np.zeros(d)
    return about + shift, products / n - np.outer(shift, shift)


def directions(moment: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvalues, largest first and none below 0, and eigenvectors in columns, their largest entries positive.

    An eigenvector's sign is arbitrary; it is fixed so that every machine gets the same target.
    """
    values, vectors = np.linalg.eigh(moment)
    values, vectors = values[::-1].clip(min=0), vectors[:, ::-1]
    return values, vectors * np.sign(vectors[np.abs(vectors).argmax(axis=0), np.arange(len(values))])


def precision_of(rows: np.ndarray, made: str = "float32") -> str:
    """The coarser of ``made`` and what the rows show: all values fit into 16 bits where they were computed or stored in them.

    >>> third = np.full((2, 3), 1 / 3, np.float32)
    >>> precision_of(third), precision_of(third.astype(np.float16)), precision_of(third, "bfloat16")
    ('float32', 'float16', 'bfloat16')
    """
    first = np.ascontiguousarray(rows[:BLOCK], dtype=np.float32)
    with np.errstate(over="ignore"):
        fits = {"bfloat16": not (first.view(np.uint32) & 0xFFFF).any(),
                "float16": bool((first.astype(np.float16) == first).all())}
    return max((made, *(name for name, yes in fits.items() if yes)), key=ROUNDING.__getitem__)


def rounding(mean: np.ndarray, covariance: np.ndarray, precision: str, vectors: np.ndarray | None = None) -> np.ndarray:
    """The variance that rounding alone does not reach in each dimension, or along each of the unit ``vectors`` (d, k).

    Rounding goes with a value's size, not with its spread: what all images share adds to it.
    """
    found = ROUNDING[precision] ** 2 * (covariance.diagonal() + mean**2)
    return found if vectors is None else (vectors**2).T @ found


def rank_of(values: np.ndarray, floor: np.ndarray) -> int:
    """How many eigenvalues, largest first, stand out of the rounding before the first that does not."""
    return int(np.logical_and.accumulate(values > np.maximum(floor, RANK * values[0])).sum())


def checked_dim(dim: int | None, d: int) -> int:
    """``dim``, by default ``d``, once it is sure that it is no more than that."""
    if dim is not None and not 1 <= dim <= d:
        raise UserError("target.dim", f"1 to the teacher's {d} dimensions", str(dim), f"Set target.dim={d} or less.")
    return d if dim is None else dim


def fitted(name: str, mean: np.ndarray, matrix: np.ndarray | None, offset: np.ndarray | None = None,
           wave: bool = False) -> Target:
    """A Target with its arrays in float32."""
    first, second, third = (None if a is None else np.ascontiguousarray(a, dtype=np.float32) for a in (mean, matrix, offset))
    return Target(name, first, second, third, wave)


@targets.register("none")
def none(embeddings: np.ndarray) -> Target:
    """The teacher's embeddings as they are (the paper's way)."""
    return Target("none")


@targets.register("pca", check=lambda d, count, *, dim, centre: checked_dim(dim, d))
def pca(embeddings: np.ndarray, *, dim: Size = 512, centre: bool = False) -> Target:
    """The top `dim` principal directions of the unit-norm train embeddings, uncentred by default, without rescaling.

    Uncentred, the projection keeps as much of the squared norm as `dim` directions can, so that cosines between images
    stay nearly what they were; the mean direction is kept as one of them.
    """
    dim = checked_dim(dim, embeddings.shape[1])
    mean, moment = moments(embeddings, centre=centre)
    return fitted(f"pca{dim}{'_centred' * centre}", mean, directions(moment)[1][:, :dim])


@targets.register("centre")
def centre(embeddings: np.ndarray) -> Target:
    """Unit rows less their train mean: what all images share is not asked for."""
    return fitted("centre", moments(embeddings)[0], None)


@targets.register("standardise")
def standardise(embeddings: np.ndarray, precision: str = "float32") -> Target:
    """Unit rows with mean 0 and variance 1 in every dimension of the teacher's own axes, on train.

    Covariances stay, so the spectrum does not become flat; rare dimensions are amplified. A dimension that varies no more than
    rounding does is an error.
    """
    precision = precision_of(embeddings, precision)
    mean, covariance = moments(embeddings)
    variances = covariance.diagonal()
    constant = int((variances <= np.maximum(rounding(mean, covariance, precision), RANK * variances.max())).sum())
    if constant:
        raise UserError("target standardise", "a teacher whose dimensions all vary on train",
                        f"{constant} of {len(mean)} that do not in {precision}",
                        "Use the target phi_s, or whiten with a smaller dim.")
    return fitted("standardise", mean, 1 / np.sqrt(variances))


def check_k(d: int, count: int, *, k: int) -> None:
    """No more components than dimensions."""
    if k > d:
        raise UserError("target.k", f"1 to the teacher's {d} dimensions", str(k), "Set a smaller target.k.")


@targets.register("top_k", check=check_k)
def top_k(embeddings: np.ndarray, *, k: Size) -> Target:
    """Unit rows projected on the `k` principal directions about their train mean, in the teacher's own axes: rank k.

    The dimension stays d, so that one student fits every k; at k = d it gives the unit rows themselves.
    """
    check_k(embeddings.shape[1], len(embeddings), k=k)
    mean, covariance = moments(embeddings)
    vectors = directions(covariance)[1][:, :k]
    return fitted(f"top{k}", mean, vectors @ vectors.T, mean)
