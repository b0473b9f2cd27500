"""A run directory -> tables in memory. Tolerant of what is missing, loud about what is broken.

Only complete trials are read (their ``complete.json`` is written last). A trial that has not finished is listed as
missing; one that says it is complete but cannot be read is listed as a problem. Neither stops the report.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import astuple, dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from distillscope.config.study import Study
from distillscope.errors import UserError
from distillscope.files.folders import is_archive
from distillscope.results import run_files
from distillscope.results.archive import provenance_of, read_archive
from distillscope.results.keys import FIT, MAPPED, OF_TRAIN, OLD_FIT, RANK, TRAIN_RANK
from distillscope.results.rows import COLUMNS, TEACHER
from distillscope.results.run_files import KINDS, Record, records_in, study_of, trials_of


@dataclass(frozen=True)
class Finished:
    """What one folder of trials/ or references/ holds, rows aside; a reference has neither arm nor seed."""

    folder: str
    dataset: str
    teacher: str
    target: str
    arm: str
    student: str
    seed: int | None
    curves: dict[str, dict[str, Any]]
    seconds: float | None = None
    warnings: tuple[str, ...] = ()
    fingerprint: Mapping[str, str] = field(default_factory=dict)  # of the data and the teacher; empty in older runs
    mapped: str = ""  # how the map of mapped.* was fitted

    @property
    def key(self) -> tuple[str, str, str, str, int | None]:
        """(data set, teacher, arm, student, seed), as the grid has it."""
        return self.dataset, self.teacher, self.arm, self.student, self.seed


@dataclass(frozen=True)
class Run:
    """What a run directory or an archive holds, and what could not be found or read in it.

    ``study`` is what study.yaml means, every default filled in, ``written`` what stands there. ``all_results`` has every row;
    `results` those of the test split.
    """

    path: Path
    study: Study
    written: dict[str, Any]
    provenance: dict[str, Any]
    all_results: pd.DataFrame
    trials: list[Finished]
    references: list[Finished]
    training: pd.DataFrame
    missing: list[str] = field(default_factory=list)
    unstarted: int = 0  # pairs of data set and teacher of which nothing has finished
    problems: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The study's name, else the folder's."""
        return self.study.name or self.path.name

    @property
    def results(self) -> pd.DataFrame:
        """Tidy rows, one a number measured on the test split; the teacher's have student = "teacher", no seed and no arm ("").

        What was measured on train images (`train.effective_rank`) is in ``all_results``.
        """
        return of_test(self.all_results).reset_index(drop=True)

    @property
    def summary(self) -> pd.DataFrame:
        """Over seeds: mean, sample std, t interval, n; the rows of summary.json."""
        from distillscope.results.summary import summarise

        return summarise(self.all_results, self.trials)

    @property
    def page(self) -> Path:
        """Where the run's page stands, or would."""
        return self.path / "report.html"

    @property
    def split(self) -> str:
        """The split that the study tests on; of several data sets, the first one's."""
        return measured_split(self.all_results)

    @property
    def mapped_fit(self) -> str:
        """How the map of mapped.* was fitted, in all trials alike; empty where nothing was mapped."""
        fits = {t.mapped for t in self.trials} - {""}
        return FIT if FIT in fits else "".join(sorted(fits)[:1])


def name_train_rank(frame: pd.DataFrame) -> pd.DataFrame:
    """The rank on train images under its own key, `train.effective_rank`.

    Runs before 2026-11-26 wrote it under the key of the rank on test images, where only `split` differs: it is the row on
    another split than the data set's other measures, or, where train and test share a name, the later of two.
    """
    measures, where = frame["measure"].tolist(), list(zip(frame["dataset"].tolist(), frame["split"].tolist(), strict=True))
    ranks = [i for i, measure in enumerate(measures) if measure == RANK]
    tested = {pair for pair, measure in zip(where, measures, strict=True) if measure != RANK and measure not in OF_TRAIN}
    if not ranks or not tested:
        return frame
    again = frame.iloc[ranks].duplicated(["dataset", "teacher", "student", "target", "arm", "seed", "split", "condition",
                                          "draw"]) if len(ranks) > 1 else [False]
    on_train = {i for i, later in zip(ranks, again, strict=True) if later or where[i] not in tested}
    if not on_train:
        return frame
    return frame.assign(measure=[TRAIN_RANK if i in on_train else measure for i, measure in enumerate(measures)])


