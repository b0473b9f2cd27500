"""A run directory: what a study writes, so that reports and later audits need no model.

::

    study.yaml          the resolved config          provenance.json   versions, commit, hardware, command
    references/ID/      the teacher's own results     trials/ID/        one trial; `folder_names` makes ID
    results.csv, summary.json, tables/, figures/, report.html          made from those by the report

A reference or trial counts once its ``complete.json`` exists, which is written last.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from distillscope import progress
from distillscope.config.study import Study, Training
from distillscope.errors import UserError
from distillscope.files.folders import (
    check_fresh,
    composed,
    folder_name,
    is_printable,
    old_folder_name,
    refuse_archive,
    same_on_some_systems,
)
from distillscope.files.json_reader import read_json
from distillscope.files.writing import sweep, write_atomic, write_json, write_text
from distillscope.results.rows import COLUMNS, TEACHER
from distillscope.results.run_files import COMPLETE, Trial, as_study, read_written, trials_of
from distillscope.results.same_study import item_name, unlike

NO_LABELS = "the data has no labels"
"""In what complete.json of a reference says was skipped: how it is known that a run was begun without labels."""


def is_complete(folder: Path) -> bool:
    return (folder / COMPLETE).is_file()


def trial_folder(run: Path, trial: Trial) -> Path:
    return _own_folder(run / "trials", trial.parts, lambda done: done.get("trial") == asdict(trial))


def reference_folder(run: Path, data: str, teacher: str, target: str) -> Path:
    """The teacher's own results on that data set, as that target shows them."""
    own = {"dataset": data, "teacher": teacher, "target": target}
    return _own_folder(run / "references", (data, teacher, target), lambda done: own.items() <= done.items())


def _own_folder(root: Path, parts: tuple[str, ...], is_its: Callable[[dict], bool]) -> Path:
    """The folder of these parts; in an older run the one under its old name, if what it holds is its own."""
    folder, older = root / folder_name(*parts), root / old_folder_name(*parts)
    if folder == older or folder.exists() or not is_complete(older):
        return folder
    return older if is_its(read_done(older)) else folder


def read_done(folder: Path) -> dict[str, Any]:
    """What complete.json says; nothing where it cannot be read."""
    return json_object(folder / COMPLETE)


def json_object(path: Path) -> dict[str, Any]:
    """A JSON object; nothing where there is none that can be read."""
    try:
        return read_json(path)
    except UserError:
        return {}


def default_run(name: str) -> Path:
    """Where a study of that name goes by default: one folder in ``runs``, whatever the name holds.

    >>> default_run("mine").as_posix(), default_run("../../mine").as_posix()
    ('runs/mine', 'runs/_.._.._mine~4fc6ecbf70')
    """
    older = Path("runs") / name
    own = Path(name).name == name and name not in (".", "..") and (older / "study.yaml").is_file()
    return older if own else Path("runs") / folder_name(name)


def check_names(study: Study) -> None:
    """Refuse names that tables, terminals or some file systems would take for one another."""
    arms, remedies = [a.name for a in study.arms], [r.title for r in study.remedies]
    for key, what, names, todo in (
        ("data", "data set", [d.title for d in study.data], "alias"),
        ("teacher", "teacher", [t.title for t in study.teacher], "label"),
        ("students", "student", [s.label for s in study.students], "label"), ("arms", "arm", arms, "name"),
        ("remedies", "remedy", remedies, "label"), ("name", "study", [study.name], "name"),
    ):
        seen: dict[str, str] = {}
        for name in names:
            if not is_printable(name):
                raise UserError(f"{key} {name!r}", "a name of visible characters", "one without, or with control characters",
                                f"Give it another ({todo}: ...).")
            other = seen.setdefault(same_on_some_systems(name), name)
            if other != name or names.count(name) > 1:
                raise UserError(key, f"each {what} under a name of its own, also where upper and lower case are one",
                                f"'{other}' and '{name}'", f"Rename one ({todo}: ...).")
    both = sorted({f"{a}+{r}" for a in arms for r in remedies} & set(arms))
    if both:
        raise UserError("arms", "no arm named as a remedied one is (ARM+REMEDY)", f"'{both[0]}'", "Rename it (name: ...).")
    if any(composed(s.label) == TEACHER for s in study.students):
        raise UserError("students", "a label other than the teacher's own rows have", "'teacher'", "Rename it (label: ...).")


