"""The model card of a distilled student: what it is, how it was made, what is known of it, how to use it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import distillscope
from distillscope.config.parts import DESCRIPTION, Part
from distillscope.config.study import Arm, Study, Training
from distillscope.data.splits import Splits
from distillscope.provenance import hardware
from distillscope.students.load import WEIGHTS, StudentEncoder
from distillscope.students.networks import capacity
from distillscope.visible import markdown_code, markdown_text, visible

HEAD = """---
license: other
tags: [distillscope, image-feature-extraction, knowledge-distillation]
---
"""


def model_card(study: Study, splits: Splits, student: StudentEncoder, history: Sequence[Mapping[str, Any]], command: str,
               folder: Path) -> str:
    """README.md of ``folder``. Whatever names hold, the front matter and the table stay what they are."""
    size, arm = capacity(student.module, student.preprocess.size), study.arms[0]
    note = f" ({splits.whole_train.note})" if splits.whole_train.note else ""
    held_out = 0 if splits.validation is None else len(splits.validation)
    rows = {
        "images": f"{splits.title}, {len(splits.train):,} for training, {held_out:,} held out{note}",
        "objective": arm.objective_name, "target": part_text(study.target_of(arm)), "view": view_text(arm),
        "training": training_text(study.training_of(arm)), **_known(history[-1]),
        "preprocessing": str(student.preprocess.describe()),
        "made by": f"distillscope {distillscope.__version__} on {hardware()}"}
    table = "".join(f"| {markdown_text(key)} | {markdown_text(value)} |\n" for key, value in rows.items())
    return f"""{HEAD}# {markdown_text(student.name)}, distilled from {markdown_text(study.teacher[0].title)}

A student of {size["parameters"]:,} parameters and {size["multiply_adds"]:,} multiply-adds an image, with {student.dim}-d
embeddings. Its licence follows from the teacher's weights and the images.

| | |
| --- | --- |
{table}| command | {markdown_code(command)} |

```python
import distillscope
student = distillscope.load_student({visible(repr(str(folder)))})    # holds {WEIGHTS} and {DESCRIPTION}
embeddings = student.encode(["photo.jpg"])    # or PIL images; NumPy (b, h, w, 3), torch (b, 3, h, w): uint8, floats in [0, 1]
```

What it lost beyond these figures has not been measured: run a study, or an audit, on data that it has not seen.
"""


def _known(last: Mapping[str, Any]) -> dict[str, str]:
    """What the last epoch's health says."""
    rank = f"effective rank (s^2, centred; n {last['n']}), teacher's {last['target_rank']:.1f}"
    found = {f"mean cosine to the teacher, held-out part of train (n {last['n']})": f"{last['cosine']:.4f}",
             rank: f"{last['effective_rank']:.1f}"}
    if last.get("knn_accuracy") is not None:
        found[f"kNN accuracy, held-out part of train (k 10, n {last['n']})"] = f"{last['knn_accuracy']:.4f}"
    return found


def part_text(part: Part | None) -> str:
    """A part with its settings.

    >>> part_text(Part(name="pca", dim=128)), part_text(None)
    ('pca, dim 128', 'none')
    """
    return "none" if part is None else ", ".join([part.name, *(f"{key} {value}" for key, value in part.settings.items())])


def view_text(arm: Arm) -> str:
    """What the student was shown, and the embedding of which view it learned."""
    if arm.view is None:
        return "none: the images as they are"
    bank = f", {arm.view_bank} versions of each image" if arm.view_bank else ""
    return f"{part_text(arm.view)}{bank}; the teacher's embedding of the {arm.view_target} image"


def training_text(settings: Training) -> str:
    """
    >>> training_text(Training(epochs=1, schedule="cosine"))
    '1 epoch, batch 64, adam, lr 0.001 (cosine), weight decay 0'
    """
    return (f"{settings.epochs} epoch{'' if settings.epochs == 1 else 's'}, batch {settings.batch_size}, {settings.optimizer}, "
            f"lr {settings.learning_rate:g} ({settings.schedule}), weight decay {settings.weight_decay:g}")