def of_test(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows that were measured on the split that the study tests on."""
    return frame[~frame["measure"].isin(OF_TRAIN)]


def measured_split(frame: pd.DataFrame) -> str:
    """The name of the split that the rows were measured on, those of train images aside; "test" where there are none."""
    splits = of_test(frame)["split"].unique().tolist()
    return "test" if "test" in splits or not splits else splits[0]


def _trial_of(record: Record) -> tuple[pd.DataFrame, Finished]:
    results, done = name_train_rank(record.results), record.complete
    if results.empty:
        raise ValueError("results.csv has no rows")
    own = results[results["student"] != TEACHER]
    row = (own if len(own) and record.kind == "trials" else results).iloc[0]
    trial = Finished(record.folder, row["dataset"], row["teacher"], row["target"], row["arm"], row["student"],
                     None if pd.isna(row["seed"]) else int(row["seed"]), record.curves,
                     done.seconds, tuple(done.warnings or ()), done.fingerprint or {}, _mapped_fit(results, done.mapped))
    return results, trial


def _mapped_fit(results: pd.DataFrame, fit: str | None) -> str:
    """How the map of mapped.* was fitted; empty where nothing was mapped."""
    return (fit or OLD_FIT) if results["measure"].str.startswith(MAPPED).any() else ""


def _one_fit(frames: list[pd.DataFrame], trials: list[Finished]) -> list[str]:
    """Values of mapped.* by the old fit are left out of a run that has newer ones beside them: what was left out, said."""
    old = [t for t in trials if t.mapped == OLD_FIT]
    if not old or len(old) == sum(bool(t.mapped) for t in trials):
        return []
    for trial in old:
        frame = frames[trials.index(trial)]
        frame.drop(frame.index[frame["measure"].str.startswith(MAPPED)], inplace=True)
    return [f"trials/{t.folder}: its mapped.* were {OLD_FIT} (older version) and are left out beside newer ones. Delete the "
            "trial and run with --resume to make them again." for t in old]


def _training_of(record: Record, trial: Finished) -> list[dict[str, Any]]:
    """The trial's record of each epoch."""
    return [{**row, "dataset": trial.dataset, "teacher": trial.teacher, "target": trial.target,
             "arm": trial.arm, "student": trial.student, "seed": trial.seed} for row in record.epochs]


def read_run(run_dir: Path) -> Run:
    """Read a run directory, or its archive. Raises UserError when it is neither; a partial run is fine."""
    run_dir = Path(run_dir)
    config = study_of(run_dir)
    written, problems = run_files.read_written(config), []
    study = run_files.as_study(written, config)
    try:
        provenance = provenance_of(run_dir)
    except UserError as error:
        provenance = {}
        problems.append(f"provenance.json: {_why(error)}, so versions, command and noise in both units are not known.")
    records = read_archive(run_dir) if is_archive(run_dir) else {kind: records_in(run_dir / kind) for kind in KINDS}
    frames, training = [], []
    found: dict[str, list[Finished]] = {kind: [] for kind in KINDS}
    unfinished = []
    for kind, kept in found.items():
        known: dict[tuple, str] = {}
        for name, record in records[kind]:
            if record is None:
                unfinished.append(name)
                continue
            try:
                if isinstance(record, Exception):
                    raise record
                results, trial = _trial_of(record)
            except (UserError, OSError, ValueError, KeyError) as error:
                problems.append(f"{kind}/{name}: says that it is complete, but cannot be read ({_why(error)}). "
                                "Delete it and run with --resume.")
                continue
            other = known.setdefault((*trial.key, trial.target if kind == "references" else ""), name)
            if other != name:
                problems.append(f"{kind}/{name}: is of the same trial as {other}, and is left out. Delete one of the two.")
                continue
            if record.broken_lines:
                problems.append(f"{kind}/{name}: {record.broken_lines} line{'s' * (record.broken_lines > 1)} of metrics.jsonl "
                                "cannot be read and "
                                f"{'are' if record.broken_lines > 1 else 'is'} left out of the training log.")
            frames.append(results)
            kept.append(trial)
            training += _training_of(record, trial)

    problems += _one_fit(frames[len(found["references"]):], found["trials"])
    results = pd.concat(frames, ignore_index=True) if frames else read_empty()
    results = results.drop_duplicates(ignore_index=True)  # trials may repeat the teacher's rows
    pairs = list(dict.fromkeys((t.dataset, t.teacher) for t in found["references"] + found["trials"]))
    missing = _missing(study, pairs, {t.key for t in found["trials"]})
    missing += [name for name in unfinished if name not in missing]
    planned = len(study.data) * len(study.teacher)
    return Run(run_dir, study, written, provenance, results, found["trials"], found["references"], pd.DataFrame(training),
               missing, max(0, planned - len(pairs)), problems)


def _missing(study: Study, pairs: list[tuple[str, str]], done: set[tuple]) -> list[str]:
    """The folders of the trials that have not finished, of data sets and teachers that were begun."""
    arms, students = ([getattr(p, name) for p in parts] for parts, name in ((study.arms, "name"), (study.students, "label")))
    absent = [t for t in trials_of(study) if (t.dataset, t.teacher) in pairs and astuple(t) not in done]
    absent.sort(key=lambda t: (pairs.index((t.dataset, t.teacher)), arms.index(t.arm), students.index(t.student)))
    return [t.id for t in absent]


def _why(error: Exception) -> str:
    """What was wrong with a file, in brackets' length."""
    if isinstance(error, UserError):
        return f"{Path(error.where).name}: expected {error.expected}, got {error.got}"
    return (str(error).splitlines() or [type(error).__name__])[0]


def read_empty() -> pd.DataFrame:
    """Results without a row, with the columns and types of `run_files.read_results`."""
    frame = pd.DataFrame({c: pd.Series(dtype=str) for c in COLUMNS})
    return frame.astype({"value": float, "seed": "Int64", "draw": "Int64", "n": "Int64"})
