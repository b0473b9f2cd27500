"""Adversarial perturbations: projected gradient descent of the Adversarial Robustness Toolbox (the extra `attacks`)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from distillscope.data.preprocess import Preprocess, unit_floats
from distillscope.data.source import Source, one_tensor
from distillscope.devices import kept_memory
from distillscope.draws import keyed_seed
from distillscope.errors import UserError
from distillscope.registry import stresses
from distillscope.results.rows import Condition, Row
from distillscope.stress.subject import Findings, ProbeLogits, Subject, few, need_labels, need_range, probe_logits, shape_of


@stresses.register("attack")
def attack(model: Subject, test: Source, labels: np.ndarray | None, seed: int, *, linf: tuple[float, ...] = (0.5, 1.0, 2.0),
           l2: tuple[float, ...] = (0.1, 0.25), steps: int = 20, restarts: int = 1, items: int = 500) -> Findings:
    """Accuracy under PGD on probe(student(image)) (condition attack=linf/EPS or attack=l2/EPS; extra `attacks`).

    Madry et al. 2018 (arXiv:1706.06083). `linf` counts in grey levels of 255, `l2` in pixel values of [0, 1] over the whole
    image; on the stored pixels, clipped to [0, 1], `steps` steps of 2.5 eps / steps from `restarts` random starts (0: from
    the image itself). Students only. It bounds robustness from above: a stronger attack may find more.
    """
    need_labels(labels, "stresses.attack")
    for norm, sizes in (("linf", linf), ("l2", l2)):
        for eps in sizes:
            need_range(eps, f"stresses.attack.{norm}")
    if steps < 1 or restarts < 0:
        raise UserError("stresses.attack", "at least 1 step and 0 or more restarts", f"steps {steps}, restarts {restarts}",
                        "20 and 1 are usual.")
    few_items = few(test, items, "stresses.attack")
    shape = shape_of(few_items)
    load_library()
    if not model.is_student:
        return Findings(skipped=["attack: for students only"])
    if model.module is None or model.preprocess is None:
        return Findings(skipped=["attack: the network itself is not at hand"])
    found = Findings()
    for head, probe in model.probes.items():
        target = Classifier(model.module, model.preprocess, probe_logits(probe, model.device), model.device)
        for norm, sizes in (("linf", linf), ("l2", l2)):
            for eps in (e for e in sizes if e > 0):
                size = eps / 255 if norm == "linf" else eps
                accuracy = accuracy_under_pgd(target, few_items, shape, norm, size, steps, restarts, seed)
                condition = Condition.of("attack", norm, eps)
                found.rows.append(Row(f"{head}.student.accuracy", condition, None, accuracy, len(few_items), "fraction"))
                found.conditions[condition] = {"norm": norm, "eps_pixel": size, "steps": steps, "restarts": restarts,
                                               "where": "source pixels"}
        found.rows.append(Row(f"{head}.student.accuracy", Condition.unchanged("attack"), None,
                              accuracy_under_pgd(target, few_items, shape), len(few_items), "fraction"))
    return found


class Classifier(torch.nn.Module):
    """Stored pixels (n, 3, h, w) in [0, 1] -> logits of the probe."""

    def __init__(self, network: torch.nn.Module, preprocess: Preprocess, head: ProbeLogits, device: torch.device) -> None:
        super().__init__()
        self.network, self.preprocess, self.head, self.device = network, preprocess, head, device

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.head(self.network(self.preprocess(pixels)).float())


def load_library() -> Any:
    """The attack library, or the one line that says how to get it."""
    try:
        from art.attacks.evasion import ProjectedGradientDescentPyTorch
        from art.estimators.classification import PyTorchClassifier
    except ImportError:
        raise UserError("stresses.attack", "the package adversarial-robustness-toolbox", "not installed",
                        "pip install 'distillscope[attacks]', or leave this stress out.") from None
    return ProjectedGradientDescentPyTorch, PyTorchClassifier


@kept_memory()
def accuracy_under_pgd(target: Classifier, items: Source, shape: tuple[int, int], norm: str = "linf", eps: float = 0.0,
                       steps: int = 1, restarts: int = 0, seed: int = 0, batch: int = 250) -> float:
    """Share of the items still classified rightly; the random starts depend on the seed, norm and place of the batch alone."""
    was_training = target.network.training
    target.eval()
    true = need_labels(items.labels, "stresses.attack")
    right = 0
    for start in range(0, len(items), batch):
        indices = np.arange(start, min(start + batch, len(items)))
        pixels, labels = unit_floats(one_tensor(items.read(indices))).numpy(), target.head.places(true[indices])
        if eps > 0:
            pgd, classifier = load_library()
            wrapped = classifier(target, torch.nn.CrossEntropyLoss(), (3, *shape), len(target.head.classes),
                                 clip_values=(0.0, 1.0), device_type="cpu" if target.device.type == "cpu" else "gpu")
            found = pgd(wrapped, norm=np.inf if norm == "linf" else 2, eps=eps, eps_step=2.5 * eps / steps, max_iter=steps,
                        num_random_init=restarts, batch_size=batch, verbose=False)
            with _numpy_seed(keyed_seed(seed, "attack", norm, start) % 2**32):
                pixels = found.generate(x=np.ascontiguousarray(pixels), y=labels)
        with torch.no_grad():
            right += int((target(torch.from_numpy(pixels).to(target.device)).argmax(dim=1).cpu().numpy() == labels).sum())
    target.train(was_training)
    return right / len(items)


@contextlib.contextmanager
def _numpy_seed(seed: int) -> Iterator[None]:
    """The library draws from NumPy's global stream; it is put back afterwards."""
    before = np.random.get_state()
    np.random.seed(seed)
    try:
        yield
    finally:
        np.random.set_state(before)
