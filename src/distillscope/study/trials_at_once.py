"""Trials side by side: how many, each in its own process, with its share of the threads."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from distillscope import progress
from distillscope.config.parts import Dataset
from distillscope.config.study import Study
from distillscope.data.source import Looked
from distillscope.data.splits import Splits
from distillscope.files.locks import join_as_worker
from distillscope.processes.workers import run_in_workers
from distillscope.results.rundir import Trial, trial_folder
from distillscope.study.prepared import Prepared
from distillscope.study.splits import load_data
from distillscope.study.teacher import target_key
from distillscope.study.trial import run_trial


def num_jobs(jobs: int | None, device: torch.device, trials: int) -> int:
    """How many trials run at once: what was asked for, else one a core on a CPU (at most 8) and one on a GPU."""
    return jobs or (1 if device.type != "cpu" else max(1, min(os.cpu_count() or 1, trials, 8)))


def run_trials(study: Study, data: Dataset, splits: Splits, pending: Sequence[Trial], prepared: dict[str, Prepared],
               run: Path, jobs: int, options: dict[str, Any]) -> None:
    """The pending trials, ``jobs`` at a time; a failed one lets the running ones end before it is raised."""
    arms = {a.name: a for a in study.arms}
    images = {t: study.training_of(arms[t.arm]).num_seen(len(splits.train)) for t in pending}

    def arguments(trial: Trial) -> tuple:
        return trial, prepared[target_key(study.target_of(arms[trial.arm]))], trial_folder(run, trial)

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
            run_in_workers([(t.id, (*arguments(t), options)) for t in order], jobs, _start,
                           (study, data, splits.looked, run, threads), _in_process, advance)


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
