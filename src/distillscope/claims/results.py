"""The results of one or more studies as claims see them: numbers per seed, curves, training logs, and what each arm is."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import pandas as pd

from distillscope.claims.same_setting import Read, check_same
from distillscope.config.parts import Student
from distillscope.config.study import Study
from distillscope.results.arms import Arm, arms_of, distinct, plain
from distillscope.results.keys import ACCURACIES, FIT, MAPPED, OLD_FIT, OLD_FIT_SAYS, RANK
from distillscope.results.rows import CLEAN, TEACHER, Condition, in_order
from distillscope.results.run import measured_split, of_test
from distillscope.results.statistics import Contrast, paired, welch

HARM = 0.02
"""What noise must take from some model, and leave above chance to some, to say anything of robustness."""
SIGMA = 0.1
"""The sigma at which the paper states its claims; where a study has none of that size, the middle one of its sweep."""


Found = TypeVar("Found")


class Undecided(Exception):
    """Raised where results cannot decide a claim; the message is the reason, without a full stop."""


@dataclass(frozen=True)
class Results:
    """Everything measured under one teacher on one data set. ``needed`` is how many seeds the asking claim needs.

    ``mapped_notes`` says what a reader of mapped.* must know of how the map was fitted (older runs).
    """

    dataset: str
    teacher: str
    study: Study
    arms: tuple[Arm, ...]
    students: Mapping[str, Student]
    frame: pd.DataFrame
    log: pd.DataFrame
    curves: Mapping[tuple[str, str, Any], Mapping[str, Any]]
    references: Mapping[str, Mapping[str, Any]]
    mapped_notes: tuple[str, ...] = ()
    needed: int = field(default=2, compare=False)
    found: dict[Any, Any] = field(default_factory=dict, compare=False, repr=False)

    @property
    def split(self) -> str:
        """The split that the study tests on."""
        return measured_split(self.frame)

    def once(self, key: Any, make: Callable[[], Found]) -> Found:
        """What ``make`` gives, made once for all claims and rankings that look it up under ``key``."""
        if key not in self.found:
            self.found[key] = make()
        return self.found[key]

    # -- numbers --------------------------------------------------------------------------------------------------------

    def values(self, arm: Arm, student: str, measure: str, condition: str = CLEAN) -> pd.Series:
        """One number per seed (index: seed).

        Independent noise draws are averaged first; values that are not finite are dropped.
        """
        def means() -> pd.Series:
            every_value, every_seed = self.once("numbers", lambda: (
                self.frame["value"].to_numpy(float), self.frame["seed"].astype("Int64").to_numpy(float, na_value=np.nan)))
            places = self._places(student, measure, condition, arm.key)
            value, seed = every_value[places], every_seed[places]
            known = np.isfinite(value) & np.isfinite(seed)
            value, seed = value[known], seed[known].astype(np.int64)
            if not len(value):
                return pd.Series(dtype=float)
            return pd.Series(value, name="value").groupby(pd.Series(seed, name="seed")).mean()

        return self.once(("values", student, measure, condition, arm.key), means).copy()

    def teacher_values(self, measure: str, condition: str = CLEAN, target: str | None = None) -> pd.Series:
        """The teacher's own numbers by draw (0 where there is none), as ``target`` shows it to the students."""
        def means(shown_as: str) -> pd.Series:
            rows = self.once("teacher's", lambda: self.frame[["value", "draw", "target"]])
            rows = rows.iloc[self._places(TEACHER, measure, condition)]
            if shown_as in set(rows["target"]):
                rows = rows[rows["target"] == shown_as]
            elif rows["target"].nunique() > 1:
                rows = rows[rows["target"] == "none"]
            found = pd.Series(rows["value"].to_numpy(float), index=rows["draw"].fillna(0).astype(int), dtype=float)
            return found[np.isfinite(found)].groupby(level=0).mean()

        title = self.target_title(self.baseline()) if target is None else target
        return self.once(("teacher's", measure, condition, title), lambda: means(title)).copy()

    def _places(self, student: str, measure: str, condition: str, arm: str = "") -> list[int]:
        """Which rows stand under one name."""
        def places() -> dict[tuple, list[int]]:
            found: dict[tuple, list[int]] = {}
            keys = (self.frame[k].fillna("").tolist() for k in ("student", "measure", "condition", "arm_key"))
            for place, key in enumerate(zip(*keys, strict=True)):
                found.setdefault(key, []).append(place)
            return found

        return self.once("places", places).get((student, measure, condition, arm), [])

    def curve(self, arm: Arm, student: str, key: str) -> dict[int, tuple[np.ndarray, np.ndarray]]:
        """Seed -> (x, y) of a curve that trials wrote."""
        return {seed: (np.asarray(c[key]["x"], float), np.asarray(c[key]["y"], float))
                for (a, s, seed), c in self.curves.items() if (a, s) == (arm.key, student) and key in c}

    def reference_curve(self, target: str, key: str) -> np.ndarray | None:
        """y of a curve of the teacher's own, as ``target`` shows it."""
        found = self.references.get(target, {}).get(key)
        return None if found is None else np.asarray(found["y"], float)

    def epochs(self, arm: Arm, student: str) -> pd.DataFrame:
        """The training log: seed, epoch and what was logged."""
        log = self.log
        return log[(log["arm_key"] == arm.key) & (log["student"] == student)] if len(log) else log

    def accuracy_key(self) -> str:
        """The accuracy that claims use."""
        known = self.once("measures", lambda: set(self.frame["measure"]))
        found = next((k for k in ACCURACIES if k in known), None)
        if found is None:
            raise Undecided("no accuracy was measured; the data has no labels")
        return found

    def accuracy(self, arm: Arm, student: str, condition: str = CLEAN) -> pd.Series:
        """Accuracy per seed under a condition."""
        return self.values(arm, student, self.accuracy_key(), condition)

    def teacher_accuracy(self, condition: str = CLEAN) -> pd.Series:
        """The teacher's accuracy by draw, with its own probe of the same kind."""
        return self.teacher_values(self.accuracy_key().replace("student", TEACHER), condition)

    # -- seeds ----------------------------------------------------------------------------------------------------------

    def together(self, what: str, *series: pd.Series) -> list[np.ndarray]:
        """The values of the seeds that all ``series`` share, at least as many as the claim needs."""
        frame = pd.concat(series, axis=1, join="inner").dropna()
        if len(frame) < self.needed:
            raise Undecided(f"{what}: {_count(len(frame), 'paired seed')}, and this claim needs {self.needed}")
        return [frame.iloc[:, i].to_numpy(float) for i in range(frame.shape[1])]

    def difference(self, what: str, first: pd.Series, second: pd.Series, test: str = "paired t") -> Contrast:
        """first - second: paired where enough seeds were run on both, else Welch's where both have enough of their own."""
        common = first.index.intersection(second.index)
        if len(common) < self.needed <= min(len(first), len(second)):
            return welch(first.to_numpy(float), second.to_numpy(float))
        a, b = self.together(what, first, second)
        return paired(a - b, test)

    def harmed(self, condition: str, *sides: tuple[pd.Series, pd.Series]) -> None:
        """Undecided where noise did nothing, or left nothing (`spared`): no pair (clean, noisy) fell by two points."""
        lost = [float(clean.mean() - noisy.mean()) for clean, noisy in sides if len(clean) and len(noisy)]
        if lost and max(lost) < HARM:
            raise Undecided(f"{condition} takes {100 * max(lost):.1f} points at most, less than {100 * HARM:.0f}, "
                            "so it says nothing about robustness")
        self.spared(condition, *(noisy for _, noisy in sides))

    def spared(self, condition: str, *noisy: pd.Series) -> None:
        """Undecided where none of the noisy accuracies stands two points above what guessing reaches, where that is known."""
        chance, means = self.chance(), [float(n.mean()) for n in noisy if len(n)]
        if chance is not None and means and max(means) < chance + HARM:
            raise Undecided(f"{condition} leaves only chance accuracy ({100 * chance:.0f} %), "
                            "so it says nothing about robustness")

    def chance(self) -> float | None:
        """What guessing reaches: the share of the largest class, in older runs one over the number of classes; else None."""
        rows = self.frame.loc[self.frame["measure"].isin(["knn.largest_class", "knn.chance", "top_k.chance"]), "value"]
        return float(rows.max()) if len(rows) else None

    # -- what was run ---------------------------------------------------------------------------------------------------

    def baseline(self) -> Arm:
        """The arm that the claims are about: cosine alone, default target and training, no view, nothing else.

        Where a study has none, its first arm without a view or a remedy: the claims are then about that objective.
        """
        simple = [a for a in self.arms if a.view is None and a.rest == "{}"]
        cosine = [a for a in simple if [t.name for t in a.terms] == ["cosine"]]
        usual = [a for a in cosine or simple if a.default_target] or cosine or simple
        found = [a for a in usual if a.default_training] or sorted(usual, key=lambda a: a.epochs)
        if not found:
            raise Undecided("no arm without a view or a remedy was run")
        return found[0]

    def cosine(self) -> Arm:
        """The baseline, where it is cosine alone."""
        arm = self.baseline()
        if [t.name for t in arm.terms] != ["cosine"]:
            raise Undecided("no arm with the cosine objective alone was run")
        return arm

    def sizes(self, arm: Arm, *, least: int = 2) -> list[str]:
        """Labels of the students that differ in size alone (`family_of`), ascending by parameters; of equal ones the first."""
        families: dict[str, dict[float, str]] = {}
        for label, spec in self.students.items():
            parameters = self.values(arm, label, "capacity.parameters")
            if len(parameters):
                families.setdefault(family_of(spec), {}).setdefault(float(parameters.iloc[0]), label)
        largest = max(families.values(), key=len, default={})
        if len(largest) < least or not largest:
            raise Undecided(f"{_count(len(largest), 'size')} of one network under the arm '{arm.name}', and this claim "
                            f"compares {least}")
        return [largest[parameters] for parameters in sorted(largest)]

    def smallest(self, arm: Arm) -> str:
        """The smallest student of the arm."""
        return self.sizes(arm, least=1)[0]

    def shared_student(self, arm: Arm, others: Sequence[Arm], wanted: str) -> str:
        """The smallest student that ran ``arm`` and one of ``others``; ``wanted`` says what is missing where none did."""
        if not others:
            raise Undecided(f"{wanted} was not run")
        for label in self.sizes(arm, least=1):
            if any(len(self.values(a, label, RANK)) for a in others):
                return label
        raise Undecided(f"{wanted} was not run with the students of the arm '{arm.name}'")

    def target_title(self, arm: Arm) -> str:
        """What results call the arm's target."""
        def title() -> str:
            rows = self.frame[self.frame["arm_key"] == arm.key]
            return str(rows["target"].iloc[0]) if len(rows) else "none"

        return self.once(("target", arm.key), title)

    def sigma(self) -> Condition:
        """The noise condition at which robustness claims are decided."""
        ordered = self.sigmas()
        if not ordered:
            raise Undecided("no accuracy under Gaussian noise was measured (noise.sigmas is empty, or the data has no labels)")
        usual = [c for c in ordered if c.sigma == self.deciding_sigma()]
        return usual[0] if usual else ordered[(len(ordered) - 1) // 2]

    def deciding_sigma(self) -> float:
        """The one that the study set before its run, else the paper's."""
        return SIGMA if self.study.noise.decides is None else self.study.noise.decides

    def sigmas(self) -> list[Condition]:
        """Every noise condition, ascending."""
        return [c for c in in_order(self.frame["condition"].unique()) if (c.sigma or 0) > 0]

    def noise_text(self, stress: str | None = None) -> str:
        """The study's noise in words; with ``stress``, that stress's own, which is the study's where it says nothing else."""
        settings = next((s.settings for s in self.study.stresses if s.name == stress), {})
        noise = {**self.study.noise.model_dump(), **settings}
        where = "source pixels" if noise["where"] == "source" else "model input"
        clipped = ", clipped" if noise["clip"] and where == "source pixels" else ""
        own = ", other draws for each seed" if noise["per_seed"] else ""
        return f"Gaussian on {where}, {noise['unit']}{clipped}{own}"

    def scope(self) -> dict[str, Any]:
        """What every verdict is scoped to."""
        sizes = sorted({s.image_size for s in self.students.values()})
        items = of_test(self.frame)["n"].max() if len(self.frame) else None
        limit = self.study.limit
        return {"teacher": self.teacher, "data": self.dataset, "input": f"{', '.join(map(str, sizes))} px",
                "noise": self.noise_text(), "train images": f"{limit} at most" if limit else "all",
                f"{self.split} images": None if pd.isna(items) else int(items)}


def family_of(student: Student) -> str:
    """Equal for students that differ in size alone: every setting but the width; of a timm name its leading letters.

    >>> small, large, other = map(Student.model_validate, ("timm/resnet18", "timm/resnet34", "timm/vit_tiny_patch16_224"))
    >>> family_of(small) == family_of(large) != family_of(other)
    True
    >>> first, second = ({"name": "paper_cnn", "width": 1}, {"name": "paper_cnn", "width": 4, "blur_pool": False})
    >>> family_of(Student.model_validate(first)) == family_of(Student.model_validate(second))
    True
    """
    settings = {k: v for k, v in student.model_dump(mode="json").items()
                if k not in ("name", "model", "label", "alias", "width", "weights") and v}
    letters = re.match("[A-Za-z]*", str(student.settings.get("model") or ""))
    return plain([student.name, letters and letters[0], settings])


def _count(n: int, what: str) -> str:
    """
    >>> _count(1, "seed"), _count(3, "seed"), _count(0, "seed")
    ('1 seed', '3 seeds', 'no seeds')
    """
    return f"{n or 'no'} {what}{'' if n == 1 else 's'}"


def results_of(runs: Sequence[Read], command: str = "claims") -> list[Results]:
    """One `Results` for each data set and teacher of ``runs``, which must be studies of the same data and teacher."""
    for one, other in itertools.combinations(runs, 2):
        check_same(one, other, command)
    frames: list[pd.DataFrame] = []
    logs: list[pd.DataFrame] = []
    curves: dict[tuple[str, str], dict[tuple[str, str, Any], Mapping[str, Any]]] = {}
    references: dict[tuple[str, str], dict[str, Mapping[str, Any]]] = {}
    arms: list[Arm] = []
    students: dict[str, Student] = {}
    taken: set[tuple] = set()
    without: list[str] = []
    fit = OLD_FIT if {r.mapped_fit for r in runs} - {""} == {OLD_FIT} else FIT
    for run in runs:
        known = arms_of(run.study)
        arms += known.values()
        students.update({s.label: s for s in run.study.students})
        keys = {name: arm.key for name, arm in known.items()}
        frame = run.all_results.assign(arm_key=run.all_results["arm"].map(keys))
        if run.mapped_fit not in ("", fit):
            frame = frame[~frame["measure"].str.startswith(MAPPED)]
            without.append(str(run.path))
        of_trial = frame[["dataset", "teacher", "arm_key", "student"]].fillna("").assign(
            seed=frame["seed"].astype("Int64").fillna(-1), target=frame["target"].where(frame["student"] == TEACHER, ""),
            of=_teachers_own(frame))
        trial = list(zip(*(of_trial[key].tolist() for key in of_trial), strict=True))
        new = set(trial) - taken  # a trial that two runs finished counts once
        frames.append(frame[[t in new for t in trial]])
        taken |= new
        if len(run.training):
            logs.append(run.training.assign(arm_key=run.training["arm"].map(keys)))
        for t in run.trials:
            curves.setdefault((t.dataset, t.teacher), {}).setdefault((keys.get(t.arm, ""), t.student, t.seed), t.curves)
        for t in run.references:
            references.setdefault((t.dataset, t.teacher), {}).setdefault(t.target, t.curves)
    frame = pd.concat(frames, ignore_index=True)
    said = tuple(f"{path}: its mapped.* were {OLD_FIT} (older version), and are left out beside newer ones."
                 for path in without)
    if fit == OLD_FIT and frame["measure"].str.startswith(MAPPED).any():
        said = (OLD_FIT_SAYS,)
    log = pd.concat(logs, ignore_index=True) if logs else pd.DataFrame()
    if len(log):
        log = log.drop_duplicates(["dataset", "teacher", "arm_key", "student", "seed", "epoch"], keep="first")
    stresses = list({plain(s.model_dump(mode="json")): s for run in runs for s in run.study.stresses}.values())
    study = runs[0].study.model_copy(update={"stresses": stresses})
    found = []
    for dataset, teacher in frame[["dataset", "teacher"]].drop_duplicates().itertuples(index=False):
        here = frame[(frame["dataset"] == dataset) & (frame["teacher"] == teacher)]
        own = log[(log["dataset"] == dataset) & (log["teacher"] == teacher)] if len(log) else log
        run_keys = set(here["arm_key"].dropna())
        run_arms = [a for a in distinct(arms) if a.key in run_keys]
        found.append(Results(dataset, teacher, study, tuple(run_arms), students, here, own,
                             curves.get((dataset, teacher), {}), references.get((dataset, teacher), {}), said))
    return found


def _teachers_own(frame: pd.DataFrame) -> pd.Series:
    """What a teacher's row (n,) is of, since no run has all: a measure under a condition; of top_k, whose cuts are compared on
    the images that all get right, the measure alone. A student's are of its trial."""
    cut = frame["measure"].str.startswith("top_k.")
    own = frame["measure"] + " " + frame["condition"].where(~cut, "")
    return own.where(frame["student"] == TEACHER, "")
