"""Files made of a student, as stages of an audit: whose they are, what they embed, what they cost, and the images they lose."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch

from distillscope import progress
from distillscope.audits.models import model_teacher
from distillscope.config.parts import DESCRIPTION, MODEL_FILES, model_file, on_hub
from distillscope.data.source import Source
from distillscope.devices import choose_device
from distillscope.errors import UserError
from distillscope.inputs.formats import split_key
from distillscope.measure.results import Audit, Stage, Value
from distillscope.registry import teachers
from distillscope.students.export.bench import Timing, bench, bytes_of
from distillscope.students.export.load import check_same_student
from distillscope.students.hub import is_folder, title_of
from distillscope.students.load import StudentEncoder, load_student
from distillscope.teachers.artefacts import Artefact
from distillscope.teachers.encoder import Encoder
from distillscope.teachers.model_files import FileNetwork

SECONDS = 1.0
"""Of timing each stage."""
ANOTHER = 0.9
"""Mean cosine with the student below which it is asked whether the file is this student's."""
LEAST_R2 = 0.5
"""R2 of the student's embeddings below which a high cosine is said to hide something."""


@dataclass(frozen=True)
class Files:
    """Files of one ``student``: ``specs`` and opened ``encoders`` by a short name; ``shown`` to files that do not say it."""

    specs: dict[str, str]
    encoders: dict[str, Encoder]
    shown: dict[str, Any]
    student: StudentEncoder | Encoder | None

    def embed(self, name: str, source: Source, device: str, workers: int) -> np.ndarray:
        """Embeddings (n, d) float32 of the source by that file."""
        encoder = self.encoders[name]
        encoder.to(choose_device(device), None)
        return encoder.rows(source, label=f"{name}, {source.name}/{source.split}", workers=workers)


def open_files(artefacts: Sequence[str], student: str, student_shown: Mapping[str, Any],
               given: Mapping[str, Any]) -> Files:
    """The files, checked against their ``student``; what the caller set for it and for them counts where a file says none.

    A file that `export` wrote of other weights or with another preprocessing is refused. A file from elsewhere is shown what
    the student is shown, where nothing else is given.
    """
    specs = {_short(spec, artefacts): spec for spec in artefacts}
    if len(specs) < len(artefacts):
        raise UserError("--artefact", "each file once", "the same twice", "Leave one out.")
    own = _student(student, student_shown)
    shown = {} if own is None else own.preprocess.describe()
    if isinstance(own, Artefact):  # its colours are normalised in the file
        shown = {key: value for key, value in shown.items() if key not in ("mean", "std")}
    return Files(specs, {name: _checked(spec, own, shown, given) for name, spec in specs.items()}, {**shown, **given}, own)


def _short(spec: str, others: Sequence[str]) -> str:
    """The file's name, or its path where another has this name; or the line that says what is wrong with it."""
    path = split_key(spec)[0]
    if model_file(spec) is None or not path.is_file():
        got = "a folder" if path.is_dir() else f"'{path.suffix}'" if path.is_file() else "none there"
        raise UserError(f"--artefact {spec}", f"a model file that exists ({', '.join(MODEL_FILES)})", got,
                        "Name what `distillscope export --out` wrote.")
    return path.name if sum(split_key(other)[0].name == path.name for other in others) == 1 else spec


def _student(spec: str, shown: Mapping[str, Any]) -> StudentEncoder | Encoder | None:
    if on_hub(spec) is not None or (split_key(spec)[0] / DESCRIPTION).is_file():
        return load_student(spec, "cpu")
    return _opened(spec, shown, f"--student {spec}") if model_file(spec) else None


def _checked(spec: str, student: StudentEncoder | Encoder | None, shown: Mapping[str, Any],
             given: Mapping[str, Any]) -> Encoder:
    """The file as an Encoder, and a line that says what was taken of it."""
    where = f"--artefact {spec}"
    try:
        found: Encoder | None = _opened(spec, {}, where)
    except UserError:
        if not (shown or given):
            raise
        found = None  # it may be of another size than is assumed
    if not isinstance(found, Artefact) or given:
        pixels = found is not None and isinstance(found.module, FileNetwork) and found.module.layout.pixels
        colours = {"mean", "std"} if pixels else set()
        found = _opened(spec, {**{k: v for k, v in shown.items() if k not in colours}, **given}, where)
    if isinstance(found, Artefact) and isinstance(student, StudentEncoder):
        check_same_student(found, student, where)
    elif isinstance(found, Artefact) and isinstance(student, Artefact):
        facts, own = found.facts, student.facts
        if facts.weights_hash != own.weights_hash:
            raise UserError(where, f"a file of student {own.student} ({own.weights_hash[:12]})",
                            f"one of {facts.student} ({facts.weights_hash[:12]})", "Export it from this student.")
    if found.reading:
        progress.say(found.reading)
    return found


def _opened(spec: str, shown: Mapping[str, Any], where: str) -> Encoder:
    settings = model_teacher(spec, shown)
    found: Encoder = teachers.call(settings.name, settings.settings, where=where)
    return found


