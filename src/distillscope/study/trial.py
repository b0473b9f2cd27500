"""One trial: distil a student, embed with it, measure what it lost, write it down."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from distillscope.config.parts import Remedy
from distillscope.config.study import Study
from distillscope.data.splits import Splits
from distillscope.distill.loop import distill
from distillscope.distill.streams import KeyedStreams
from distillscope.files.folder_names import folder_name
from distillscope.files.writing import make_folder, write_json
from distillscope.registry import remedies
from distillscope.results.keys import FIT
from distillscope.results.rows import Row, tidy
from distillscope.results.rundir import write_results
from distillscope.results.trials import Trial
from distillscope.students.load import StudentEncoder, save_student
from distillscope.study.measuring import Fitted, evaluate, fit_student, train_rank
from distillscope.study.prepared import Prepared
from distillscope.study.training import fresh_student, make_health, training_set


def run_trial(study: Study, trial: Trial, splits: Splits, prepared: Prepared, folder: Path, *, device: str = "auto",
              precision: str = "float32", track: str | None = None, workers: int = 0,
              advance: Callable[[int], None] = lambda count: None) -> None:
    """Everything of one trial, into ``folder``; ``advance`` counts training images."""
    began = time.monotonic()
    arm = next(a for a in study.arms if a.name == trial.arm)
    spec = study.student_of(arm, trial.student)
    settings = study.training_of(arm)
    make_folder(folder)
    student, streams = fresh_student(study, arm, spec, trial.seed, prepared, device, precision)
    history = distill(student, training_set(arm, trial.seed, splits, prepared), arm, settings, streams, folder,
                      make_health(splits, prepared), track=track, workers=workers, advance=advance)
    save_student(student, folder, {"target": prepared.target_name, "teacher": trial.teacher, "dataset": trial.dataset,
                                   "objective": arm.objective_name, "seed": trial.seed})
    prepared.copy_target(folder)
    fitted = fit_student(study, splits, student, streams)
    rows, curves, skipped = evaluate(study, splits, prepared, student, streams, fitted, folder)
    seconds = [Row.clean("train.seconds", history[-1]["seconds"], 1, "s")]
    head = {"study": study.name, "dataset": trial.dataset, "split": splits.test.split, "teacher": trial.teacher,
            "student": trial.student, "target": prepared.target_name, "objective": arm.objective_name, "seed": trial.seed,
            "arm": trial.arm}
    table = tidy(head, rows + seconds) + tidy({**head, "split": splits.train.split}, [train_rank(fitted.train)])
    for remedy in study.remedies:
        more, why = apply_remedy(study, remedy, splits, prepared, student, streams, fitted,
                                 folder / "remedies" / folder_name(remedy.title))
        table += tidy({**head, "arm": f"{trial.arm}+{remedy.title}"}, more + seconds if more else [])
        skipped += why
    (folder / "checkpoint.pt").unlink(missing_ok=True)
    write_results(folder, table, curves, {
        "trial": asdict(trial), "seconds": round(time.monotonic() - began, 1), "skipped": skipped, "mapped": FIT,
        "warnings": [w for record in history for w in record["warnings"]]})


def apply_remedy(study: Study, remedy: Remedy, splits: Splits, prepared: Prepared, student: StudentEncoder,
                 streams: KeyedStreams, fitted: Fitted, folder: Path) -> tuple[list[Row], list[str]]:
    """Rows of the student as the remedy leaves it, and what was left out.

    The untouched student's own probes judge it, unless the remedy says that they must be fitted anew (``fits_probes``).
    """
    changed = remedies.call(remedy.name, remedy.settings, student, splits.train, streams.seed, where=f"remedies.{remedy.name}")
    if isinstance(changed, str):
        return [], [f"remedy {remedy.title}: {changed}"]
    save_student(changed, folder, {"remedy": remedy.model_dump(mode="json")})
    if remedies.facts(remedy.name).fits_probes:
        fitted = fit_student(study, splits, changed, streams)
    rows, curves, skipped = evaluate(study, splits, prepared, changed, streams, fitted, folder)
    write_json(folder / "curves.json", curves)
    return rows, [f"{remedy.title}: {why}" for why in skipped]
