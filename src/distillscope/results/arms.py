"""What an arm is, read from the study's config: never from its name."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from distillscope.config.parts import Objective
from distillscope.config.study import Arm as ConfiguredArm
from distillscope.config.study import Study
from distillscope.registry import objectives

DEMANDING = ("whiten", "standardise", "phi_s", "random")
"""Targets that ask for more dimensions than the teacher's own spectrum does."""

READ = ("name", "students", "seeds", "objective", "target", "view", "view_target", "view_bank", "training")
"""Keys of an arm that are read one by one; any other key is part of what the arm is."""


@dataclass(frozen=True)
class Term:
    """One term of an arm's loss."""

    name: str
    weight: float = 1.0
    settings: str = "{}"

    @property
    def family(self) -> str:
        """What the objective says that it is; "other", neither contrastive nor a rival, where it says nothing or is missing."""
        declared = objectives.declared(self.name)
        return declared.facts.family if declared else "other"


@dataclass(frozen=True)
class Arm:
    """One way to train, with the study's defaults filled in; ``rest`` holds what else sets it apart (a projector, ...)."""

    name: str
    terms: tuple[Term, ...]
    target: str
    view: str | None
    training: str
    rest: str = "{}"
    default_target: bool = field(default=True, compare=False)
    default_training: bool = field(default=True, compare=False)

    @property
    def key(self) -> str:
        """Equal for arms that are the same whatever they are called."""
        terms = [[t.name, t.weight, t.settings] for t in self.terms]
        return json.dumps([*terms, self.target, self.view, self.training, self.rest])

    @property
    def families(self) -> set[str]:
        return {t.family for t in self.terms}

    @property
    def epochs(self) -> int:
        return int(json.loads(self.training)["epochs"])

    @property
    def target_name(self) -> str:
        return str(json.loads(self.target)["name"])

    @property
    def remedied(self) -> str | None:
        """The remedy that was applied after training."""
        return (json.loads(self.rest).get("remedy") or {}).get("name")

    @property
    def network(self) -> str:
        """The settings of the network that this arm's students have otherwise."""
        return plain(json.loads(self.rest).get("student") or {})

    @property
    def view_name(self) -> str | None:
        return None if self.view is None else str(json.loads(self.view)["name"])

    @property
    def objective(self) -> str:
        """The terms and their weights, as the tables show them."""
        return " + ".join(t.name if t.weight == 1 else f"{t.weight:g} {t.name}" for t in self.terms)

    def differs(self, other: Arm) -> set[str]:
        """Which of terms, target, view, training and rest are not the same."""
        return {k for k in ("terms", "target", "view", "training", "rest") if getattr(self, k) != getattr(other, k)}

    def only_epochs_differ(self, other: Arm) -> bool:
        """The same arm trained for another number of epochs."""
        return self.differs(other) == {"training"} and self.trained_otherwise(other) == {"epochs"}

    def trained_otherwise(self, other: Arm) -> set[str]:
        """The settings of training that are not the same."""
        own, its = json.loads(self.training), json.loads(other.training)
        return {key for key in {**own, **its} if own.get(key) != its.get(key)}


def plain(value: Any) -> str:
    """One spelling of a part's settings, so that equal ones compare equal."""
    return json.dumps(value, sort_keys=True, default=str)


def terms_of(objective: Iterable[Objective]) -> tuple[Term, ...]:
    """The terms of a loss with a weight above 0, in the order of their names."""
    found = []
    for one in objective:
        rest = {**one.settings, **({} if one.projected else {"projected": False}),
                **({"during": one.during} if one.during else {})}
        if one.weight > 0:
            found.append(Term(one.name, one.weight, plain(rest)))
    return tuple(sorted(found, key=lambda t: (t.name, t.settings, t.weight)))


def view_of(arm: ConfiguredArm) -> str | None:
    """The view of an arm with what its student is shown for it; defaults are left out."""
    if arm.view is None:
        return None
    shown = {"shown": arm.view_target} if arm.view_target != "same" else {}
    return plain({**arm.view.model_dump(mode="json"), **shown, **({"bank": arm.view_bank} if arm.view_bank else {})})


def arms_of(study: Study) -> dict[str, Arm]:
    """Name -> arm, of a study's config.

    A remedy that is applied to trained students makes another arm of each, named ARM+LABEL as in the results.
    """
    found = {}
    for one in study.arms:
        target, training = (p.model_dump(mode="json") for p in (study.target_of(one), study.training_of(one)))
        # What is off is as if it were not written.
        rest = {k: v for k, v in one.model_dump(mode="json").items() if k not in READ and v}
        arm = Arm(one.name, terms_of(one.objective), plain(target), view_of(one), plain(training), plain(rest),
                  study.target_of(one) == study.target, study.training_of(one) == study.training)
        found[arm.name] = arm
        for remedy in study.remedies:
            name = f"{arm.name}+{remedy.title}"
            changed = {"name": remedy.name, **remedy.settings}
            found[name] = replace(arm, name=name, rest=plain({**rest, "remedy": changed}))
    return found


def distinct(arms: Iterable[Arm]) -> list[Arm]:
    """Arms in order, each kind once."""
    return list({a.key: a for a in reversed(list(arms))}.values())[::-1]
