"""Energy of the input gradient by radial frequency: to which detail a model listens, with no noise at all."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch

from distillscope.data.preprocess import Preprocess, unit_floats
from distillscope.data.source import Source, one_tensor
from distillscope.devices import kept_memory
from distillscope.draws import keyed_rngs
from distillscope.errors import UserError
from distillscope.registry import stresses
from distillscope.results.rows import Row
from distillscope.stress.subject import Findings, ProbeLogits, Subject, few, need_labels, probe_logits, shape_of

BATCH = 32


@stresses.register("gradient")
def gradient(model: Subject, test: Source, labels: np.ndarray | None, seed: int, *,
             of: Literal["embedding", "margin"] = "embedding", bins: int = 16, items: int = 512) -> Findings:
    """Energy of the gradient with respect to the stored pixels, by radial frequency (curve stress.gradient.SIDE).

    `of: embedding`: of u . z / |z| with u normal, drawn for each image: in expectation the squared Frobenius norm of the
    Jacobian of the unit-norm embedding (the cosine to the clean embedding itself has no gradient there, being at its
    maximum); the teacher's is taken before any target transform. `of: margin`: of the true class's logit less the largest
    other one, by the first probe; students only (gradient.margin.*). The
    curve gives each bin's share of the energy; rows its sum, its mean frequency (an even spectrum: 0.765), and its share
    above half of Nyquist.
    """
    if bins < 1:
        raise UserError("stresses.gradient.bins", "a whole number from 1 up", str(bins), "16 suits 32 px.")
    if of == "margin":
        need_labels(labels, "stresses.gradient")
    few_items = few(test, items, "stresses.gradient")
    shape_of(few_items)
    if model.module is None or model.preprocess is None:
        return Findings(skipped=["gradient: ready-made embeddings have no network to differentiate"])
    if of == "margin" and not model.is_student:
        return Findings(skipped=[("gradient of the margin: for students only "
                                  "(the teacher's probe sees a transform of its output)")])
    head = probe_logits(next(iter(model.probes.values())), model.device) if of == "margin" else None
    edges, energy = energy_by_frequency(model.module, model.preprocess, model.device, head, few_items, bins, seed)
    total = float(energy.sum())
    centres = (edges[:-1] + edges[1:]) / 2
    if total == 0:
        return Findings(skipped=["gradient: it is zero for every image"])
    # Half of Nyquist is the edge of a bin where their number is even; else the bin in the middle counts by its half.
    above = np.clip((edges[1:] - 0.5) / (edges[1:] - edges[:-1]), 0, 1)
    name, n = f"gradient.{model.side}" if of == "embedding" else f"gradient.{of}.{model.side}", len(few_items)
    rows = [Row.clean(f"{name}.energy", total / n, n, f"squared gradient of {of} an image, a pixel value in [0, 1]"),
            Row.clean(f"{name}.frequency", float(energy @ centres) / total, n, "fraction of Nyquist, energy-weighted mean"),
            Row.clean(f"{name}.high_share", float(energy @ above) / total, n, "fraction of the energy above half of Nyquist")]
    curve = {"x": centres.tolist(), "y": (energy / total).tolist(), "low": None, "high": None, "unit": "share of the energy",
             "definition": f"energy of the gradient of {of}, by radial frequency "
                           "(fractions of Nyquist; the last bin is the corners)"}
    return Findings(rows=rows, curves={f"stress.{name}": curve})


@kept_memory()
def energy_by_frequency(module: torch.nn.Module, preprocess: Preprocess, device: torch.device, head: ProbeLogits | None,
                        items: Source, bins: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(edges, energy) summed over images and channels: of the margin of ``head`` where there is one, else of the embedding."""
    from distillscope.stress.fourier import radial_energy

    was_training = module.training
    module.eval()
    labels = need_labels(items.labels, "stresses.gradient") if head is not None else np.empty(0)
    total = np.zeros(bins + 1)
    for start in range(0, len(items), BATCH):
        indices = np.arange(start, min(start + BATCH, len(items)))
        pixels = unit_floats(one_tensor(items.read(indices))).to(device).requires_grad_(True)
        z = module(preprocess(pixels)).float()
        if head is None:
            rngs = keyed_rngs(items.ids[indices], seed, "gradient")
            u = np.stack([rng.standard_normal(z.shape[1], dtype=np.float32) for rng in rngs])
            scalar = (torch.nn.functional.normalize(z, dim=1) * torch.from_numpy(u).to(z.device)).sum()
        else:
            scalar = margins(head(z), torch.from_numpy(head.places(labels[indices])).to(z.device)).sum()
        found = torch.autograd.grad(scalar, pixels)[0]
        edges, energy = radial_energy(found.double().cpu().numpy(), bins)
        total = total + energy
    module.train(was_training)
    return edges, total


def margins(logits: torch.Tensor, true: torch.Tensor) -> torch.Tensor:
    """(n,) logit of the true class less the largest of the others.

    >>> margins(torch.tensor([[1.0, 4.0, 2.0]]), torch.tensor([2])).item()
    -2.0
    """
    own = logits.gather(1, true[:, None])[:, 0]
    return own - logits.scatter(1, true[:, None], -torch.inf).max(dim=1).values
