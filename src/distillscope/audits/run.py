"""Files or models -> an audit: what `distillscope audit` does before and after `audit()`.

What runs models is imported where a model is asked for: an audit of two files starts without torch.
"""

from __future__ import annotations

import inspect
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from distillscope import progress, registry
from distillscope.audits.shown import refuse_unused
from distillscope.config.parts import DESCRIPTION, MODEL_FILES, Teacher, on_hub
from distillscope.errors import UserError, unknown_name
from distillscope.files.folders import check_fresh
from distillscope.files.remote import is_url
from distillscope.inputs.arrays import is_torchscript
from distillscope.inputs.class_text import read_class_text
from distillscope.inputs.embeddings import Embeddings, align, read_embeddings, with_ids
from distillscope.inputs.formats import split_key
from distillscope.inputs.labels import match_labels
from distillscope.inputs.members import strings
from distillscope.inputs.pairing import names_of_rows, positions
from distillscope.inputs.reading import Reading
from distillscope.measure.audit import audit, num_steps
from distillscope.measure.classes import partitions_agree, refines
from distillscope.measure.results import GROUPS, Audit

if TYPE_CHECKING:
    from distillscope.audits.artefacts import Files
    from distillscope.data.source import Source


@dataclass(frozen=True)
class Images:
    """The images that models are given, and how the models run; ``preprocess`` is what each side's model file is shown."""

    data: str | None = None
    split: str = "test"
    limit: int | None = None
    device: str = "auto"
    precision: str | None = None
    workers: int = 0
    preprocess: Mapping[str, dict[str, Any]] = field(default_factory=dict)
    corrupt: str = "error"
    option: str = "--split"
    loaded: dict[str, Source] = field(default_factory=dict, repr=False, compare=False)

    def load(self, split: str, where: str) -> Source:
        """That split of the data, decoded once for both sides; ``where`` is the input that needs it."""
        if self.data is None:
            raise UserError(where, "--data with the images, since it names a model", "none", "Add --data DATASET_OR_FOLDER.")
        from distillscope.audits.models import load_images

        if split not in self.loaded:
            option = self.option if split == self.split else "--train-split"
            self.loaded[split] = load_images(self.data, split, self.limit, self.corrupt, option, self.workers)
        return self.loaded[split]

    def load_both(self, train_split: str) -> None:
        """The split and that of training items, with one number for each class's name; what train lacks is said and noted."""
        from distillscope.data.classes import name_classes

        train, test, unknown = name_classes(self.load(train_split, "--train-split"), self.load(self.split, "--split"))
        if unknown:
            progress.say(f"{test.name}/{test.split}: {unknown}")
        self.loaded.update({train_split: train, self.split: test})


@dataclass(frozen=True)
class Reads:
    """What the caller says of files: where ids are (of both sides, or one), their scale, and if it has labels."""

    ids: str | None = None
    teacher_ids: str | None = None
    student_ids: str | None = None
    scale: float | None = None
    labelled: bool = False

    def ids_of(self) -> list[tuple[str, str] | None]:
        """(option, file) for the teacher and the student, None where no file is named."""
        both = None if self.ids is None else ("--ids", self.ids)
        return [both if own is None else (option, own)
                for option, own in (("--teacher-ids", self.teacher_ids), ("--student-ids", self.student_ids))]


