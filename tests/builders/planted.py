"""Data with a planted truth: studies whose claims have known answers, and embeddings that are seeded; without torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from builders.synthetic_run import write_folder, write_study
from distillscope.claims.results import Results, results_of
from distillscope.config.load import parse_study
from distillscope.config.study import Study

TRAINING = {"epochs": 5, "batch_size": 64, "learning_rate": 0.001}
STUDY: dict[str, Any] = {
    "name": "planted",
    "data": [{"name": "cifar10"}],
    "teacher": [{"name": "efficientnet_lite0"}],
    "students": [{"name": "paper_cnn", "label": label, "width": width, "image_size": 32}
                 for label, width in (("S", 1), ("M", 2), ("L", 4))],
    "target": {"name": "pca", "dim": 64},
    "training": TRAINING,
    "noise": {"where": "source", "unit": "normalised", "clip": True, "sigmas": [0.05, 0.1, 0.2], "draws": 2},
    "remedies": [{"name": "bn"}],
    "stresses": [{"name": "top_k", "own_train": True}],
    "arms": [
        {"name": "one", "objective": [{"name": "cosine", "weight": 1.0}]},
        {"name": "two", "objective": ["mse"]},
        {"name": "three", "objective": "cross_entropy"},
        {"name": "four", "objective": ["cosine", {"name": "infonce", "weight": 0.5}]},
        {"name": "five", "objective": "mse", "target": {"name": "whiten", "dim": 300}},
        {"name": "six", "objective": ["cosine", "vicreg_covariance"]},
        {"name": "seven", "view": {"name": "noise", "sigma": 0.3}, "view_target": "clean"},
        {"name": "eight", "training": {**TRAINING, "epochs": 20}},
        {"name": "nine", "view": "crop_flip"},
    ],
}
"""Arms are named by number, so that no claim can go by what an arm is called."""
TITLES = {"five": "whiten300"}
PARAMETERS = {"S": 8e5, "M": 1.4e6, "L": 2.7e6}

Key = tuple[str, str, str, str]  # arm, student, measure, condition; "*" stands for any
TRUTH: dict[Key, float] = {
    ("*", "*", "student.effective_rank", "clean"): 16.0,
    ("four", "*", "student.effective_rank", "clean"): 40.0,
    ("five", "*", "student.effective_rank", "clean"): 90.0,
    ("*", "*", "alignment.student_variance_top20", "clean"): 0.95,
    ("*", "*", "alignment.teacher_r2", "clean"): 0.35,
    ("*", "*", "contrastive.ceiling", "clean"): float(np.log(1024)),
    ("*", "*", "mapped.teacher_r2", "clean"): 0.35,
    ("*", "*", "mapped.recall_at_1", "clean"): 0.20,
    ("*", "*", "knn.student.accuracy", "clean"): 0.65,
    ("*", "*", "contrastive.infonce_best_temperature", "clean"): 2.2,
    ("*", "*", "contrastive.infonce_chosen_temperature", "clean"): 2.2,
    ("*", "*", "contrastive.saturated", "clean"): 0.0,
    ("*", "*", "paper.probe.student.accuracy", "clean"): 0.71,
    ("*", "*", "paper.probe.student.accuracy", "noise=0.05"): 0.68,
    ("*", "*", "paper.probe.student.accuracy", "noise=0.1"): 0.55,
    ("*", "*", "paper.probe.student.accuracy", "noise=0.2"): 0.30,
    ("*", "*", "paper.probe.student.accuracy", "band=0-0.25/0.1"): 0.50,
    ("*", "*", "paper.probe.student.accuracy", "band=0.75-1/0.1"): 0.65,
}
TEACHER: dict[tuple[str, str, str], float] = {
    ("pca64", "teacher.effective_rank", "clean"): 50.0,
    ("whiten300", "teacher.effective_rank", "clean"): 250.0,
    ("pca64", "paper.probe.teacher.accuracy", "clean"): 0.80,
    ("pca64", "paper.probe.teacher.accuracy", "noise=0.1"): 0.60,
    ("pca64", "paper.probe.teacher.accuracy", "band=0-0.25/0.1"): 0.60,
    ("pca64", "paper.probe.teacher.accuracy", "band=0.75-1/0.1"): 0.60,
}
SPREAD = {"student.effective_rank": 0.3, "alignment.student_variance_top20": 0.004, "alignment.teacher_r2": 0.004,
          "mapped.teacher_r2": 0.004, "mapped.recall_at_1": 0.004, "knn.student.accuracy": 0.004,
          "contrastive.infonce_best_temperature": 0.01, "contrastive.infonce_chosen_temperature": 0.01,
          "paper.probe.student.accuracy": 0.004}


def study_with(**values: Any) -> Study:
    """A study of these settings, and of one data set, teacher and student."""
    students = [{"name": "paper_cnn", "label": "S"}]
    return parse_study({"name": "shaped", "data": "d", "teacher": "t", "students": students, **values})


@dataclass
class Run:
    """What `results_of` reads."""

    written: dict[str, Any]
    results: pd.DataFrame
    training: pd.DataFrame
    trials: list[Any] = field(default_factory=list)
    references: list[Any] = field(default_factory=list)
    path: Path = Path("planted")
    mapped_fit: str = ""

    @property
    def study(self) -> Study:
        return parse_study(self.written)

    @property
    def all_results(self) -> pd.DataFrame:
        return self.results


@dataclass(frozen=True)
class Folder:
    """A reference or trial, as far as claims look."""

    dataset: str
    teacher: str
    target: str
    arm: str
    student: str
    seed: int | None
    curves: dict[str, Any]
    fingerprint: dict[str, str] = field(default_factory=dict)


def planted_run(truth: dict[Key, float] | None = None, teacher: dict | None = None, *, seeds=range(1, 11),
                arms: str | None = None,
                study: dict[str, Any] | None = None, top_k: dict[str, float] | None = None, spread: float = 1.0,
                log_ranks: dict[int, float] | None = None, titles: dict[str, str] | None = None) -> Run:
    """A run whose means are TRUTH with ``truth`` over it.

    ``arms`` names those that were run; ``top_k``: k -> noisy accuracy.
    """
    config = {**STUDY, **(study or {})}
    if arms is not None:
        config["arms"] = [a for a in config["arms"] if a["name"] in arms.split()]
    means, rng = {**TRUTH, **(truth or {})}, np.random.default_rng(0)
    # A seed's luck is shared by all arms and sizes, as with shared order and draws; each trial has a little of its own.
    luck = np.array([rng.normal() for _ in seeds])
    remedies = [r.get("label", r["name"]) for r in config["remedies"]]
    names = [n for a in config["arms"] for n in (a["name"], *(f"{a['name']}+{r}" for r in remedies))]
    measured = [(measure, condition, draw) for measure, condition in dict.fromkeys(k[2:] for k in means)
                for draw in ((0, 1) if condition.startswith("noise") else (pd.NA,))]
    measures, conditions, draws = zip(("capacity.parameters", "clean", pd.NA), *measured, strict=True)
    width = spread * np.array([SPREAD.get(measure, 0.0) for measure in measures[1:]])
    cells = [(arm, s["label"]) for arm in names for s in config["students"]]
    values = np.empty((len(cells), len(luck), len(measures)))
    for cell, (arm, student) in zip(values, cells, strict=True):
        cell[:, 0] = PARAMETERS[student]
        mean = [lookup(means, arm, student, measure, condition) for measure, condition, _ in measured]
        cell[:, 1:] = mean + width * (luck[:, None] + 0.3 * rng.normal(size=(len(luck), len(measured))))
    each, times = len(luck) * len(measures), len(cells) * len(luck)
    arm_of, student_of = (np.repeat(np.array(side, dtype=object), each) for side in zip(*cells, strict=True))
    own = pd.DataFrame({
        "dataset": "cifar10", "teacher": "efficientnet_lite0", "split": "test", "n": 10_000, "unit": "", "study": "planted",
        "target": [(titles or TITLES).get(arm.split("+")[0], "pca64") for arm in arm_of], "objective": "", "arm": arm_of,
        "draw": pd.array(draws * times, dtype="Int64"), "student": student_of,
        "seed": pd.array(np.tile(np.repeat(list(seeds), len(measures)), len(cells)), dtype="Int64"),
        "measure": np.tile(np.array(measures, dtype=object), times),
        "condition": np.tile(np.array(conditions, dtype=object), times),
        "value": values.ravel()})
    rows: list[dict[str, Any]] = []
    head = {"dataset": "cifar10", "teacher": "efficientnet_lite0", "split": "test", "n": 10_000, "unit": "", "study": "planted",
            "objective": "", "arm": "", "student": "teacher", "seed": pd.NA, "draw": pd.NA}
    asked = {(title, "teacher.effective_rank", "clean"): 250.0 for title in (titles or {}).values()}
    for (target, measure, condition), value in {**TEACHER, **asked, **(teacher or {})}.items():
        rows.append({**head, "target": target, "measure": measure, "condition": condition, "value": value})
    rows += [{**head, "target": "pca64", **r} for r in top_k_rows(top_k, rng)] if top_k else []
    log = pd.DataFrame([{"dataset": "cifar10", "teacher": "efficientnet_lite0", "arm": a["name"], "student": s, "seed": seed,
                         "epoch": e, "effective_rank": r + 0.1 * rng.normal(), "teacher_r2": r / 50}
                        for a in config["arms"] for s in ("S", "M", "L") for seed in seeds
                        for e, r in (log_ranks or {}).items()])
    frame = pd.concat([own, pd.DataFrame(rows).astype({"seed": "Int64", "draw": "Int64"})], ignore_index=True)
    spectrum = {"teacher.spectrum": {"x": list(range(1, 65)), "y": (np.arange(1, 65) ** -0.25).tolist()}}
    references = [Folder("cifar10", "efficientnet_lite0", "pca64", "", "teacher", None, spectrum)]
    return Run(config, frame, log, [], references)


def top_k_rows(noisy: dict[str, float], rng: np.random.Generator) -> list[dict[str, Any]]:
    """Ten tenths of the test images: clean accuracy 0.8 whatever k, noisy as given; kept is the noisy over the clean."""
    rows: list[dict[str, Any]] = [{"measure": "top_k.chance", "condition": "top_k=all", "value": 0.1}]
    for name, accuracy in noisy.items():
        for part in range(10):
            key = {"measure": "top_k.paper.teacher.accuracy", "draw": part}
            rows.append({**key, "condition": f"top_k={name}", "value": 0.8 + 0.005 * rng.normal()})
            rows.append({**key, "condition": f"top_k={name}/0.1", "value": accuracy + 0.005 * rng.normal()})
            rows.append({**key, "measure": "top_k.paper.teacher.kept_accuracy", "condition": f"top_k={name}/0.1",
                         "value": accuracy / 0.8 + 0.005 * rng.normal()})
    return rows


def lookup(means: dict[Key, float], arm: str, student: str, measure: str, condition: str) -> float:
    """The most particular mean that was planted."""
    for key in ((arm, student), (arm, "*"), (arm.split("+")[0], student), (arm.split("+")[0], "*"), ("*", student), ("*", "*")):
        if (*key, measure, condition) in means:
            return means[(*key, measure, condition)]
    raise KeyError((arm, student, measure, condition))


def planted(*args: Any, **kwargs: Any) -> Results:
    """The results of one planted run."""
    (found,) = results_of([planted_run(*args, **kwargs)])
    return found


ACCURACY, RANK, RECALL = "paper.probe.student.accuracy", "mapped.effective_rank", "mapped.recall_at_1"
NOISY = {"noise=0.05": 0.68, "noise=0.1": 0.55, "noise=0.2": 0.30}
NOISY_TEACHER = {("pca64", "paper.probe.teacher.accuracy", c): v
           for c, v in (("noise=0.05", 0.75), ("noise=0.1", 0.7), ("noise=0.2", 0.65))}


def truth_with(**gains: dict[str, float]) -> dict[Key, float]:
    """Means: every arm alike, but for ``arm={axis: gain}``."""
    found = {("*", "*", RECALL, "clean"): 0.2, ("*", "*", RANK, "clean"): 18.0}
    for arm, gain in gains.items():
        found[arm, "*", ACCURACY, "clean"] = 0.71 + gain.get("accuracy", 0)
        found |= {(arm, "*", ACCURACY, c): v + gain.get("robustness", 0) for c, v in NOISY.items()}
        found[arm, "*", RECALL, "clean"] = 0.2 + gain.get("retrieval", 0)
        found[arm, "*", RANK, "clean"] = 18.0 + gain.get("geometry", 0)
    return found


def gaining_run(arms: str = "one two", gains: dict[str, dict[str, float]] | None = None, **more: Any) -> Run:
    """A planted run of one student without remedies in which arms gain as `truth_with` says."""
    study = {"students": STUDY["students"][:1], "remedies": [], **more.pop("study", {})}
    means, seeds = truth_with(**(gains or {})), more.pop("seeds", range(1, 4))
    return planted_run(means, NOISY_TEACHER, arms=arms, seeds=seeds, study=study, **more)


def write_run(run: Run, path: Path) -> Path:
    """The run on disk, as a study would have left it."""
    seeds = sorted(run.results["seed"].dropna().unique().tolist())
    write_study(path, {**run.written, "seeds": seeds}, sort_keys=True)
    frame = run.results.assign(n=run.results["n"].astype("Int64"))
    for (dataset, teacher, target), rows in frame[frame["student"] == "teacher"].groupby(["dataset", "teacher", "target"]):
        curves = next((r.curves for r in run.references if r.target == target), {})
        write_folder(path / "references" / f"{dataset}--{teacher}--{target}", rows.to_dict("records"), curves, {})
    own = frame[frame["student"] != "teacher"]
    for (arm, student, seed), rows in own.groupby([own["arm"].str.split("+").str[0], "student", "seed"]):
        plain = rows.sort_values("arm", key=lambda a: a != arm, kind="stable")  # a remedy's rows follow the arm's own
        log = run.training
        log = log[(log["arm"] == arm) & (log["student"] == student) & (log["seed"] == seed)] if len(log) else log
        epochs = log[["epoch", "effective_rank", "teacher_r2"]].to_dict("records") if len(log) else []
        write_folder(path / "trials" / f"cifar10--efficientnet_lite0--{arm}--{student}--seed{seed}", plain.to_dict("records"),
                     {}, {},
                     epochs)
    return path


def cloud(seed: int, n: int = 200, d: int = 12, decay: float = 0.7, mean: float = 0.3) -> np.ndarray:
    """Gaussian rows (n, d) whose k-th standard deviation is k^-decay, around a mean, in a random basis."""
    rng = np.random.default_rng(seed)
    basis = np.linalg.qr(rng.normal(size=(d, d)))[0]
    return (rng.normal(size=(n, d)) * np.arange(1, d + 1) ** -decay + mean) @ basis


def student_of(teacher: np.ndarray, seed: int, noise: float = 0.3) -> np.ndarray:
    """The teacher with noise."""
    return teacher + noise * np.random.default_rng(seed).normal(size=teacher.shape)


def labelled_sample(trial: int, n: int, d: int = 16) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Three overlapping classes, and two encoders of one quality: retention is 1, and McNemar's null holds."""
    rng = np.random.default_rng((11, trial))
    labels = rng.integers(0, 3, n)
    shared = rng.normal(size=(n, d)) * np.arange(1, d + 1) ** -0.5
    shared[:, :3] += 1.2 * np.eye(3)[labels]
    return *(shared + 0.45 * rng.normal(size=(n, d)) for _ in range(2)), labels


def rotation(seed: int, d: int) -> np.ndarray:
    return np.linalg.qr(np.random.default_rng(seed).normal(size=(d, d)))[0]
