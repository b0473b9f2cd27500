"""A study: the grid of trials -> a run directory.

>>> import distillscope
>>> study = distillscope.load_preset("quickstart")
>>> run = distillscope.run_study(study, "runs/quickstart")   # doctest: +SKIP
>>> run.results.query("measure == 'student.effective_rank'")   # doctest: +SKIP
"""

from __future__ import annotations

import functools
import os
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch

from distillscope import progress
from distillscope.config.parts import READ, Dataset
from distillscope.config.resolve import with_noise
from distillscope.config.study import Arm, Study
from distillscope.data.looking import Looked
from distillscope.data.origin import kept_of
from distillscope.data.preprocess import Preprocess
from distillscope.data.splits import Splits
from distillscope.devices import choose_device
from distillscope.errors import UserError, unknown_name
from distillscope.files.folders import KEEP_GIB, cache_root
from distillscope.files.locks import RunLock, alone, join_as_worker
from distillscope.files.remote import is_url
from distillscope.files.writing import make_folder, said_if_deleted, sweep, write_json
from distillscope.processes.engine import LOCAL, Engine
from distillscope.processes.workers import run_in_workers
from distillscope.provenance import provenance
from distillscope.results.run import Run as ReadRun
from distillscope.results.run import read_run
from distillscope.results.run_files import trials_of
from distillscope.results.rundir import (
    Trial,
    clear_run,
    default_run,
    drop_if_unused,
    is_complete,
    json_object,
    open_run,
    trial_folder,
)
from distillscope.stress.subject import rehearse
from distillscope.study.keepsakes import keep_run
from distillscope.study.one_look import OneLook
from distillscope.study.preflight import Work, check_data, check_study
from distillscope.study.prepared import Prepared, as_begun, load_data, noise_conditions
from distillscope.study.run_at_url import RunAtUrl
from distillscope.study.teacher import run_teacher, target_key
from distillscope.study.trial import run_trial
from distillscope.teachers.encoder import load_teacher
from distillscope.training.stored_images import seen_by

if TYPE_CHECKING:
    from distillscope.processes.cluster import Cluster
    from distillscope.students.load import StudentEncoder


@dataclass(frozen=True, repr=False)
class Run(ReadRun):
    """A run, read, with its students ready to use."""

    @property
    def results(self) -> pd.DataFrame:
        """Tidy rows, one a number measured on the test split; a run without any finished trial is a `UserError`."""
        if self.all_results.empty:
            raise UserError(str(self.path), "finished trials", "none", "Finish it with `distillscope run ... --resume`.")
        return super().results

    def student(self, label: str, seed: int | None = None, arm: str | None = None) -> StudentEncoder:
        """A distilled student of the run, ready to use: the first in the grid of that ``label`` (and ``seed``, and ``arm``).

        What the study has not, or has not finished, is a `UserError`.
        """
        from distillscope.students.load import load_student

        trials = trials_of(self.study)
        for key, asked in (("student", label), ("seed", seed), ("arm", arm)):
            if asked is not None and asked not in (known := list(dict.fromkeys(getattr(t, key) for t in trials))):
                raise unknown_name(str(self.path), f"{key} of the run", str(asked), map(str, known))
        for trial in trials:
            if trial.student == label and seed in (None, trial.seed) and arm in (None, trial.arm):
                return load_student(trial_folder(self.path, trial))
        raise UserError(f"{self.path}", "a trial of the run", f"student '{label}', seed {seed}, arm {arm}",
                        "The study trains them apart: name another seed or arm.")

    def __repr__(self) -> str:
        return f"Run('{self.path}', {len(self.trials)} of {len(trials_of(self.study))} trials finished)"


def load_study(path: Path | str) -> Run:
    """The run that a directory or an archive at ``path`` holds, finished or not; what cannot be read in it is left out, with a
    warning. What is no run is a `UserError`.

    >>> run = load_study("runs/quickstart")   # doctest: +SKIP
    >>> run.results.query("measure == 'student.effective_rank'"), run.student("S")   # doctest: +SKIP
    """
    found = read_run(Path(path))
    for problem in found.problems:
        warnings.warn(problem, stacklevel=2)
    return Run(**{f.name: getattr(found, f.name) for f in fields(found)})