@dataclass(frozen=True)
class Elsewhere:
    """Items from elsewhere: embeddings by both sides, or images for models, with their split (else that of the images)."""

    teacher: str | None = None
    student: str | None = None
    data: str | None = None
    split: str | None = None

    def check(self, sides: tuple[str, str], images: Images) -> None:
        """Refuse what does not fit together or would not be followed."""
        if self.data is None and self.split is not None:
            raise UserError("--ood-split", "--ood with images, whose split it names", "none", "Add --ood DATASET_OR_FOLDER.")
        if self.data is not None:
            if self.teacher or self.student:
                raise UserError("--ood", "images, or --ood-teacher and --ood-student", "both", "Leave one out.")
            for side in sides:
                if not is_model(side, with_images=images.data is not None):
                    raise UserError("--ood", "a model on each side, to embed these images", f"the embeddings {side}",
                                    "Name their embeddings with --ood-teacher and --ood-student.")
            return
        for option, file in (("--ood-teacher", self.teacher), ("--ood-student", self.student)):
            if file is None and (self.teacher or self.student):
                raise UserError(option, "both --ood-teacher and --ood-student", "one", f"Add {option}.")
            if file is not None and is_model(file, with_images=images.data is not None):
                raise UserError(option, "embeddings of items from elsewhere", f"the model {file}",
                                "Name the images with --ood, which embeds them by --teacher and --student.")

    def read(self, sides: tuple[str, str], images: Images, scale: float | None,
             ) -> tuple[tuple[Embeddings, Embeddings] | None, dict[str, dict[str, Any]]]:
        """Both sides with one row per item, and how they were read."""
        if self.data is not None:
            option = "--split" if self.split is None else "--ood-split"
            others = replace(images, data=self.data, split=self.split or images.split, option=option, loaded={})
            return _pair(*sides, others, others.split, ("--teacher", "--student"), Reads(labelled=True))
        if self.teacher is None or self.student is None:
            return None, {}
        names = "--ood-teacher", "--ood-student"
        return _pair(self.teacher, self.student, images, images.split, names, Reads(scale=scale, labelled=True))


def audit_inputs(teacher: str, student: str, labels: str | None = None, *, train_teacher: str | None = None,
                 train_student: str | None = None, train_labels: str | None = None, train_split: str | None = None,
                 text: str | None = None, subgroups: str | None = None, elsewhere: Elsewhere | None = None,
                 images: Images | None = None, normalize: str | None = None,
                 groups: Collection[str] | None = None, intervals: bool = True, seed: int = 0,
                 reading: Reads | None = None, artefacts: Sequence[str] = (), timed: bool = True) -> Audit:
    """The audit of two embeddings files, folders or models; its ``inputs`` say how they were read and paired.

    ``artefacts`` are files made of the student, which become its ``stages``; latency and memory are measured if ``timed``.
    ``train_split`` embeds that split of ``images.data`` by both models, for probes that are fitted on training images.
    ``elsewhere`` names items that are from elsewhere. Labels come from ``labels``, else from the files or the data. Errors: a
    ``UserError`` that names the input.
    """
    images, reading, elsewhere = images or Images(), reading or Reads(), elsewhere or Elsewhere()
    teacher, student = map(_pinned, (teacher, student))
    _check_followed(images, (teacher, student), text, train_split)
    elsewhere.check((teacher, student), images)
    for group in groups or ():
        if group not in GROUPS:  # said before anything is read
            raise unknown_name("--only", "group of measures", group, GROUPS)
    given = train_teacher or train_student
    refuse_unused(images.preprocess, {"teacher": [teacher, train_teacher], "student": [student, train_student],
                                      "artefact": list(artefacts)})
    files = _files(artefacts, student, images)
    if train_split and images.data is not None and not given and any(map(is_model, (teacher, student))):
        images.load_both(train_split)
    reading = replace(reading, labelled=labels is not None)
    pair, inputs = _pair(teacher, student, images, images.split, ("--teacher", "--student"), reading)
    known, said = _labels(labels, pair, "labels")
    inputs |= said
    parts = None
    if subgroups is not None:
        parts, how = _one_a_row(subgroups, pair, "subgroups")
        inputs["subgroups"] = _as_read(how, "subgroups")
    notes = _notes(inputs)
    train: tuple[Embeddings, Embeddings] | None = None
    found_train_labels = None
    if train_split and (train_teacher or train_student):
        raise UserError("--train-split", "a split for models, or --train-teacher and --train-student", "both", "Leave one out.")
    learned = Reads(scale=None if train_split else reading.scale, labelled=train_labels is not None)
    if train_split:
        train, more = _pair(teacher, student, images, train_split, ("--teacher", "--student"), learned)
    elif train_teacher and train_student:
        names = "--train-teacher", "--train-student"
        train, more = _pair(train_teacher, train_student, images, "train", names, learned)
    elif train_teacher or train_student or train_labels:
        missing = "--train-student" if train_teacher else "--train-teacher"
        raise UserError(missing, "both --train-teacher and --train-student", "one", f"Add {missing}.")
    if train is not None:
        found_train_labels, said = _labels(train_labels, train, "train labels")
        more |= said
        notes += _notes(more)
        inputs |= {f"train_{name.removeprefix('train_')}": held for name, held in more.items()}
        if found_train_labels is None:
            why = dict.fromkeys(r for side in train if side.reading for r in side.reading.remarks if "not taken as labels" in r)
            raise UserError("--train-labels", "labels of the training items", f"none ({'; '.join(why)})" if why else "none",
                            "Add --train-labels FILE.")
    others, more = elsewhere.read((teacher, student), images, reading.scale)
    notes += [f"items from elsewhere: {note}" for note in (_notes(more) if others else [])]
    inputs |= {f"ood_{name}": held for name, held in more.items()}
    rows = {} if files is None else _rows_of_files(files, pair[1], images)
    named, said = (None, {}) if text is None else _text(text, images)
    inputs |= said
    with progress.late_task("audit", num_steps(groups, intervals), "measures") as advance:
        found = audit(pair[0].rows, pair[1].rows, known, text=named, subgroups=parts, artefacts=rows,
                      ood_teacher=others and others[0].rows, ood_student=others and others[1].rows, normalize=normalize,
                      groups=groups, intervals=intervals, seed=seed, train_teacher=None if train is None else train[0].rows,
                      train_student=None if train is None else train[1].rows, train_labels=found_train_labels, advance=advance)
    if files is not None:
        from distillscope.audits.artefacts import finish_stages

        model = teacher if is_model(teacher, with_images=images.data is not None) else None
        shown = images.preprocess.get("teacher", {})
        notes = [*finish_stages(found, files, (teacher, student), pair[1].ids, model, shown, timed), *notes]
    found.notes[:0] = notes
    found.inputs = inputs
    return found


