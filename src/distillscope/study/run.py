"""A study: the grid of trials -> a run directory.

>>> import distillscope
>>> study = distillscope.load_preset("quickstart")
>>> run = distillscope.run_study(study, "runs/quickstart")   # doctest: +SKIP
>>> run.results.query("measure == 'student.effective_rank'")   # doctest: +SKIP
"""

from __future__ import annotations

import json
import os
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from distillscope import progress, registry
from distillscope.config.load import study_from
from distillscope.config.parts import Dataset, Part, Teacher
from distillscope.config.resolve import with_noise
from distillscope.config.study import Study
from distillscope.data.source import Looked
from distillscope.data.splits import Splits, load_splits
from distillscope.devices import choose_device
from distillscope.errors import UserError
from distillscope.files.locks import RunLock, join_as_worker
from distillscope.files.writing import said_if_deleted, write_json
from distillscope.processes.workers import run_in_workers
from distillscope.provenance import provenance
from distillscope.results.run import of_test, read_run
from distillscope.results.rundir import (
    Trial,
    as_begun,
    clear_run,
    default_run,
    is_complete,
    json_object,
    load_config,
    open_run,
    read_done,
    reference_folder,
    trial_folder,
    trials_of,
)
from distillscope.stress.run import rehearse
from distillscope.study.keepsakes import keep_run
from distillscope.study.preflight import check_data, check_study, check_teacher
from distillscope.study.prepared import (
    Prepared,
    fingerprint,
    fitted_target,
    noise_conditions,
    prepare_targets,
)
from distillscope.study.reference import run_reference
from distillscope.study.trial import run_trial
from distillscope.teachers.cache import cache_root
from distillscope.teachers.rows import load_teacher


@dataclass(frozen=True)
class Run:
    """A run directory, read."""

    path: Path
    study: Study

    @property
    def results(self) -> pd.DataFrame:
        """Tidy rows, one a number measured on the test split; the teacher's own have student = "teacher", no seed and no arm ("").

        What was measured on train images (`train.effective_rank`) is in `all_results`.
        """
        return of_test(self.all_results).reset_index(drop=True)

    @property
    def all_results(self) -> pd.DataFrame:
        """`results`, and what was measured on train images. A trial that cannot be read is left out, with a warning."""
        return self._read().results

    @property
    def summary(self) -> pd.DataFrame:
        """Over seeds: mean, sample std, t interval, n; the rows of summary.json."""
        from distillscope.results.summary import summarise

        run = self._read()
        return summarise(run.results, run.trials)

    def _read(self):
        """The directory as the report reads it."""
        run = read_run(self.path)
        for problem in run.problems:
            warnings.warn(problem, stacklevel=3)
        if run.results.empty:
            raise UserError(str(self.path), "finished trials", "none", "Finish it with `distillscope run ... --resume`.")
        return run

    @property
    def page(self) -> Path:
        return self.path / "report.html"

    def student(self, label: str, seed: int | None = None, arm: str | None = None):
        """A distilled student of the run, ready to use."""
        from distillscope.students.load import load_student

        for trial in trials_of(self.study):
            if trial.student == label and seed in (None, trial.seed) and arm in (None, trial.arm):
                return load_student(trial_folder(self.path, trial))
        raise UserError(f"{self.path}", "a student of the run", f"'{label}'", f"Known: {', '.join(s.label for s in self.study.students)}.")

    def __repr__(self) -> str:
        done = sum(is_complete(trial_folder(self.path, t)) for t in trials_of(self.study))
        return f"Run('{self.path}', {done} of {len(trials_of(self.study))} trials finished)"


def load_study(path: Path | str) -> Run:
    """The run that a directory holds, finished or not."""
    return Run(Path(path), study_from(load_config(Path(path)), str(path)))


def load_data(study: Study, data: Dataset, known: Mapping[str, Looked] | None = None) -> Splits:
    """The splits of one of the study's data sets; ``known`` is what another process found in them (`Splits.looked`)."""
    setting = "data" if len(study.data) == 1 else f"data.{study.data.index(data)}"
    return load_splits(data.title, data.name, data.settings, train_split=data.train_split, test_split=data.test_split,
                       validation=study.validation, screen=study.screen, limit=study.limit, limit_test=study.limit_test, corrupt=study.corrupt,
                       setting=setting, known=known)


