"""The card of a student, README.md of its folder and of its page on the Hub: what it is, what it lost, code that uses it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import distillscope
from distillscope.config.parts import DESCRIPTION, WEIGHTS, Part, Teacher, on_hub
from distillscope.config.study import Arm, Study, Training
from distillscope.data.preprocess import BORDERS, Preprocess
from distillscope.data.splits import Splits
from distillscope.errors import UserError
from distillscope.measure.results import Audit, Value
from distillscope.provenance import hardware
from distillscope.results.keys import facts_of
from distillscope.students.networks import capacity
from distillscope.teachers.artefacts import Artefact
from distillscope.visible import markdown_code, markdown_text, visible

if TYPE_CHECKING:
    from distillscope.students.load import StudentEncoder

OWN = "own"
"""The name of a student whose network is the caller's own: no code of this package or of timm builds it."""
TASK = "image-feature-extraction"
OTHER = "other"
"""The licence of a student of which none is said: it follows from the teacher's weights and the images."""
FIGURES = ("probe.accuracy", "knn.accuracy", "zero_shot.accuracy", "alignment.mean_cosine", "alignment.teacher_r2",
           "retrieval.recall_at_1", "retrieval.mapped_recall_at_1", "retrieval.neighbour_overlap_10", "effective_rank",
           "similarity.linear_cka_debiased", "contrastive.retained_share")
"""Measures of an audit that a card shows, where they were measured."""
OF_FILES = {"accuracy": "accuracy, linear probe (tuned)", "mean_cosine": "mean cosine to the student",
            "negative_flips": "negative flips (right before this step, wrong after it)"}
"""The same of a file that was made of the student -> what it is called."""


def model_card(student: StudentEncoder, place: str, *, command: str = "", audit: Audit | None = None,
               artefacts: Sequence[Artefact] = (), licence: str = OTHER) -> str:
    """README.md of a student. Whatever names hold, the metadata and the tables stay what they are.

    ``place`` is what `load_student` takes; ``artefacts`` are files that lie beside the card: an ONNX file is used in its code.
    """
    described = student.described or {}
    size = capacity(student.module, student.preprocess.size)
    teacher = str(described.get("teacher") or "a teacher that it does not name")
    table = _table(("", ""), list(_rows(student).items()))
    command = f"| command | {markdown_code(command)} |\n" if command else ""
    follows = " Its licence follows from the teacher's weights and the images." if licence == OTHER else ""
    graph = next((a for a in artefacts if a.path.suffix.lower() == ".onnx"), None)
    code = [*([_onnx_code(graph)] if graph else []), _package_code(student, place)]
    return f"""---
{_metadata(student, audit, artefacts, licence)}
---
# {markdown_text(student.name)}, distilled from {markdown_text(teacher)}

A student of {size["parameters"]:,} parameters and {size["multiply_adds"]:,} multiply-adds per image, with {student.dim}-d
embeddings.{follows}

{table}{command}
{chr(10).join(code)}
{_lost(student, audit, artefacts)}"""