def _check_followed(images: Images, sides: tuple[str, str], text: str | None, train_split: str | None) -> None:
    """Refuse options that nothing would follow: of images where no side is a model, of splits where a side is one file."""
    with_images, usual = images.data is not None, Images()
    embed = [is_model(side, with_images=with_images) for side in sides]
    files = [side for side, model in zip(sides, embed, strict=True)
             if not (model or is_url(side) or split_key(side)[0].is_dir())]
    if train_split and files:
        raise UserError("--train-split", "a model, or a folder with that split, on each side", f"the file {files[0]}",
                        "Name the training items with --train-teacher and --train-student.")
    if len(files) == 2 and not with_images and images.split != usual.split:
        raise UserError("--split", "a model or a folder as --teacher or --student, which it is for", "a file on both sides",
                        "Leave it out.")
    if any(embed) or (with_images and text is not None):
        return
    for name in ("data", "limit", "precision", "device", "workers", "corrupt"):
        if getattr(images, name) != getattr(usual, name):
            raise UserError(f"--{name}", "a model as --teacher or --student, which it is for", "embeddings on both sides",
                            "Leave it out.")


def _pinned(spec: str) -> str:
    """A name on the Hub with its commit, so that all of an audit is of one; any other input as it is."""
    if on_hub(spec) is None:
        return spec
    from distillscope.students.hub import pinned

    return pinned(spec)


def _files(artefacts: Sequence[str], student: str, images: Images) -> Files | None:
    """The files made of the student, opened before any work begins; None where there are none."""
    if not artefacts:
        return None
    if not is_model(student, with_images=images.data is not None):
        raise UserError("--artefact", f"a model as --student {student}, to compare with what was made of it", "embeddings",
                        "Name the student's folder.")
    images.load(images.split, "--artefact")
    from distillscope.audits.artefacts import open_files

    return open_files(artefacts, student, images.preprocess.get("student", {}), images.preprocess.get("artefact", {}))


