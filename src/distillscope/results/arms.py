"""What an arm is, read from the study's config: never from its name."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

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
        """What the objective says that it is; "other", neither contrastive nor a rival of cosine, where it says nothing or is not here."""
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
        return int(json.loads(self.training).get("epochs", 5))

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
        own, its = json.loads(self.training), json.loads(other.training)
        return self.differs(other) == {"training"} and {k for k in {**own, **its} if own.get(k) != its.get(k)} == {"epochs"}


def plain(value: Any) -> str:
    """One spelling of a part's settings, so that equal ones compare equal."""
    return json.dumps(value, sort_keys=True, default=str)


def part(value: Any) -> dict[str, Any]:
    """A part of a config as a mapping with a name; a bare string is a name."""
    return {"name": value} if isinstance(value, str) else dict(value)


def parts(value: Any) -> list[dict[str, Any]]:
    """A part, or a list of them."""
    return [part(v) for v in ([value] if isinstance(value, (str, Mapping)) else value or [])]


def terms_of(objective: Any) -> tuple[Term, ...]:
    """The terms of a loss with a weight above 0, in the order of their names."""
    found = []
    for one in parts(objective):
        rest = {k: v for k, v in one.items() if k not in ("name", "weight")}
        if rest.get("projected") is True:  # the default, which older configs do not write
            del rest["projected"]
        if float(one.get("weight", 1.0)) > 0:
            found.append(Term(one["name"], float(one.get("weight", 1.0)), plain(rest)))
    return tuple(sorted(found, key=lambda t: (t.name, t.settings, t.weight)))


def view_of(one: Mapping[str, Any]) -> str | None:
    """The view of an arm with what its student is shown for it; defaults are left out."""
    if one.get("view") is None:
        return None
    shown = {"shown": one["view_target"]} if one.get("view_target", "same") != "same" else {}
    return plain({**part(one["view"]), **shown, **({"bank": one["view_bank"]} if one.get("view_bank") else {})})


def arms_of(study: Mapping[str, Any]) -> dict[str, Arm]:
    """Name -> arm, of a study's config (as study.yaml holds it, or as a user wrote it).

    A remedy that is applied to trained students makes another arm of each, named ARM+LABEL as in the results.
    """
    default_target, default_training = study.get("target") or "none", study.get("training") or {}
    found = {}
    for one in parts(study.get("arms")) or [{"name": "cosine"}]:
        target, training = part(one.get("target") or default_target), {**default_training, **(one.get("training") or {})}
        rest = {k: v for k, v in one.items() if k not in READ and v}  # what is off is as if it were not written
        arm = Arm(str(one["name"]), terms_of(one.get("objective") or "cosine"), plain(target), view_of(one), plain(training),
                  plain(rest), target == part(default_target), training == dict(default_training))
        found[arm.name] = arm
        for remedy in parts(study.get("remedies")):
            name = f"{arm.name}+{remedy.get('label') or remedy['name']}"
            changed = {k: v for k, v in remedy.items() if k != "label"}
            found[name] = replace(arm, name=name, rest=plain({**rest, "remedy": changed}))
    return found


def distinct(arms: Iterable[Arm]) -> list[Arm]:
    """Arms in order, each kind once."""
    return list({a.key: a for a in reversed(list(arms))}.values())[::-1]