def _as_it_runs(spec: str, shown: Mapping[str, Any], where: str, sizes: dict[str, int]) -> Encoder:
    """The model as it embeds images on a CPU: of a teacher batch norms are folded then, which makes it a third faster. Its
    bytes before that go to ``sizes``."""
    found = _opened(spec, shown, where)
    sizes[spec] = bytes_of(found)
    return found.to(torch.device("cpu"), None)


def finish_stages(found: Audit, files: Files, specs: tuple[str, str], ids: np.ndarray | None, teacher: str | None,
                  shown: Mapping[str, Any], timed: bool) -> list[str]:
    """The names of both sides' ``specs``, ids (n,) of the worst items, and costs into the stages; what a reader must know of
    them. ``teacher`` is that of a model, ``shown`` what its file is shown."""
    for stage, spec in zip(found.stages, specs, strict=False):
        stage.name = title_of(spec)
    if ids is not None:
        add_ids(found.stages, ids)
    add_costs(found.stages, teacher, specs[1], files, shown, timed)
    return doubts(found)


def doubts(found: Audit) -> list[str]:
    """A line for each file that embeds these images otherwise than its student does."""
    files = [stage for stage in found.stages if stage.kind == "artefact"]
    return [line for stage in files if (line := _doubt(stage))]


def _doubt(stage: Stage) -> str:
    cosine, r2 = stage.values.get("mean_cosine"), stage.values.get("student_r2")
    if cosine is not None and not cosine.value >= ANOTHER:
        return (f"{stage.name}: its mean cosine with the student is {cosine.value:.3f}. Was it made of another student, does "
                "it want another preprocessing, or was it calibrated on images of another kind?")
    if cosine is not None and r2 is not None and not r2.value >= LEAST_R2:
        return (f"{stage.name}: its mean cosine with the student is {cosine.value:.3f}, but R2 of the student's embeddings "
                f"from its own is {r2.value:.3f} (a constant gives 0): they are of another scale, or the student's nearly all "
                "point one way, and what differs between images is lost.")
    return ""


def add_costs(stages: Sequence[Stage], teacher: str | None, student: str, files: Files, shown: Mapping[str, Any],
              timed: bool) -> None:
    """What names each file's content, and of every stage that is a model size, and where they are ``timed`` in turn latency
    and memory; ``shown`` is for a teacher's file."""
    for stage in stages[2:]:
        stage.content = files.encoders[stage.name].weights_hash
    stages_of = {student: [stages[1]], **{files.specs[stage.name]: [stage] for stage in stages[2:]}}
    models: dict[str, Any] = {student: files.student, **{files.specs[name]: found for name, found in files.encoders.items()}}
    paths = [spec for spec, model in models.items() if isinstance(model, (StudentEncoder, Artefact))]
    sizes: dict[str, int] = {}
    others: dict[str, Callable[[], Encoder]] = {
        spec: partial(_as_it_runs, spec, files.shown, f"--artefact {spec}", sizes)
        for spec, model in models.items() if spec not in paths and model is not None}
    if teacher is not None:
        stages_of.setdefault(teacher, []).append(stages[0])
        if teacher in models:
            pass  # the other stage that it is
        elif is_folder(teacher):
            paths.append(teacher)
        else:
            others[teacher] = partial(_as_it_runs, teacher, shown, f"--teacher {teacher}", sizes)
    for timing in bench(paths, seconds=SECONDS, others=others) if timed else ():
        for stage in stages_of[timing.name]:
            stage.values |= costs(replace(timing, size_bytes=sizes.get(timing.name, timing.size_bytes)))
    for spec, same in stages_of.items() if not timed else ():
        model = models.get(spec) or (others[spec]() if spec in others else load_student(spec, "cpu"))
        for stage in same:
            stage.values["size_bytes"] = _size(sizes.get(spec) or bytes_of(model))


def _size(count: int) -> Value:
    return Value(count, None, None, 1, "Bytes of the file, or of parameters and buffers.", "bytes")


def costs(timing: Timing) -> dict[str, Value]:
    """The values of one timing."""
    how = (f"of a call with one image, {timing.runtime} on one thread, in turn with the other stages; decoding and resizing "
           "are left out")
    found = {"size_bytes": _size(timing.size_bytes),
             "latency_ms": Value(timing.median_ms, None, None, timing.calls, f"Median milliseconds {how}.", "ms"),
             "p90_ms": Value(timing.p90_ms, None, None, timing.calls, f"90th percentile of the milliseconds {how}.", "ms")}
    if timing.peak_mib is not None:
        found["peak_mib"] = Value(timing.peak_mib, None, None, 1,
                                  "MiB that loading and calling it adds to a process at its peak.", "MiB")
    return found


def add_ids(stages: Sequence[Stage], ids: np.ndarray) -> None:
    """The ids (n,) of the items into the stages' worst."""
    for stage in stages:
        stage.worst = [replace(item, id=str(ids[item.row])) for item in stage.worst]


def pictures(stages: Sequence[Stage], source: Source) -> dict[str, np.ndarray]:
    """Images (h, w, 3) uint8 of the stages' worst items by their ids, of those that the source has."""
    wanted = {item.id for stage in stages for item in stage.worst}
    return {str(name): source.image(i) for i, name in enumerate(source.ids) if str(name) in wanted}