def check_folder(study: Study, run: Path, resume: bool, taken: str = "Add --resume to continue it, or name another.") -> None:
    """Check that the directory is new, or holds the same study and may go on; ``taken`` says what to do where neither is so."""
    refuse_archive(run, f"--out {run}")
    config = run / "study.yaml"
    check_fresh(f"--out {run}", run, taken, going_on=resume)
    if config.exists():
        before, now = load_config(run), study.dump()
        before = {**before, "data": _unlabelled_as_begun(before.get("data"), study, run)}
        for found in unlike(before, now):
            raise UserError(f"{run} {found.key}", f"{json.dumps(before.get(found.key))[:120]} as when it started",
                            json.dumps(now.get(found.key))[:120], "Run it with the old value, or into another --out.")
    elif resume and run.exists() and any(run.iterdir()):
        raise UserError(f"--resume {run}", "a study's directory (with study.yaml)", "another one", "Name another --out.")


def open_run(study: Study, run: Path, resume: bool, **taken: str) -> None:
    """Make the directory, or check that the one there holds the same study and may go on (``taken`` as of `check_folder`)."""
    check_names(study)
    check_folder(study, run, resume, **taken)
    write_text(run / "study.yaml", yaml.safe_dump(study.dump(), sort_keys=False, allow_unicode=True))


def drop_if_unused(run: Path, folder: bool) -> None:
    """Remove what `open_run` left where nothing was computed after it, and the folder itself with ``folder``.

    The same command can then be given again as it is. The locks go last: until then no other run takes the directory for empty.
    """
    opened = ("study.yaml", "provenance.json", ".workers", ".lock")
    with suppress(OSError):
        if {p.name for p in run.iterdir()} <= set(opened):
            for name in opened:
                (run / name).unlink(missing_ok=True)
            if folder:
                run.rmdir()


def as_begun(study: Study, run: Path) -> Study:
    """The study with what its run was begun with, where leaving that out has come to mean something else since; and it says so.

    A student without ``hidden`` had a hidden layer as wide as the target. An arm's ``training`` replaced the study's: what it
    left out had the program's default, not the study's value.
    """
    if not (run / "study.yaml").is_file():
        return study
    begun = load_config(run)
    return _training_as_begun(_hidden_as_begun(study, begun, run), begun, run)


def begun_without_labels(run: Path) -> set[str]:
    """Titles of the data sets that had no labels when what is complete of the run was made."""
    done = [read_done(folder) for folder in (run / "references").glob("*/")]
    return {str(said.get("dataset")) for said in done if had_no_labels(said)}


def had_no_labels(done: Mapping[str, Any]) -> bool:
    """Whether a reference's complete.json says so."""
    return any(NO_LABELS in str(why) for why in done.get("skipped") or ())


def _unlabelled_as_begun(items: Any, study: Study, run: Path) -> Any:
    """A run's data sets as study.yaml has them, with ``label: none`` where the study says so now and they had no labels."""
    none = {d.title for d in study.data if d.settings.get("label") == "none"}
    return unlabelled(items, none & begun_without_labels(run)) if none else items


def unlabelled(items: Any, titles: Collection[str]) -> Any:
    """Data sets as study.yaml has them, with ``label: none`` where those of these titles say nothing of labels."""
    return [{**item, "label": "none"} if isinstance(item, Mapping) and item.get("label") is None
            and item_name("data", item) in titles else item for item in items] if isinstance(items, list) else items


