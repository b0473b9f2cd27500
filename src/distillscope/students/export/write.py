"""From a student's folder to a file for devices: converted, verified by its own runtime, and only then written."""

from __future__ import annotations

import functools
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import distillscope
from distillscope import progress
from distillscope.data.source import Source
from distillscope.errors import UserError, unknown_name
from distillscope.files.folders import check_absent
from distillscope.files.writing import write_atomic
from distillscope.students.export.fine_tune import TUNED_ON, tuning_of
from distillscope.students.export.images import (
    CALIBRATED,
    CHOOSING,
    ENLARGED,
    VERIFIED,
    enlarged,
    named_images,
    own_images,
    parts_of,
    pixels_of,
)
from distillscope.students.export.load import load_artefact, name_of_weights
from distillscope.students.export.runtimes import INPUTS, PRECISIONS, RUNTIMES, Converted, Job, Runtime
from distillscope.students.export.verify import BOUNDS, Agreement, agreement, held, network_rows, spread_held
from distillscope.students.hub import named_by_hub, student_folder
from distillscope.students.load import load_student
from distillscope.teachers.artefacts import Facts

MIN_COSINE = 0.99
QAT_STEPS, MOST_STEPS = 300, 100_000
LICENCE = "other: follows from the licences of the teacher's weights and of the images"