def run_study(study: Study, out: Path | str | None = None, *, resume: bool = False, device: str = "auto",
              precision: str | None = None, jobs: int | None = None, workers: int = 0, track: str | None = None,
              command: str | None = None, report: bool = True) -> Run:
    """Run every trial that is not finished yet, then write the report.

    ``jobs`` trials run at once, each in its own process (default: as many as there are cores on a CPU, one on a GPU).
    ``precision`` is that of teacher and students; losses and measures stay in float32 and float64.
    """
    began = time.monotonic()
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UserError("run", "one process, which runs whole trials side by side (--jobs)", f"{os.environ['WORLD_SIZE']} of a launcher",
                        "For one student over several processes: torchrun --nproc-per-node 2 -m distillscope.cli distill ...")
    check_study(study, track)
    run = Path(out) if out else default_run(study.name)
    chosen = choose_device(device)
    jobs = num_jobs(jobs, chosen, len(trials_of(study)))
    study = as_begun(study, run) if resume else study
    open_run(study, run, resume)
    held = RunLock(run)
    try:
        with said_if_deleted(run, cache_root()):
            clear_run(study, run)
            record = _begin_record(study, run, chosen, precision, command)
            try:
                _run_grid(with_noise(study), run, jobs, record, device, precision, track, workers)
            finally:
                if run.is_dir():
                    record["seconds"] = round(record["seconds"] + time.monotonic() - began, 1)
                    write_json(run / "provenance.json", record)
        if not (run / "study.yaml").is_file():
            raise UserError(str(run), "a run directory that stays while the run goes on", "deleted", "Run it again.")
    finally:
        held.release()
    if report:
        from distillscope.report.write import write_report

        write_report(run)
    return Run(run, study)


def _begin_record(study: Study, run: Path, device: torch.device, precision: str | None, command: str | None) -> dict[str, Any]:
    """provenance.json, written: of a resumed run with the time that it took before, and in the same precision."""
    conditions = {name: noise.both_units() for (name, _), noise in noise_conditions(with_noise(study)).items()}
    record = {**provenance(command, conditions, str(device), os.cpu_count() or 1), "precision": precision or "float32"}
    before = json_object(run / "provenance.json")
    other = before.get("precision", record["precision"])
    if other != record["precision"]:
        raise UserError(f"{run} --precision", f"{other} as when it was begun", record["precision"],
                        f"Repeat with --precision {other}, or into another --out.")
    seconds = before.get("seconds", 0.0)
    record["seconds"] = float(seconds) if isinstance(seconds, (int, float)) else 0.0
    write_json(run / "provenance.json", record)
    return record


def _run_grid(study: Study, run: Path, jobs: int, record: dict[str, Any], device: str, precision: str | None, track: str | None,
              workers: int) -> None:
    """What is not finished, for each data set and teacher in turn."""
    options = {"device": device, "precision": precision or "float32", "track": track, "workers": workers}
    for data in study.data:
        splits = load_data(study, data)
        if notes := {s.split: s.note for s in (splits.whole_train, splits.test) if s.note}:
            record.setdefault("images", {})[data.title] = notes
        check_data(study, splits)
        record["conditions"] |= rehearse(study.stresses, splits.train, splits.test, study.noise.seed)[1].conditions
        write_json(run / "provenance.json", record)
        for teacher in study.teacher:
            prepared = run_teacher(study, data, teacher, splits, run, device, precision)
            pending = [t for t in trials_of(study) if (t.dataset, t.teacher) == (data.title, teacher.title)
                       and not is_complete(trial_folder(run, t))]
            run_trials(study, data, splits, pending, prepared, run, jobs, options)
            keep_run(run, study, data.title, teacher.title, prepared[_key(study.target)].target_name, splits.test)


def num_jobs(jobs: int | None, device: torch.device, trials: int) -> int:
    """How many trials run at once: what was asked for, else one a core on a CPU (at most 8) and one on a GPU."""
    if jobs is not None and jobs < 1:
        raise UserError("--jobs", "a whole number from 1 up", str(jobs), "Leave it out for one a core.")
    return jobs or (1 if device.type != "cpu" else max(1, min(os.cpu_count() or 1, trials, 8)))


def run_teacher(study: Study, data: Dataset, teacher: Teacher, splits: Splits, run: Path, device: str,
                precision: str | None) -> dict[str, Prepared]:
    """The teacher's part: embed, fit the targets, measure what there is to lose. Target's YAML -> its embeddings."""
    encoder = load_teacher(teacher, device, precision)
    arms = list(study.arms)
    check_teacher(study, encoder, splits)
    parts = {_key(part): part for part in (study.target, *map(study.target_of, arms))}
    prepared = {key: prepare_targets(study, encoder, splits, part, [a for a in arms if _key(study.target_of(a)) == key])
                for key, part in parts.items()}
    _distinct_targets({key: p.target_name for key, p in prepared.items()}, parts)
    common = prepared[_key(study.target)].folder
    prepared = {key: replace(p, common=common) for key, p in prepared.items()}
    wanted = {"none": Part(name="none"), **{p.target_name: parts[key] for key, p in prepared.items()}}
    for name, part in wanted.items():
        folder = reference_folder(run, data.title, teacher.title, name)
        if is_complete(folder):
            _same_items(folder, fingerprint(encoder, splits))
        else:
            target = fitted_target(part, encoder, encoder.rows(splits.train))
            batch = next((study.training_of(a).batch_size for a in arms if study.target_of(a) == part), study.training.batch_size)
            run_reference(study, teacher.title, encoder, splits, target, folder, own=part == study.target, batch_size=batch)
    return prepared