def run_study(study: Study, out: Path | str | None = None, *, resume: bool = False, device: str = "auto",
              precision: str | None = None, jobs: int | None = None, workers: int = 0, track: str | None = None,
              keep_images: float = KEEP_GIB, command: str | None = None, report: bool = True, engine: Engine = LOCAL,
              shard: str | None = None) -> Run:
    """Run every trial of ``study`` that is not finished yet, into ``out`` (runs/NAME; or a URL), then write the report.

    ``resume`` goes on with a run directory that is there. ``device``: "auto", "cpu", "cuda", ...; ``workers``: decoding
    processes for data that is streamed; images as students see them take up to ``keep_images`` GiB of the disk; ``track``:
    tensorboard, wandb or mlflow; ``command``: what provenance.json says was called; ``report=False`` leaves the page to
    `distillscope report`. All is checked before any work; what does not fit is a `UserError`. ``jobs`` trials run at once, each
    in its own process (default: one per core on a CPU, one on a GPU), or in a process of the cluster that ``engine`` names
    (default: as many as it has room for). ``shard`` "i/n" makes the i-th of n parts of the trials alone, each into a directory
    of its own, which `merge_runs` joins. ``precision`` is that of teacher and students; losses and measures stay in float32 and
    float64.

    >>> study = load_preset("quickstart", ["training.epochs=1"])   # doctest: +SKIP
    >>> run_study(study, "runs/quick", jobs=1).results   # doctest: +SKIP
    """
    if is_url(out):
        with RunAtUrl(str(out)).followed(resume) as folder:
            return run_study(study, folder, resume=resume, device=device, precision=precision, jobs=jobs, workers=workers,
                             track=track, keep_images=keep_images, command=command, report=report, engine=engine,
                             shard=shard)
    began = time.monotonic()
    run = Path(out) if out else default_run(study.name)
    work = Work(as_begun(study, run) if resume else study, run, resume, device, precision, jobs, track, workers, keep_images,
                engine, shard)
    check_study(work)
    study, chosen = work.study, choose_device(device)
    had_folder, had_run, refused = run.is_dir(), (run / "study.yaml").is_file(), False
    open_run(study, run, resume)
    held = RunLock(run)
    try:
        with said_if_deleted(run, cache_root()):
            clear_run(study, run)
            record = _begin_record(study, run, chosen, precision, command)
            try:
                at_once = jobs if engine.on_cluster else num_jobs(jobs, chosen, len(work.trials))
                with _cluster_of(work, chosen) as cluster:
                    if cluster:
                        record |= {"engine": str(engine), "nodes": cluster.nodes}
                    if shard:
                        record["shard"] = shard
                    _run_grid(replace(work, study=with_noise(study), jobs=at_once), record, cluster)
            finally:
                if run.is_dir():
                    record["seconds"] = round(record["seconds"] + time.monotonic() - began, 1)
                    write_json(run / "provenance.json", record)
        if not (run / "study.yaml").is_file():
            raise UserError(str(run), "a run directory that stays during the run", "deleted", "Run it again.")
    except UserError:
        refused = not (resume and had_run)
        raise
    finally:
        held.release()
        if refused:
            drop_if_unused(run, folder=not had_folder)
    if report:
        from distillscope.report.study_page import write_report

        write_report(run)
    return load_study(run)


def _begin_record(study: Study, run: Path, device: torch.device, precision: str | None, command: str | None) -> dict[str, Any]:
    """provenance.json, written: of a resumed run with the time that it took before."""
    conditions = {str(name): noise.both_units() for (name, _), noise in noise_conditions(with_noise(study)).items()}
    record = {**provenance(command, conditions, str(device), os.cpu_count() or 1), "precision": precision or "float32"}
    before = json_object(run / "provenance.json")
    seconds, read = before.get("seconds", 0.0), before.get(READ)
    record["seconds"] = float(seconds) if isinstance(seconds, (int, float)) else 0.0
    record[READ] = read if isinstance(read, dict) else {}
    write_json(run / "provenance.json", record)
    return record


@contextmanager
def _cluster_of(work: Work, device: torch.device) -> Iterator[Cluster | None]:
    """The cluster whose processes run the trials; None where those of this machine do."""
    if not work.engine.on_cluster:
        yield None
        return
    from distillscope.processes.cluster import connected

    assert work.run is not None
    with connected(work.engine, work.engine.cores(work.workers), work.engine.gpus_on(device.type),
                   (work.run, cache_root())) as cluster:
        yield cluster