@dataclass(frozen=True)
class Exported:
    """One file that was written: how it agrees with the network on images that nothing was chosen on, and what was decided."""

    path: Path
    facts: Facts
    batch: int | None
    size_bytes: int
    agreement: Agreement
    images: str
    decided: dict[str, Any]

    def plain(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {"path": str(self.path), "bytes": self.size_bytes, "batch": self.batch, "mean_cosine": self.agreement.mean,
                "worst_cosine": self.agreement.worst, "r2": self.agreement.r2, "images": self.images,
                "n": len(self.agreement.ids), "metadata": self.facts.text(), **self.decided}


def export_student(folder: Path | str, out: Path | str, *, to: str = "onnx", precision: str = "float32", input: str = "sized",
                   calibrate: str | None = None, split: str | None = None, corrupt: str | None = None,
                   min_cosine: float | None = None, qat: bool = False, qat_steps: int | None = None,
                   licence: str = LICENCE) -> list[Exported]:
    """Export the student of a folder to ``out``; beside a dynamic file stands one of batch 1, NAME.batch1.SUFFIX (sized input).

    The images are the student's own unless ``calibrate`` names others (``split`` of them, by default train; ``corrupt``:
    "skip" leaves out what cannot be decoded): 256 are shown to the file's runtime and to the network, and nothing is written
    where a cosine falls below the bound (worst 0.9999 in float32, 0.999 in float16; in int8 the *mean* must reach
    ``min_cosine``, 0.99), or R2 of the network's embeddings (0.999, 0.99, 0.5). In int8 calibration and choices are made on
    other images than those. ``qat``: before that the weights are tuned to being rounded, for ``qat_steps`` (300), towards the
    student's own embeddings.
    ``to``: onnx, openvino, executorch, litert or coreml; ``precision``: float32, float16 or int8;
    ``input``: "sized", uint8 (b, size, size, 3), or "raw", any size; ``licence`` goes into the metadata. What the file's
    runtime does not bear out is a `UserError`, and nothing is left of it.

    >>> export_student("student", "student.onnx")[0].agreement.mean   # doctest: +SKIP
    0.9999999
    """
    out = Path(out)
    _check_names(to, precision, input)
    _check_needed(precision, calibrate, split, corrupt, min_cosine, qat, qat_steps)
    min_cosine, qat_steps = MIN_COSINE if min_cosine is None else min_cosine, qat_steps or QAT_STEPS
    named = None if calibrate is None else functools.partial(named_images, calibrate, split or "train", corrupt or "error")
    runtime = RUNTIMES[to]
    runtime.check(precision, input)
    check_out(out, runtime, input)
    name, folder = folder, student_folder(folder)
    with (progress.late_task(f"export {out.name}", 3, "steps: images, conversion, verification") as advance,
          tempfile.TemporaryDirectory(prefix="distillscope-export-") as scratch):
        with named_by_hub(name, folder):
            job = _job(folder, precision, input, licence, named, min_cosine, qat_steps if qat else None)
        advance(1)
        converted = list(runtime.convert(job, Path(scratch) / out.name))
        advance(1)
        verified = [_verified(job, made) for made in converted]
        advance(1)
        _put([made.path.with_suffix(suffix) for made in verified for suffix in reversed(runtime.suffixes)], out.parent)
    return [Exported(out.parent / m.path.name, m.facts, m.batch, m.size_bytes, m.agreement, m.images, m.decided)
            for m in verified]


def _job(folder: Path, precision: str, images: str, licence: str, named: Callable[[int], Source] | None,
         min_cosine: float, qat_steps: int | None) -> Job:
    """The student with what is to be said of its file, and the images that it is made and verified with: so many of those
    that were ``named``, else of its own."""
    student = load_student(folder, "cpu")
    count = VERIFIED + CHOOSING + CALIBRATED
    read = named or functools.partial(own_images, folder)
    source = read(count)
    calibration, choosing, verification = parts_of(source, precision == "int8")
    said = student.described or {}
    facts = Facts.model_validate({
        "distillscope": distillscope.__version__, "student": student.name, "teacher": str(said.get("teacher", "")),
        "dataset": str(said.get("dataset", "")), "weights_hash": name_of_weights(student), "licence": licence,
        "dimension": student.dim, "precision": precision, "input": images, "preprocessing": student.preprocess,
        "background": student.decoding.background, "exif": student.decoding.exif})
    own = _own(folder) if named is not None and precision == "int8" else None
    tuning = None
    if qat_steps is not None:
        tuning = tuning_of(folder, student, read(count + TUNED_ON), (choosing, verification), verification, qat_steps)
    return Job(student, facts, calibration, choosing, verification, min_cosine, own, tuning)


def _check_names(to: str, precision: str, images: str) -> None:
    """Refuse what is no name of these."""
    for option, kind, given, known in (("--to", "runtime", to, list(RUNTIMES)), ("--input", "kind of input", images, INPUTS),
                                       ("--precision", "precision", precision, PRECISIONS)):
        if given not in known:
            raise unknown_name(option, kind, given, known)


def _check_needed(precision: str, calibrate: str | None, split: str | None, corrupt: str | None,
                  min_cosine: float | None, qat: bool, qat_steps: int | None) -> None:
    """Refuse values out of range, and an option that would be ignored for want of another."""
    if min_cosine is not None and not 0 < min_cosine < 1:
        raise UserError("--min-cosine", "a number between 0 and 1", f"{min_cosine:g}", f"{MIN_COSINE} is usual.")
    if qat and precision != "int8":
        raise UserError("--qat", "--precision int8, which it tunes the weights for", precision, "Add --precision int8.")
    if qat_steps is not None and not 1 <= qat_steps <= MOST_STEPS:
        raise UserError("--qat-steps", f"a whole number from 1 to {MOST_STEPS}", f"{qat_steps}", f"{QAT_STEPS} are usual.")
    for option, given, needs, there in (("--split", split, "--calibrate DATA", calibrate is not None),
                                        ("--corrupt", corrupt, "--calibrate DATA", calibrate is not None),
                                        ("--min-cosine", min_cosine, "--precision int8", precision == "int8"),
                                        ("--qat-steps", qat_steps, "--qat", qat)):
        if given is not None and not there:
            raise UserError(option, f"{needs} with it", f"{option} alone", f"Add {needs}, or leave it out.")


def _put(files: list[Path], folder: Path) -> None:
    """All files, or none: what was put is taken away again where the next cannot be, or Ctrl-C comes between."""
    placed: list[Path] = []
    try:
        for file in files:
            placed.append(folder / file.name)
            if file.is_dir():
                with tempfile.TemporaryDirectory(prefix=f".{file.name}.", dir=folder) as beside_it:
                    shutil.copytree(file, Path(beside_it) / file.name).rename(placed[-1])
            else:
                write_atomic(placed[-1], functools.partial(shutil.copyfile, file))
    except BaseException:
        for path in placed:
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        raise


def _own(folder: Path) -> Source | None:
    """Images that the student was distilled on, to see whether those that were named are like them; None out of reach."""
    try:
        return own_images(folder, CHOOSING)
    except UserError as error:
        progress.say(f"export {folder}: we cannot tell whether these images are like those of its training ({error.got})")
        return None


def _verified(job: Job, made: Converted) -> Exported:
    """What the file's own runtime gives for the images that nothing was chosen on; below the bound it is refused."""
    pixels = pixels_of(job.verification, job.student.preprocess)
    rows, images = network_rows(job.student, pixels), f"{job.verification.name}/{job.verification.split}"
    if made.source is not None:
        found = Agreement.of(made.source(pixels), rows, job.verification.ids)
        held(found, job.facts.precision, f"export {made.path.name}", made.explain)
        spread_held(found, job.facts.precision, f"export {made.path.name}")
        size = sum(f.stat().st_size for f in made.path.rglob("*") if f.is_file())
        return Exported(made.path, job.facts.but(batch="1", layout="RGB image"), 1, size, found, images, made.decided)
    artefact = load_artefact(made.path, job.student)
    found = agreement(artefact, job.verification, pixels, rows)
    if job.facts.input == "raw":  # stored images may all be small, or all be large: the resizing is seen both ways
        large = enlarged(job.verification.take(range(ENLARGED)), job.student.preprocess.size)
        pixels = pixels_of(large, job.student.preprocess)
        found = found.joined(agreement(artefact, large, pixels, network_rows(job.student, pixels)))
    where, precision = f"export {made.path.name}", job.facts.precision
    if precision in BOUNDS:
        held(found, precision, where, made.explain)
    elif not found.mean >= job.min_cosine:
        raise UserError(where, f"mean cosine {job.min_cosine} to the network on {len(found.ids)} images kept apart",
                        f"{found.mean:.6f}", "Nothing was written. Give more images (--calibrate), or a lower --min-cosine.")
    spread_held(found, precision, where)
    return Exported(made.path, artefact.facts, artefact.batch, artefact.size_bytes, found, images, made.decided)


def check_out(out: Path, runtime: Runtime, images: str) -> None:
    """Refuse a place that cannot be written to, or where something is, before any work."""
    suffix = runtime.suffixes[0]
    if out.suffix != suffix:
        raise UserError(f"--out {out}", f"a name that ends in {suffix}", f"'{out.suffix}'",
                        f"Name it {out.stem or 'student'}{suffix}.")
    if not out.parent.is_dir():
        raise UserError(f"--out {out}", "a folder that exists", f"no {out.parent}", "Make it first.")
    for path in runtime.places(out, images):
        check_absent(f"--out {out}", path)
