"""The study to run next: the plain arm and the leading ones, with seeds that no trial has seen. Pure functions, no files."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

from distillscope.advice.rank import Ranking, Recommendation
from distillscope.config.load import parse_study
from distillscope.results.arms import arms_of, plain

MOST = 6
"""Finalists of a student beside the plain arm."""
FEWEST_SEEDS, MOST_SEEDS = 5, 10


def screened(study: Mapping[str, Any]) -> bool:
    """Whether a study measured on held-out train images in place of the test split."""
    return bool(study.get("screen"))


def chosen_on(found: Sequence[Recommendation], study: Mapping[str, Any]) -> str:
    """What the arms were compared on, and what may be said of the numbers afterwards."""
    items = next((f"{r.items:,} " for r in found if r.items), "")
    if screened(study):
        return (f"Compared on {items}train images that were held out (screen); the test split was not loaded. The study to run "
                "next measures the finalists on it, once, with fresh seeds.")
    return (f"Compared on the test split ({items}images): choosing by these numbers and then quoting them is optimistic. Fresh "
            "seeds take away the luck of the seeds, not that of the test images: to choose properly, run the whole study on "
            "held-out train images first (screen).")


def screen_size(found: Sequence[Recommendation]) -> int:
    """Items of train to screen on: as many as were tested on, and at most a fifth of train.

    >>> screen_size([])
    1000
    """
    tested = max((r.items for r in found if r.items), default=1000)
    train = max((r.train_items for r in found if r.train_items), default=5 * tested)
    return max(10, min(tested, train // 5))


def finalists(ranking: Ranking) -> tuple[str, ...]:
    """The arms of one student that are worth more seeds: those that lead or dispute it, at most MOST, and the plain one."""
    wanted = dict.fromkeys([*ranking.leaders, *(better for better, _ in ranking.disputes)])
    return (ranking.plain, *[name for name in wanted if name != ranking.plain][:MOST])


def num_seeds(found: Sequence[Recommendation]) -> int:
    """As many as would tell the first two apart (80 % power) were the difference what it reads, within 5 to 10."""
    wanted = [r.seeds_wanted or MOST_SEEDS for one in found for r in one.rankings if not r.reason]
    return min(MOST_SEEDS, max([FEWEST_SEEDS, *wanted]))


def next_study(found: Sequence[Recommendation], studies: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """A complete study as plain values, which `distillscope run` accepts; None where nothing could be ranked.

    ``studies``: those that were run, as plain values with every default (`Study.dump`).
    """
    wanted: dict[str, dict[str, None]] = {}  # arm's key -> the students it is for, in order
    first_arm: dict[str, None] = {}
    for one in found:
        for ranking in (r for r in one.rankings if not r.reason):
            for place, name in enumerate(finalists(ranking)):
                key = ranking.named(name).arm.key
                wanted.setdefault(key, {})[ranking.student] = None
                if place == 0:
                    first_arm[key] = None
    if not wanted:
        return None
    arms: list[dict[str, Any]] = []
    remedies: dict[str, dict[str, Any]] = {}
    for key in sorted(wanted, key=lambda k: k not in first_arm):
        arm, remedy = _config_of(key, studies)
        if remedy is not None:
            remedies.setdefault(plain(remedy), remedy)
        _add(arms, arm, list(wanted[key]))
    labels = list(dict.fromkeys(s for a in arms for s in a["students"]))
    kept = {k: copy.deepcopy(v) for k, v in studies[0].items() if k not in ("published", "remedies", "screen")}
    study = {**dict.fromkeys(("name", "description")), **kept, "name": f"{kept.get('name', 'study')}-next",
             "description": "The arms that lead, beside the plain one, with seeds that chose nothing.",
             "students": [s for s in kept["students"] if s["label"] in labels],
             "arms": arms, "seeds": fresh_seeds(studies, num_seeds(found)), "stresses": _timed(kept["stresses"])}
    for arm in arms:
        if set(arm["students"]) == set(labels):
            del arm["students"]
    return study | ({"remedies": list(remedies.values())} if remedies else {})


def _timed(stresses: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The stresses, with the one that times an image, which costs a moment and which a recommendation needs."""
    return stresses if "latency" in {s["name"] for s in stresses} else [*stresses, {"name": "latency"}]


def _config_of(key: str, studies: Sequence[Mapping[str, Any]]) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """The arm of that key as its study's config has it, with what that study left to its defaults; and its remedy."""
    for study in studies:
        for one in study["arms"]:
            for remedy in (None, *study["remedies"]):
                known = arms_of(parse_study({**study, "arms": [one], "remedies": [remedy] if remedy else []}))
                if [a.key for a in known.values()][-1] == key:
                    arm = {k: v for k, v in one.items() if k not in ("students", "seeds")}
                    if study.get("target") is not None and study["target"] != studies[0].get("target"):
                        arm.setdefault("target", study["target"])
                    if study.get("training") is not None and study["training"] != studies[0].get("training"):
                        off = dict.fromkeys(studies[0].get("training") or {})  # what only the first study has on
                        arm["training"] = {**off, **study["training"], **(arm.get("training") or {})}
                    return copy.deepcopy(arm), copy.deepcopy(remedy)
    raise KeyError(key)


def _add(arms: list[dict[str, Any]], arm: dict[str, Any], students: list[str]) -> None:
    """Append the arm, or its students where it is there (remedies share one); another of the same name gets a new one."""
    same = [a for a in arms if plain({k: v for k, v in a.items() if k != "students"}) == plain(arm)]
    if same:
        same[0]["students"] += [s for s in students if s not in same[0]["students"]]
        return
    taken, name, count = {a["name"] for a in arms}, arm["name"], 2
    while arm["name"] in taken:
        arm["name"], count = f"{name}-{count}", count + 1
    arms.append({**arm, "students": students})


def fresh_seeds(studies: Sequence[Mapping[str, Any]], count: int) -> list[int]:
    """Seeds above all that the studies used.

    >>> fresh_seeds([{"seeds": [42, 7]}], 3)
    [43, 44, 45]
    """
    used = [s for study in studies for s in _seeds(study.get("seeds"))]
    used += [s for study in studies for arm in study.get("arms") or [] for s in _seeds(arm.get("seeds"))]
    return [max(used, default=0) + i for i in range(1, count + 1)]


def _seeds(value: Any) -> list[int]:
    return [value] if isinstance(value, int) else list(value or [])