def training_rows(study: Study, splits: Splits, history: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """How the student of a study was trained, in words: kept in its description, shown by its card."""
    arm = study.arms[0]
    note = f" ({splits.whole_train.note})" if splits.whole_train.note else ""
    held_out = 0 if splits.validation is None else len(splits.validation)
    return {"images": f"{splits.title}, {len(splits.train):,} for training, {held_out:,} held out{note}",
            "recipe": recipe_text(study), "objective": arm.objective_name, "target": part_text(study.target_of(arm)),
            "view": view_text(arm), "training": training_text(study.training_of(arm)), **_known(history[-1]),
            "made by": f"distillscope {distillscope.__version__} on {hardware()}"}


def teacher_id(teacher: Teacher) -> str:
    """The name on the Hub of a teacher that timm fetches from there; nothing for others.

    >>> teacher_id(Teacher.model_validate("timm/resnet18")), teacher_id(Teacher.model_validate("efficientnet_lite0"))
    ('timm/resnet18.a1_in1k', '')
    """
    return "" if teacher.name != "timm" or "weights" in teacher.settings else _timm_id(str(teacher.settings["model"]))


def _timm_id(model: str) -> str:
    import timm

    found = timm.models.get_pretrained_cfg(model)
    return str(found.hf_hub_id or "") if found else ""


def _rows(student: StudentEncoder) -> dict[str, str]:
    """What the description says of how it was made; of an older student, as much as it holds."""
    described = student.described or {}
    rows = described.get("card") or {
        title: str(described[key]) for title, key in (("images", "dataset"), ("recipe", "recipe"), ("objective", "objective"),
                                                      ("target", "target")) if described.get(key)}
    return {**rows, "preprocessing": str(student.preprocess.describe())}


def _metadata(student: StudentEncoder, audit: Audit | None, artefacts: Sequence[Artefact], licence: str) -> str:
    """What the Hub reads, as YAML."""
    from huggingface_hub import ModelCardData

    described = student.described or {}
    settings = described.get("settings") or {}
    initial = _timm_id(str(settings.get("model"))) if described.get("name") == "timm" and settings.get("pretrained") else ""
    bases = list(dict.fromkeys(filter(None, [str(described.get("teacher_id") or ""), initial])))
    tags = ["distillscope", TASK, "knowledge-distillation", *({"onnx"} & {a.path.suffix.lower()[1:] for a in artefacts})]
    results: dict[str, Any] = {}
    if audit is not None:
        results = {"model_name": markdown_text(student.name), "eval_results": _results(student, audit, artefacts)}
    return ModelCardData(license=_licence(licence), library_name="distillscope", pipeline_tag=TASK, tags=tags,
                         base_model=bases or None, **results).to_yaml()


def _licence(text: str) -> str:
    if not re.fullmatch(r"[a-z0-9][a-z0-9.+-]*", text):
        raise UserError("licence", "an identifier that the Hub knows, in lower case", f"'{text}'",
                        f"For instance apache-2.0, mit, cc-by-4.0, or {OTHER}.")
    return text


def _results(student: StudentEncoder, audit: Audit, artefacts: Sequence[Artefact]) -> list[Any]:
    """The figures as the Hub's model-index has them, each with its interval and n in its name."""
    from huggingface_hub import EvalResult

    data, split = _images(audit)
    teacher = _other_teacher(student, audit)
    against = f"teacher {teacher}, " if teacher else ""
    figures = [(f"{title} ({against}{_said(value)})", key, value) for title, key, value in _figures(audit)]
    figures += [(f"{stage}: {OF_FILES[key]} ({_said(value)})", key, value) for stage, key, value in _of_files(audit, artefacts)]
    return [EvalResult(task_type=TASK, dataset_type=data, dataset_name=data, dataset_split=split,
                       metric_type="accuracy" if key.endswith("accuracy") else key, metric_value=round(value.value, 6),
                       metric_name=title) for title, key, value in figures]


def _said(value: Value) -> str:
    return f"95 % interval {_between(value)}, n {value.n:,}" if value.interval else f"n {value.n:,}"


def _between(value: Value) -> str:
    return f"{value.low:.4g} to {value.high:.4g}" if value.interval else ""


def _figures(audit: Audit) -> list[tuple[str, str, Value]]:
    """(title, name, value) of the measures that a card shows and that were measured: the student's, or the pair's."""
    lines = {line.name: line for line in audit.lines()}
    return [(_title(lines[name].keys[-1]), name, lines[name].known) for name in FIGURES if name in lines]


def _title(key: str) -> str:
    shown = facts_of(key)
    return f"{shown.title}, {shown.hint}" if key.endswith("accuracy") and shown.hint else shown.title


def _of_files(audit: Audit, artefacts: Sequence[Artefact]) -> list[tuple[str, str, Value]]:
    """(file, key, value) of what the audit says of the files that lie beside the card."""
    names = {artefact.path.name for artefact in artefacts}
    return [(stage.name, key, stage.values[key]) for stage in audit.stages if stage.kind == "artefact" and stage.name in names
            for key in OF_FILES if key in stage.values]


def _images(audit: Audit) -> tuple[str, str | None]:
    """What was embedded and its split, where models were audited; a folder by its name alone."""
    said = audit.inputs.get("student", {})
    if not said.get("weights"):
        return "embeddings", None
    data, _, split = visible(" ".join(str(said.get("ids") or "").split())).rpartition("/")
    return Path(data).name or "images", split or None


def _lost(student: StudentEncoder, audit: Audit | None, artefacts: Sequence[Artefact]) -> str:
    """What the audit found, in tables, with what a reader must know of it."""
    if audit is None:
        return ("## What it lost\n\nBeyond these figures that has not been measured: run a study, or an audit, on data that it "
                "has not seen.\n")
    texts = dict(zip((line.name for line in audit.lines()), audit.rows(), strict=True))
    rows = [(title, value.unit, *texts[name][1:3], texts[name][4], f"{value.n:,}") for title, name, value in _figures(audit)]
    files = [(name, OF_FILES[key], f"{value.value:.6g}", _between(value), f"{value.n:,}")
             for name, key, value in _of_files(audit, artefacts)]
    where = markdown_text("/".join(filter(None, _images(audit))))
    notes = "".join(f"- {markdown_text(note)}\n" for note in [*_doubts(student, audit), *audit.notes])
    return (f"## What it lost\n\nBy `distillscope audit` on {where}, {audit.num_items:,} items, against "
            f"{markdown_text(visible(_teacher(audit)))}. Intervals are over items, of the student where there are two sides."
            "\n\n"
            + _table(("", "unit", "teacher", "student", "95 % interval", "n"), rows)
            + ("\n" + _table(("file", "", "value", "95 % interval", "n"), files) if files else "")
            + (f"\n{notes}" if notes else ""))


def _teacher(audit: Audit) -> str:
    """What the audit's teacher is called."""
    said = audit.inputs.get("teacher", {})
    spec = str(said.get("file") or "rows in memory")
    named = on_hub(spec)
    return Path(named.title if named else Teacher.model_validate(spec).title if said.get("weights") else spec).name


def _other_teacher(student: StudentEncoder, audit: Audit) -> str:
    """The same, where the student calls the one that it was distilled from otherwise; else nothing."""
    own, found = str((student.described or {}).get("teacher") or ""), _teacher(audit)
    return "" if not own or Path(own).name == found else visible(found)


def _doubts(student: StudentEncoder, audit: Audit) -> list[str]:
    """Whether rows belong together, and whether they are this student's, where the audit cannot know."""
    said, teacher = audit.inputs.get("student", {}), _other_teacher(student, audit)
    doubts = [audit.doubt] if audit.doubt else []
    if teacher:
        doubts.append(f"The audit's teacher is called {teacher}, but the one that this student was distilled from is not.")
    if not said.get("weights"):
        read = Path(str(said.get("file") or "rows in memory")).name
        doubts.append(f"The audit read {read} as the student's embeddings; that they are this student's was not checked.")
    return doubts


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *(map(markdown_text, row) for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _package_code(student: StudentEncoder, place: str) -> str:
    network = student.name if student.name.isidentifier() else "MyNetwork"
    own = f", module={network}()" if (student.described or {}).get("name") == OWN else ""
    return f"""```python
import distillscope
student = distillscope.load_student({visible(repr(place))}{own})    # reads {WEIGHTS} and {DESCRIPTION}
embeddings = student.embed(["photo.jpg"])    # a folder, paths, Pillow images, arrays, tensors: (n, {student.dim}) float32
```
"""


def _onnx_code(graph: Artefact) -> str:
    """Code that runs the file with NumPy, Pillow and ONNX Runtime alone, and prepares images as it was trained."""
    seen = graph.facts.preprocessing
    sized = "" if graph.facts.input == "raw" else _resizing(seen)
    opened, background = 'Image.open("photo.jpg")', graph.facts.background
    opened = f"ImageOps.exif_transpose({opened})" if graph.facts.exif else f"{opened}    # as stored, whatever EXIF says"
    return f"""```python
import numpy as np
import onnxruntime
from PIL import Image, ImageOps

file = {visible(repr(graph.path.name))}    # it lies beside this card
session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
image = {opened}
assert image.mode[0] not in "IF", "scale 16 bits, or floats, to 8 bits first"
image = image.convert("RGBA")
image = Image.alpha_composite(Image.new("RGBA", image.size, {background!r}), image).convert("RGB")    # transparency
{sized}pixels = np.asarray(image)[None]    # (1, height, width, 3) uint8
embeddings = session.run(None, {{"images": pixels}})[0]    # (1, {graph.dim}) float32
```
"""


RESIZED = {"nearest-exact": "image.resize(size, Image.Resampling.NEAREST)",
           "bilinear": "image.resize(size, Image.Resampling.BILINEAR)",
           "bicubic": "image.resize(size, Image.Resampling.BICUBIC)",
           "nearest": "Image.fromarray(np.asarray(image)[np.arange(size[1]) * image.height // size[1]]"
                      "[:, np.arange(size[0]) * image.width // size[0]])"}
"""torchvision's name of an interpolation -> the same without it; its "nearest" takes other pixels than Pillow's."""


def _resizing(seen: Preprocess) -> str:
    """Lines that resize and crop the centre, as `Preprocess` does."""
    if seen.resize_mode in BORDERS:
        return f"""size = [max(1, round(side / (max(image.size) / {seen.side}))) for side in image.size]
image = {RESIZED[seen.interpolation]}
corner = tuple(({seen.size} - side) // 2 if side < {seen.size} else -round((side - {seen.size}) / 2) for side in size)
canvas = Image.new("RGB", ({seen.size}, {seen.size}), {seen.border})
canvas.paste(image, corner)
image = canvas
"""
    size = f"({seen.side}, {seen.side})" if seen.resize_mode == "squash" else (
        f"[side * {seen.side} // min(image.size) for side in image.size]")
    return f"""size = {size}
image = {RESIZED[seen.interpolation]}
left, top = (round((side - {seen.size}) / 2) for side in size)
image = image.crop((left, top, left + {seen.size}, top + {seen.size}))
"""


def _known(last: Mapping[str, Any]) -> dict[str, str]:
    """What the last epoch's health says."""
    rank = f"effective rank (s^2, centred; n {last['n']}), teacher's {last['target_rank']:.1f}"
    found = {f"mean cosine to the teacher, held-out part of train (n {last['n']})": f"{last['cosine']:.4f}",
             rank: f"{last['effective_rank']:.1f}"}
    if last.get("knn_accuracy") is not None:
        found[f"kNN accuracy, held-out part of train (k 10, n {last['n']})"] = f"{last['knn_accuracy']:.4f}"
    return found


def recipe_text(study: Study) -> str:
    """The recipe of a study of one student, what was changed in it, and what was assumed (`config.recipe.one_student`)."""
    return study.description or study.arms[0].name


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
    learned = ("the mean of the teacher's embeddings of all of them" if arm.view_target == "mean" else
               f"the teacher's embedding of the {arm.view_target} image")
    more = f", and on top of it {part_text(arm.student_view)}" if arm.student_view else ""
    return f"{part_text(arm.view)}{bank}{more}; {learned}"


def training_text(settings: Training) -> str:
    """
    >>> training_text(Training(epochs=1, schedule="cosine"))
    '1 epoch, batch 64, adam, lr 0.001 (cosine), weight decay 0'
    >>> training_text(Training(accumulate=2, recompute=True))
    '5 epochs, batch 64 in 2 parts, adam, lr 0.001 (constant), weight decay 0, activations recomputed'
    """
    parts = f" in {settings.accumulate} parts" if (settings.accumulate or 1) > 1 else ""
    return (f"{settings.epochs} epoch{'' if settings.epochs == 1 else 's'}, batch {settings.batch_size}{parts}, "
            f"{settings.optimizer}, lr {settings.learning_rate:g} ({settings.schedule}), weight decay {settings.weight_decay:g}"
            + (", activations recomputed" if settings.recompute else "")
            + (f", weights averaged ({settings.average:g})" if settings.average else ""))