def _hidden_as_begun(study: Study, begun: Mapping[str, Any], run: Path) -> Study:
    older = {s.get("label") for s in _mappings(begun.get("students")) if s.get("hidden") == "target"}
    changed = [s.label for s in study.students if s.label in older and s.settings.get("hidden") not in (None, "target")]
    if not changed:
        return study
    progress.say(f"{run}: the hidden layer of {', '.join(changed)} is as wide as the target, as when the run started "
                 "(hidden: target)")
    return study.model_copy(update={"students": tuple(
        s.model_copy(update={"hidden": "target"}) if s.label in changed else s for s in study.students)})


def _training_as_begun(study: Study, begun: Mapping[str, Any], run: Path) -> Study:
    older = {a.get("name"): a.get("training") for a in _mappings(begun.get("arms"))}
    arms = []
    for arm in study.arms:
        before = older.get(arm.name)
        if arm.training and isinstance(before, Mapping):
            changed = {key: before[key] for key, default in Training().model_dump().items()
                       if key in before
                       and getattr(arm.training, key) == getattr(study.training, key) != before[key] == default}
            if changed:
                said = ", ".join(f"{key} {'null' if value is None else value}" for key, value in changed.items())
                progress.say(f"{run}: arm {arm.name} goes on with {said}, as when the run started (arms.{arm.name}.training)")
                arm = arm.model_copy(update={"training": arm.training.model_copy(update=changed)})
        arms.append(arm)
    return study.model_copy(update={"arms": tuple(arms)})


def _mappings(items: Any) -> list[Mapping[str, Any]]:
    return [i for i in items if isinstance(i, Mapping)] if isinstance(items, list) else []


def clear_run(study: Study, run: Path) -> None:
    """For who holds the run's lock: sweep what a kill left, and give trials begun under an older name their own folder."""
    for part in ("trials", "references"):
        if (run / part).is_dir() and not (run / part).is_symlink():
            sweep(run / part, alone=True)
    claims: dict[str, list[Trial]] = {}
    for trial in trials_of(study):
        claims.setdefault(old_folder_name(*trial.parts), []).append(trial)
    for name, trials in claims.items():
        older = run / "trials" / name
        if not older.is_dir() or older.is_symlink():
            continue
        owner = next((t for t in trials if t.id == name), None)
        others = is_complete(older) and owner is not None and read_done(older).get("trial") not in (None, asdict(owner))
        if len(trials) > 1 and (owner is None or others):  # they wrote over one another
            aside = run / "set-aside" / name
            named = ", ".join(f"{t.student} {t.arm}" for t in trials[:4])
            progress.say(f"{older}: {len(trials)} trials shared it ({named}); moved to {aside}, "
                         "and each is run in a folder of its own")
            aside.parent.mkdir(exist_ok=True)
            os.replace(older, aside)
        elif owner is None and not is_complete(older) and not (own := run / "trials" / trials[0].id).exists():
            os.replace(older, own)


def load_config(run: Path) -> dict[str, Any]:
    """The resolved config of a run directory; keys that have come since it was written stand at their defaults.

    Where a student's `hidden` is not written, its trials were trained with that layer as wide as their target, and go on so.
    """
    config = Path(run) / "study.yaml"
    if not config.is_file():
        raise UserError(str(run), "a study's run directory (with study.yaml)", "none",
                        "Make one with `distillscope run quickstart`.")
    values = read_written(config)
    try:
        return as_study(values, config).dump()
    except UserError:
        return values  # whoever needs a study of it says what is wrong


def write_results(folder: Path, rows: Iterable[Mapping[str, Any]], curves: Mapping[str, Any], done: Mapping[str, Any]) -> None:
    """results.csv, curves.json, and complete.json last."""
    frame = pd.DataFrame(list(rows), columns=list(COLUMNS))
    write_atomic(folder / "results.csv", lambda p: frame.to_csv(p, index=False, float_format="%.10g"))
    write_json(folder / "curves.json", curves)
    write_json(folder / COMPLETE, done)
