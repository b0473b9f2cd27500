"""One student for use, not a study: weights, preprocessing, model card."""

from __future__ import annotations

from pathlib import Path

import distillscope
from distillscope import progress
from distillscope.config import Study
from distillscope.data.splits import Splits, load_splits
from distillscope.distill.loop import distill
from distillscope.distill.prepared import load_teacher, prepare_targets
from distillscope.errors import UserError
from distillscope.files import write_atomic, write_text
from distillscope.preflight import check_data, check_study, check_teacher
from distillscope.rundir import hardware, trials_of
from distillscope.students.load import DESCRIPTION, WEIGHTS, save_student
from distillscope.students.networks import capacity
from distillscope.trial import fresh_student, make_health, training_set


def distill_one(study: Study, out: Path, *, resume: bool = False, device: str = "auto", precision: str | None = None,
                workers: int = 0, track: str | None = None, command: str = "") -> Path:
    """Distil the study's only student into ``out``; label-free images do. Started again with ``resume`` it goes on."""
    if out.exists() and any(out.iterdir()) and not resume:
        raise UserError(f"--out {out}", "a new or empty directory", "one with files", "Add --resume, or name another.")
    if (out / DESCRIPTION).exists():
        progress.say(f"{out}: finished already")
        return out
    study = study.with_noise()
    data, teacher, spec, arm = study.data[0], study.teacher[0], study.students[0], study.arms[0]
    check_study(study, track)
    splits = _splits(study, data)
    check_data(study, splits, tested=False)
    encoder = load_teacher(teacher, device, precision)
    check_teacher(study, encoder, splits)
    prepared = prepare_targets(study, encoder, splits, study.target_of(arm), [arm])
    trial = trials_of(study)[0]
    student, streams = fresh_student(study, arm, spec, trial.seed, prepared, device, precision or "float32")
    out.mkdir(parents=True, exist_ok=True)
    settings = study.training_of(arm)
    with progress.task(f"student {spec.label}", settings.epochs * len(splits.train)) as advance:
        history = distill(student, training_set(arm, trial.seed, splits, prepared), arm, settings, streams, out,
                          make_health(splits, prepared), track=track, workers=workers, advance=advance)
    for warning in (w for record in history for w in record["warnings"]):
        progress.say(warning)
    if (prepared.folder / "target.safetensors").exists():
        write_atomic(out / "target.safetensors", lambda p: p.write_bytes((prepared.folder / "target.safetensors").read_bytes()))
    write_text(out / "README.md", _card(study, splits, student, history, command))
    save_student(student, out, {"target": prepared.target_name, "teacher": teacher.title, "dataset": data.title,
                                **({"images": splits.whole_train.note} if splits.whole_train.note else {}),
                                "objective": arm.objective_name, "seed": trial.seed})
    (out / "checkpoint.pt").unlink(missing_ok=True)
    return out


def _splits(study: Study, data) -> Splits:
    """Train with a tenth (at most 1,000 images) held out; no test split is touched."""
    found = load_splits(data.title, data.name, data.settings, train_split=data.train_split, test_split=data.train_split,
                        validation=lambda count: min(1000, count // 10), limit=study.limit, limit_test=study.limit, corrupt=study.corrupt)
    if len(found.train) < study.training.batch_size:
        raise UserError(f"data {data.title}/train", f"at least {study.training.batch_size * 10 // 9 + 2} images",
                        str(len(found.whole_train)), "Use more images, or a smaller --batch-size.")
    return found


def _card(study: Study, splits: Splits, student, history: list[dict], command: str) -> str:
    """The model card: what it is, how it was made, what is known of it, how to use it."""
    note = f" ({splits.whole_train.note})" if splits.whole_train.note else ""
    last, size = history[-1], capacity(student.module, student.preprocess.size)
    knn = "" if last.get("knn_accuracy") is None else f"\n| kNN accuracy, held-out part of train (k 10, n {last['n']}) | {last['knn_accuracy']:.4f} |"
    return f"""---
license: other
tags: [distillscope, image-feature-extraction, knowledge-distillation]
---
# {student.name}, distilled from {study.teacher[0].title}

A student of {size["parameters"]:,} parameters and {size["multiply_adds"]:,} multiply-adds an image, with {student.dim}-d embeddings.
Its licence follows from the teacher's weights and the images.

| | |
| --- | --- |
| images | {splits.title}, {len(splits.train):,} for training, {len(splits.validation):,} held out{note} |
| objective | {study.arms[0].objective_name} |
| training | {study.training.epochs} epochs, batch {study.training.batch_size}, {study.training.optimizer}, lr {study.training.learning_rate:g} |
| mean cosine to the teacher, held-out part of train (n {last["n"]}) | {last["cosine"]:.4f} |
| effective rank (s^2, centred; n {last["n"]}), teacher's {last["target_rank"]:.1f} | {last["effective_rank"]:.1f} |{knn}
| preprocessing | {student.preprocess.describe()} |
| made by | distillscope {distillscope.__version__} on {hardware()} |
| command | `{command}` |

```python
import distillscope
student = distillscope.load_student("DIR")           # holds {WEIGHTS} and {DESCRIPTION}
embeddings = student.encode(images, ids)             # uint8 (b, 3, h, w); its own preprocessing is applied
```

What it lost beyond these figures has not been measured: run a study, or an audit, on data that it has not seen.
"""