def _distinct_targets(names: dict[str, str], parts: dict[str, Part]) -> None:
    """Two targets of one name and other settings would share the teacher's own results."""
    seen: dict[str, dict[str, Any]] = {}
    for key, name in names.items():
        part = parts[key]
        settings = {"name": part.name, **{k: p.default for k, p in registry.targets.settings(part.name).items()}, **part.settings}
        if seen.setdefault(name, settings) != settings:
            differs = next(k for k in settings if settings[k] != seen[name].get(k))
            raise UserError(f"target {name}", "one set of settings for it in a study", f"{differs} {seen[name].get(differs)} and {settings[differs]}",
                            "Run the arms of one of them as another study.")


def _same_items(folder: Path, now: dict[str, str]) -> None:
    """A resumed run goes on with the images and the weights that it was begun with: others under their names are refused."""
    before = read_done(folder).get("fingerprint")
    differs = [k for k, mark in now.items() if isinstance(before, dict) and before.get(k, mark) != mark]
    if differs:
        raise UserError(f"--resume {folder.parents[1]}", f"the {differs[0]} that it was begun with", "other ones under the same name",
                        "Put the old ones back, or run into another --out.")


def _key(part: Part) -> str:
    return json.dumps(part.model_dump(), sort_keys=True)


def run_trials(study: Study, data: Dataset, splits: Splits, pending: Sequence[Trial], prepared: dict[str, Prepared],
               run: Path, jobs: int, options: dict[str, Any]) -> None:
    """The pending trials, ``jobs`` at a time; a failed one lets the running ones end before it is raised."""
    arms = {a.name: a for a in study.arms}
    images = {t: study.training_of(arms[t.arm]).num_seen(len(splits.train)) for t in pending}

    def arguments(trial: Trial) -> tuple:
        return trial, prepared[_key(study.target_of(arms[trial.arm]))], trial_folder(run, trial)

    with progress.task(f"students {data.title}", sum(images.values())) as advance:
        if jobs == 1 or len(pending) == 1:
            for trial in pending:
                with progress.task(trial.id, images[trial]) as own:
                    def both(count: int, own=own) -> None:
                        own(count)
                        advance(count)

                    one, ready, folder = arguments(trial)
                    run_trial(study, one, splits, ready, folder, advance=both, **options)
            return
        # The widest students first: the last process to end then has the shortest trial.
        order = sorted(pending, key=lambda t: [s.label for s in study.students].index(t.student), reverse=True)
        threads = max(1, (os.cpu_count() or 1) // jobs)
        with _thread_limit(threads):
            run_in_workers([(t.id, (*arguments(t), options)) for t in order], jobs, _start, (study, data, splits.looked, run, threads), _in_process, advance)


@contextmanager
def _thread_limit(threads: int):
    """Processes started inside inherit a limit on the threads of every numerical library.

    Torch's own limit says nothing to NumPy's BLAS, and two processes that spin on more threads than there are cores
    spend most of their time waiting for one another.
    """
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(dict.fromkeys(names, str(threads)))
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.__setitem__(name, value)


_process: dict[str, Any] = {}


def _start(study: Study, data: Dataset, known: Mapping[str, Looked], run: Path, threads: int) -> None:
    """Of each worker process: its share of the run's lock, its threads, and the data, loaded once for all of its trials."""
    _process.update(study=study, lock=join_as_worker(run), splits=None)
    torch.set_num_threads(threads)
    _process["splits"] = load_data(study, data, known)


def _in_process(report: Callable[[int], None], trial: Trial, prepared: Prepared, folder: Path, options: dict[str, Any]) -> None:
    """One trial in a worker; what was trained is reported twice a second."""
    pending, last = 0, time.monotonic()

    def advance(count: int) -> None:
        nonlocal pending, last
        pending += count
        if time.monotonic() - last > 0.5:
            report(pending)
            pending, last = 0, time.monotonic()

    run_trial(_process["study"], trial, _process["splits"], prepared, folder, advance=advance, **options)
    report(pending)
