"""Target transforms: fitted on the teacher's train embeddings, applied to all, stored with the student."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from distillscope.errors import UserError
from distillscope.files import write_atomic
from distillscope.registry import targets


@dataclass(frozen=True)
class Target:
    """rows -> ((unit rows) - mean) @ matrix. ``matrix`` (d, k) or None leaves the rows as they are."""

    name: str
    mean: np.ndarray | None = None
    matrix: np.ndarray | None = None

    def __call__(self, embeddings: np.ndarray) -> np.ndarray:
        """(n, d) float32 -> (n, k) float32."""
        if self.matrix is None:
            return embeddings
        out = np.empty((len(embeddings), self.matrix.shape[1]), dtype=np.float32)
        for i in range(0, len(embeddings), 8192):
            out[i : i + 8192] = (unit_rows(embeddings[i : i + 8192]) - self.mean) @ self.matrix
        return out

    def save(self, path: Path) -> None:
        """As safetensors, beside the student's weights."""
        from safetensors.numpy import save_file

        if self.matrix is not None:
            tensors = {"mean": self.mean, "matrix": np.ascontiguousarray(self.matrix)}
            write_atomic(path, lambda p: save_file(tensors, p, metadata={"name": self.name}))


def unit_rows(embeddings: np.ndarray) -> np.ndarray:
    """Rows scaled to unit L2 norm; a row of zeros stays zero."""
    norms = np.linalg.norm(embeddings, axis=1, keepdims=True)
    return embeddings / np.where(norms == 0, 1, norms)


@targets.register("none")
def none(embeddings: np.ndarray) -> Target:
    """The teacher's embeddings as they are (the paper's way)."""
    return Target("none")


@targets.register("pca")
def pca(embeddings: np.ndarray, *, dim: int = 512, centre: bool = False) -> Target:
    """The top `dim` principal directions of the unit-norm train embeddings, uncentred by default, without rescaling.

    Uncentred, the projection keeps as much of the squared norm as `dim` directions can, so that cosines between images
    stay nearly what they were; the mean direction is kept as one of them.
    """
    n, d = embeddings.shape
    if not 1 <= dim <= d:
        raise UserError("target.dim", f"1 to the teacher's {d} dimensions", str(dim), f"Set target.dim={d} or less.")
    moment, total = np.zeros((d, d)), np.zeros(d)
    for i in range(0, n, 8192):
        block = unit_rows(embeddings[i : i + 8192]).astype(np.float64)
        moment += block.T @ block
        total += block.sum(axis=0)
    mean = total / n if centre else np.zeros(d)
    vectors = np.linalg.eigh(moment / n - np.outer(mean, mean))[1][:, ::-1][:, :dim]
    # An eigenvector's sign is arbitrary; fix it, so that every machine gets the same target.
    vectors *= np.sign(vectors[np.abs(vectors).argmax(axis=0), np.arange(dim)])
    return Target(f"pca{dim}", mean.astype(np.float32), vectors.astype(np.float32))
