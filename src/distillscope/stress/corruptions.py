"""The common-corruption suite: accuracy for each corruption and severity, and the mean corruption error."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from distillscope import registry
from distillscope.data.corruptions import SEVERITIES, apply_corruption, check_severity
from distillscope.data.source import Images, Source, stack
from distillscope.draws import keyed_rng
from distillscope.registry import stresses
from distillscope.results.rows import Condition, Row
from distillscope.stress.subject import Findings, Subject, few, need_labels


@dataclass(frozen=True)
class Corruption:
    """One common corruption at one severity, on the stored image; the draws are the same for every severity and model."""

    name: str
    severity: int
    seed: int = 0

    where = "source"

    def __call__(self, images: Images, ids: Sequence[str] | np.ndarray) -> Images:
        """uint8 images of the same shapes."""
        changed = []
        for image, item in zip(images, ids, strict=True):
            rng = keyed_rng(self.seed, "corruption", self.name, item)
            array = apply_corruption(self.name, image.permute(1, 2, 0).numpy(), self.severity, rng)
            changed.append(torch.from_numpy(array).permute(2, 0, 1))
        return stack(changed)

    def describe(self) -> dict[str, Any]:
        return {"kind": "corruption", "definition": "CIFAR-10-C", **asdict(self)}


@stresses.register("corruptions")
def corruptions(model: Subject, test: Source, labels: np.ndarray | None, seed: int, *, names: tuple[str, ...] = (),
                severities: tuple[int, ...] = SEVERITIES, items: int = 1000) -> Findings:
    """Accuracy under common corruptions (condition corruption=NAME/SEVERITY), and their plain mean error (corruption=mean).

    `names`: default all that `distillscope list corruptions` shows. CIFAR has no canonical baseline to divide by; what
    the teacher loses under the same images is the reference.
    """
    need_labels(labels, "stresses.corruptions")
    names = names or tuple(registry.corruptions)
    for name in names:
        registry.corruptions.get(name, "stresses.corruptions.names")
    for severity in severities:
        check_severity(severity, "stresses.corruptions.severities")
    few_items, found = few(test, items, "stresses.corruptions"), Findings()
    for name in names:
        for severity in severities:
            condition = Condition.of("corruption", name, severity)
            found.rows += model.accuracy(few_items, condition, None, Corruption(name, severity, seed))
    for head in model.probes:
        errors = [1 - row.value for row in found.rows if row.measure == f"{head}.{model.side}.accuracy"]
        found.rows.append(Row(f"{head}.{model.side}.corruption_error", Condition.of("corruption", "mean"), None,
                              float(np.mean(errors)), len(few_items),
                              f"fraction, plain mean of {len(names)} corruptions x {len(severities)} severities"))
    found.rows += model.accuracy(few_items, Condition.unchanged("corruption"), None, None)  # clean, on the same items
    return found