def _run_grid(work: Work, record: dict[str, Any], cluster: Cluster | None) -> None:
    """What is not finished, for each data set and teacher in turn."""
    study, run = work.study, work.run
    assert run is not None
    options = {"device": work.device, "precision": work.precision or "float32", "track": work.track,
               "keep_images": work.keep_images}
    for data in filter(work.concerns, study.data):
        first = functools.cache(lambda: load_teacher(study.teacher[0], work.device, work.precision))
        look = OneLook(work, first, students_of(work, run, data), data.train_split)
        splits = load_data(study, data, workers=work.workers, keepers=look.keepers)
        if notes := {s.split: s.note for s in (splits.whole_train, splits.test) if s.note}:
            record.setdefault("images", {})[data.title] = notes
        check_data(work, splits)
        record.setdefault(READ, {})[data.title] = kept_of(data, splits.whole_train, run)
        record["conditions"] |= rehearse(study.stresses, splits.train, splits.test, study.noise.seed)[1].conditions
        write_json(run / "provenance.json", record)
        for teacher in (t for t in study.teacher if work.concerns(data, t)):
            encoder = first() if teacher is study.teacher[0] else load_teacher(teacher, work.device, work.precision)
            prepared = run_teacher(work, data, teacher, encoder, splits, run)
            pending = [t for t in work.trials if (t.dataset, t.teacher) == (data.title, teacher.title)
                       and not is_complete(trial_folder(run, t))]
            run_trials(work, data, splits, pending, prepared, options, cluster)
            keep_run(run, study, data.title, teacher.title, prepared[target_key(study.target)].target_name, splits.test)


def students_of(work: Work, run: Path, data: Dataset) -> list[tuple[Preprocess, Arm]]:
    """How the students of trials that are not finished see the images, with their arms."""
    study, found = work.study, []
    arms = {a.name: a for a in study.arms}
    for trial in work.trials:
        if trial.dataset == data.title and not is_complete(trial_folder(run, trial)):
            spec = study.student_of(arms[trial.arm], trial.student)
            found.append((Preprocess(spec.image_size, spec.mean, spec.std), arms[trial.arm]))
    return found


def num_jobs(jobs: int | None, device: torch.device, trials: int) -> int:
    """How many trials run at once: what was asked for, else one per core on a CPU (at most 8) and one on a GPU."""
    return jobs or (1 if device.type != "cpu" else max(1, min(os.cpu_count() or 1, trials, 8)))


def run_trials(work: Work, data: Dataset, splits: Splits, pending: Sequence[Trial], prepared: dict[str, Prepared],
               options: dict[str, Any], cluster: Cluster | None = None) -> None:
    """The pending trials, so many at a time as the work says; a failed one lets the running ones end before it is raised."""
    study, run, jobs = work.study, work.run, work.jobs
    assert run is not None
    arms = {a.name: a for a in study.arms}
    images = {t: study.training_of(arms[t.arm]).num_seen(len(splits.train)) for t in pending}

    def arguments(trial: Trial) -> tuple:
        return trial, prepared[target_key(study.target_of(arms[trial.arm]))], trial_folder(run, trial)

    with progress.task(f"students {data.title}", sum(images.values())) as advance:
        if not cluster and (jobs == 1 or len(pending) == 1):
            for trial in pending:
                with progress.task(trial.id, images[trial]) as own:
                    def both(count: int, own=own) -> None:
                        own(count)
                        advance(count)

                    one, ready, folder = arguments(trial)
                    run_trial(study, one, splits, ready, folder, advance=both, **options)
            return
        for trial in pending:  # made and verified once, here, for all processes
            spec = study.student_of(arms[trial.arm], trial.student)
            seen_by(Preprocess(spec.image_size, spec.mean, spec.std), splits, arms[trial.arm], work.keep_images)
        # The widest students first: the last process to end then has the shortest trial.
        order = sorted(pending, key=lambda t: [s.label for s in study.students].index(t.student), reverse=True)
        if cluster:
            there = {**options, "device": work.engine.device_on(choose_device(work.device).type)}
            cluster.run("trial", [(t.id, (*arguments(t), there)) for t in order], _start,
                        (work, data, splits.looked, cluster.cores), _on_node, jobs, advance)
            sweep(run / "trials", alone=True)
            return
        assert jobs is not None
        threads = max(1, (os.cpu_count() or 1) // jobs)
        with _thread_limit(threads):
            run_in_workers([(t.id, (*arguments(t), options)) for t in order], jobs, _start,
                           (work, data, splits.looked, threads), _in_process, advance)


@contextmanager
def _thread_limit(threads: int) -> Iterator[None]:
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


def _start(work: Work, data: Dataset, known: Mapping[str, Looked], threads: int) -> None:
    """Of each worker process: its share of the run's lock, its threads, and the data, loaded once for all of its trials."""
    assert work.run is not None
    _process.update(study=work.study, lock=join_as_worker(work.run), splits=None)
    torch.set_num_threads(threads)
    _process["splits"] = load_data(work.study, data, known, work.workers)


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


def _on_node(report: Callable[[int], None], trial: Trial, prepared: Prepared, folder: Path, options: dict[str, Any]) -> None:
    """The same on a cluster, where a process whose node is said to be dead may still be at the trial: first it must end."""
    with alone(make_folder(folder) / ".lock"):
        if not is_complete(folder):
            _in_process(report, trial, prepared, folder, options)
        (folder / ".lock").unlink(missing_ok=True)