def _rows_of_files(files: Files, student: Embeddings, images: Images) -> dict[str, Any]:
    """Each file's embeddings of the items that the student's side has, in its order."""
    source = images.load(images.split, "--artefact")
    ids = strings(source.ids, f"{source.name} ids")
    wanted = positions(ids, ids if student.ids is None else student.ids, "--artefact")
    return {name: files.embed(name, source, images.device, images.workers)[wanted] for name in files.specs}


def check_out(folder: Path) -> Path:
    """``folder``, if an audit may be written there: new, empty, or an earlier audit's."""
    return check_fresh(f"--out {folder}", folder, mark="audit.json", whose="an earlier audit's")


def publish(found: Audit, folder: Path, teacher: str, student: str, command: str, images: Images | None = None) -> Path:
    """The audit's page, figures and values in ``folder``; an audit that stood there is replaced.

    ``images`` are what was embedded: the page shows those that the stages of the audit lose.
    """
    from distillscope.provenance import provenance
    from distillscope.report.audit_page import write_audit

    check_out(folder)
    seen: dict[str, np.ndarray] = {}
    if images is not None and any(stage.worst for stage in found.stages):
        from distillscope.audits.artefacts import pictures

        seen = pictures(found.stages, images.load(images.split, "--data"))
    return write_audit(found, folder, teacher=teacher, student=student, command=command, pictures=seen,
                       provenance=provenance(command, {}, "cpu", 0))


def _pair(teacher: str, student: str, images: Images, split: str, where: tuple[str, str],
          reading: Reads) -> tuple[tuple[Embeddings, Embeddings], dict[str, dict[str, Any]]]:
    """Both sides with one row per item, and how they were read."""
    sides = [_read(spec, images, split, name, reading, ids)
             for spec, name, ids in zip((teacher, student), where, reading.ids_of(), strict=True)]
    first, second, pairing = align(*sides)
    source = images.loaded.get(split)
    note = {"note": f"images {source.name}/{split}: {source.note}"} if source is not None and source.note else {}
    return (first, second), {
        name: {**side.reading.to_dict(), "matched": pairing.matched, "unmatched": dropped}
        for name, side, dropped in zip(("teacher", "student"), (first, second), pairing.dropped, strict=True)
        if side.reading is not None
    } | {"pairing": pairing.to_dict()} | ({} if source is None else {"images": {"fingerprint": source.mark(), **note}})


def _notes(inputs: dict[str, dict[str, Any]]) -> list[str]:
    """What a reader must know before any number: rows that were only taken to belong together, or dropped."""
    pairing = inputs["pairing"]
    whole = pairing["by"] == "id" and not pairing["dropped_teacher"] and not pairing["dropped_student"]
    noted = [inputs[name]["note"] for name in ("images", "labels", "subgroups") if "note" in inputs.get(name, {})]
    return noted if whole else [*noted, pairing["said"]]


def _labels(path: str | None, pair: tuple[Embeddings, Embeddings],
            where: str) -> tuple[np.ndarray | None, dict[str, dict[str, Any]]]:
    """Labels (n,) from a file, else from a side that has them; and how they were read."""
    if path is None:
        return next((side.labels for side in pair if side.labels is not None), None), {}
    found, reading = _one_a_row(path, pair, where)
    own = next((side.labels for side in pair if side.labels is not None), None)
    if own is not None:
        both = ~(np.ma.getmaskarray(own) | np.ma.getmaskarray(found))
        given, own = np.ma.getdata(found)[both], np.ma.getdata(own)[both]
        differ = int((~partitions_agree(own, given)).sum())
        if reading.ids is None and differ > len(own) / 2 and not (refines(own, given) or refines(given, own)):
            raise UserError(f"{where} {path}", "labels in the order of the teacher's rows",
                            f"others than the embeddings' own for {differ} of {len(own)} items",
                            "Give labels with ids, or leave them out: the embeddings have labels.")
        if differ:
            remark = f"the embeddings' own labels are others for {differ:,} items, and are not used"
            reading = replace(reading, remarks=(*reading.remarks, remark))
    return found, {"labels": _as_read(reading, where)}


def _one_a_row(path: str, pair: tuple[Embeddings, Embeddings], where: str) -> tuple[np.ndarray, Reading]:
    """Labels or subgroups (n,) of the items, matched by id or in row order."""
    what = "subgroups" if where == "subgroups" else "labels"
    names, index = names_of_rows(*pair)
    found, reading = match_labels(path, len(pair[0]), names, index=index, where=where, what=what)
    if reading.ids is None and pair[0].sorted:
        raise UserError(f"{where} {path}", f"{what} with the ids of the items, since the teacher's rows are sorted by name",
                        "a list", f"Give a table of ids and {what}.")
    return found, reading


def _as_read(reading: Reading, where: str) -> dict[str, Any]:
    note = {"note": f"{where}: {reading.remarks[0]}."} if reading.ids is None and reading.remarks else {}
    return {**reading.to_dict(), **note}


def _read(spec: str, images: Images, split: str, where: str, reading: Reads, ids: tuple[str, str] | None) -> Embeddings:
    """Embeddings from a file or folder, or made by a model from the images."""
    if not is_model(spec, with_images=images.data is not None):
        return read_embeddings(spec, split=split, where=where, scale=reading.scale, ids_file=ids, labelled=reading.labelled)
    from distillscope.audits.models import embed_model

    side = "student" if "student" in where else "teacher"
    found = embed_model(spec, images.load(split, where), split, device=images.device, precision=images.precision,
                        workers=images.workers, preprocess=images.preprocess.get(side), shown=f"{images.data}/{split}")
    return found if ids is None else with_ids(found, ids[1], ids[0])


def _text(spec: str, images: Images) -> tuple[np.ndarray, dict[str, dict[str, Any]]]:
    """Embeddings of the class names, and how they were read: from a file, or made by an open_clip model of the data's names."""
    names = None if images.data is None else images.load(images.split, "--text").class_names
    if not spec.startswith("open_clip/"):
        rows, reading = read_class_text(spec, names)
        return rows, {"text": reading.to_dict()} if reading is not None else {}
    from distillscope.teachers.clip import class_text

    if names is None:
        raise UserError("--text", "--data with class names, since it names a model", "none", "Pass a file of embeddings.")
    settings = Teacher.model_validate(spec).settings
    said = f"{spec}: 'a photo of a {names[0]}.' and so on, of the {len(names)} class names of {images.data}/{images.split}."
    return class_text(settings["model"], names, settings.get("weights")), {"text": {"said": said}}


def is_model(spec: str, *, with_images: bool = True) -> bool:
    """Whether ``spec`` names a model: timm/MODEL, open_clip/MODEL:WEIGHTS, a teacher, a distilled student's folder or its
    name on the Hub, or a model file (ONNX, TorchScript, torch.export, LiteRT). A trial's folder holds embeddings too, and is a
    model only where there are images to embed (``with_images``).

    >>> is_model("timm/resnet18"), is_model("student.onnx"), is_model("teacher.npy")
    (True, True, False)
    """
    if on_hub(spec) is not None:
        return True
    path = split_key(spec)[0]
    if path.is_dir():
        return (path / DESCRIPTION).is_file() and (with_images or not (path / "embeddings_test").is_dir())
    if path.suffix.lower() in MODEL_FILES:
        return True
    if path.exists():
        return path.suffix.lower() in (".pt", ".pth") and is_torchscript(path)
    return spec.startswith(("timm/", "open_clip/")) or _is_teacher(spec)


def _is_teacher(spec: str) -> bool:
    """A registered teacher that needs no setting."""
    return spec in registry.teachers and all(p.default is not inspect.Parameter.empty
                                             for p in registry.teachers.settings(spec).values())
