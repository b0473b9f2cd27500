"""A run directory made of invented numbers, shaped like a real one. Every value in it is fake, for tests only."""

from __future__ import annotations

import csv
import io
import json
import random
import zlib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from distillscope.draws import keyed_rng
from distillscope.results.rundir import COMPLETE, write_results

SIGMAS = (0.02, 0.05, 0.1, 0.2)
PARAMETERS = {"S": 811_264, "M": 1_405_440, "L": 2_732_032}


def _spectrum(dim: int, steepness: float, rng: np.random.Generator) -> np.ndarray:
    s = np.arange(1, dim + 1) ** -steepness * np.exp(rng.normal(0, 0.03, dim))
    return np.sort(s)[::-1]


def _measures_of_spectrum(s: np.ndarray, who: str) -> dict[str, float]:
    p = s**2 / (s**2).sum()
    share = np.cumsum(p)
    return {f"{who}.effective_rank": float(np.exp(-(p * np.log(p)).sum())),
            f"{who}.rankme": float(np.exp(-((q := s / s.sum()) * np.log(q)).sum())),
            **{f"{who}.dims_{k}": float((share < k / 100).sum() + 1) for k in (90, 95, 99)},
            f"{who}.participation_ratio": float(1 / (p**2).sum()), f"{who}.uniformity": float(-2 + 1 / (p**2).sum() ** 0.5)}


def _curve(y, unit: str, low=None, high=None) -> dict:
    return {"x": list(range(1, len(y) + 1)), "y": [float(v) for v in y], "low": low, "high": high, "unit": unit}


def _write(folder: Path, base: dict, rows: list[tuple], curves: dict, complete: bool, epochs: list[dict] = ()) -> None:
    done = {"trial": {k: base[k] for k in ("dataset", "teacher", "arm", "student", "seed")}, "seconds": 61.5, "warnings": []}
    write_folder(folder, [{**base, "condition": c, "draw": d, "measure": m, "value": v, "n": n, "unit": u}
                          for c, d, m, v, n, u in rows],
                 curves, done if complete else None, epochs)


def _accuracy_rows(key: str, clean: float, fall: float, rng: np.random.Generator, draws: int) -> list[tuple]:
    rows = [("clean", "", key, round(clean, 4), 10_000, "fraction")]
    for sigma in SIGMAS:
        centre = max(0.1, clean - fall * sigma**1.5 * 10)
        rows += [(f"noise={sigma}", d, key, round(float(np.clip(centre + rng.normal(0, 0.01), 0, 1)), 4), 10_000, "fraction")
                 for d in range(draws)]
    return rows


def make_run(path: Path, *, students=("S", "M", "L"), seeds=(42, 123, 456), arms=("cosine",), datasets=("cifar10",),
             teachers=("clip-vit-b32",), target="none", labels=True, draws=2, incomplete=(), published=(),
             epochs=5, dim=96, provenance=True, spread="sample", where="source pixels") -> Path:
    """Write a run directory. ``incomplete`` lists (arm, student, seed) that have no complete.json."""
    study = {"name": "synthetic", "description": "Invented numbers for tests.", "seeds": list(seeds),
             "data": [{"name": d} for d in datasets], "teacher": [{"name": t} for t in teachers],
             "students": [{"name": "paper_cnn", "label": s} for s in students],
             "arms": [{"name": a, "objective": [{"name": "cosine", "weight": 1.0}]} for a in arms],
             "published": list(published), "spread": spread,
             "noise": {"sigmas": list(SIGMAS), "where": "source" if where.startswith("source") else "input"}}
    path = write_study(Path(path), study)
    if provenance:
        conditions = {f"noise={s}": {"sigma_normalised": [s / 0.2686, s / 0.2613, s / 0.2758], "sigma_pixel": s,
                                     "where": where, "clipped": False} for s in SIGMAS}
        (path / "provenance.json").write_text(json.dumps(
            {"distillscope": "0.1.0", "versions": {"torch": "2.9.0", "numpy": "2.2.0"}, "commit": "0123abc", "device": "cpu",
             "threads": 1, "hardware": "2-core test machine", "command": "distillscope run synthetic --out runs/synthetic",
             "started": "2025-01-01T10:00:00+00:00", "seconds": 912.4, "conditions": conditions}))
    for dataset in datasets:
        for teacher in teachers:
            _setting(path, dataset, teacher, students, seeds, arms, target, labels, draws, incomplete, epochs, dim)
    return path


def _folder(*names: str) -> str:
    """A folder's name can hold less than a label can."""
    name = "--".join("".join(c if c.isalnum() or c in "-_." else "_" for c in n) for n in names)
    return name if len(name) < 200 else f"{name[:150]}~{zlib.crc32(name.encode())}"


def _setting(path, dataset, teacher, students, seeds, arms, target, labels, draws, incomplete, epochs, dim) -> None:
    shared = {"study": "synthetic", "dataset": dataset, "split": "test", "teacher": teacher}
    teacher_curve = None
    for name in dict.fromkeys((target, "none")):
        rng = keyed_rng(dataset, teacher, name)
        s = _spectrum(dim if name != "none" else dim * 2, 0.55, rng)
        share = np.cumsum(s**2) / (s**2).sum()
        teacher_curve = share if name == target else teacher_curve
        rows = [("clean", "", m, v, 10_000, "dimensions") for m, v in _measures_of_spectrum(s, "teacher").items()]
        if labels:
            rows += _accuracy_rows("paper.probe.teacher.accuracy", 0.943, 0.11, rng, draws)
        _write(path / "references" / _folder(dataset, teacher, name),
               {**shared, "student": "teacher", "target": name, "objective": "", "seed": "", "arm": ""}, rows,
               {"teacher.spectrum": _curve(s, "singular value"), "teacher.cumulative_variance": _curve(share, "share")}, True)
    for arm_index, arm in enumerate(arms):
        for size, student in enumerate(students):
            for seed in seeds:
                folder = path / "trials" / _folder(dataset, teacher, arm, student, f"seed{seed}")
                rng = keyed_rng(dataset, teacher, arm, student, seed)
                _trial(folder,
                       {**shared, "student": student, "target": target, "objective": "cosine", "seed": seed, "arm": arm},
                       size, arm_index, labels, draws, epochs, dim, teacher_curve, rng, (arm, student, seed) not in incomplete)


def _trial(folder, base, size, arm_index, labels, draws, epochs, dim, teacher_curve, rng, complete) -> None:
    s = _spectrum(dim, 0.95 - 0.01 * size - 0.15 * arm_index, rng)
    share = np.cumsum(s**2) / (s**2).sum()
    cosine = 0.71 + 0.012 * size + rng.normal(0, 0.003)
    infonce = 3.31 - 0.018 * size + rng.normal(0, 0.006)
    parameters = PARAMETERS.get(base["student"], 500_000 * (size + 1))
    rows = [("clean", "", m, v, 10_000, "dimensions") for m, v in _measures_of_spectrum(s, "student").items()]
    rows += [("clean", "", m, float(v), 10_000, u) for m, v, u in (
        ("alignment.mean_cosine", cosine, "cosine"), ("alignment.student_variance_top20", 0.87, "fraction"),
        ("alignment.teacher_variance_captured", 0.31 + 0.02 * size, "fraction"),
        ("alignment.teacher_r2", 0.3 + 0.02 * size, "fraction"),
        ("paper.infonce", infonce, "nats"), ("paper.infonce_ceiling", 4.150, "nats"),
        ("paper.uniformity", -0.40 - 0.01 * size, ""),
        ("contrastive.infonce", infonce + 2.1, "nats"), ("contrastive.ceiling", float(np.log(1024)), "nats"),
        ("contrastive.retained_share", 0.22, "fraction"), ("capacity.parameters", parameters, "parameters"),
        ("capacity.multiply_adds", 9e6 * 4**size, "operations"), ("train.seconds", 60.0, "seconds"))]
    if labels:
        rows += _accuracy_rows("paper.probe.student.accuracy", 0.71 + 0.009 * size + rng.normal(0, 0.004),
                               0.5 + 0.2 * size + rng.normal(0, 0.05), rng, draws)
        rows.append(("clean", "", "knn.student.accuracy", 0.66 + 0.01 * size, 10_000, "fraction"))
    on_student = np.cumsum(s**2 * np.linspace(1, 0.9, dim)) / (s**2).sum()
    ks = [16, 64, 256, 1024]
    curves = {"student.spectrum": _curve(s, "singular value"), "student.cumulative_variance": _curve(share, "share"),
              "alignment.student_on_teacher": _curve(on_student, "share"),
              "alignment.teacher_on_teacher": _curve(teacher_curve[:dim], "share"),
              "alignment.null": _curve(np.arange(1, dim + 1) / dim, "share"),
              "alignment.teacher_r2_per_component": _curve(0.9 * np.arange(1, dim + 1) ** -0.5, "fraction"),
              "contrastive.infonce_by_k": {"x": ks, "y": [float(np.log(k) * 0.8 - 0.02 * size) for k in ks], "low": None,
                                           "high": None, "unit": "nats"}}
    lines = [{"epoch": e, "step": 100 * e, "seconds": 12.0 * e, "loss": 0.3 + 0.4 / e + float(rng.normal(0, 0.005)),
              "cosine": 0.7 - 0.4 / e + 0.01 * size, "effective_rank": 16 - 9 / e + float(rng.normal(0, 0.2)),
              "knn_accuracy": (0.66 - 0.3 / e) if labels else None, "n": 1000, "lr": 1e-3, "images_per_second": 2500.0}
             for e in range(1, epochs + 1)]
    _write(folder, base, rows, curves, complete, lines)


if __name__ == "__main__":
    import sys

    print(make_run(Path(sys.argv[1]), arms=("cosine", "augmented"), target="pca512"))


def keep_pictures(run: Path, classes: int = 4, count: int = 80) -> Path:
    """Keepsakes for every model of a `make_run`, of flat-coloured items: the first seed's of each, as a study keeps them."""
    from distillscope.data.source import Source
    from distillscope.study.keepsakes import Kept, confusion, keep

    rng = keyed_rng("pictures", count)
    labels = np.arange(count) % classes
    pixels = np.zeros((count, 8, 8, 3), np.uint8) + rng.integers(0, 256, (count, 1, 1, 3)).astype(np.uint8)
    test = Source("cifar10", "test", np.array([f"cifar10/test/{i:06d}" for i in range(count)]), pixels.__getitem__, labels,
                  tuple(f"<class {i}>" for i in range(classes)), pixels)
    centres = rng.normal(size=(classes, 16)) * 3

    def model(noise: float, wrong: int) -> Kept:
        z = (centres[labels] + noise * rng.normal(size=(count, 16))).astype(np.float32)
        predicted = np.where(np.arange(count) < wrong, (labels + 1) % classes, labels)
        return Kept(z, predicted, confusion(labels, predicted, classes))

    teacher = model(1.0, 4)
    for folder in sorted((run / "references").iterdir()):
        keep(folder / "keepsakes", test, teacher, [])
    kept = set()
    for folder in sorted((run / "trials").iterdir()):
        name, _, seed = folder.name.rpartition("--seed")
        if name not in kept:
            kept.add(name)
            keep(folder / "keepsakes", test, model(2.0, 30), [int(seed)], teacher)
    return run


def write_study(run: Path, study: Mapping[str, Any], *, sort_keys: bool = False) -> Path:
    """study.yaml as given: invented names need not be ones that the program knows."""
    run.mkdir(parents=True, exist_ok=True)
    (run / "study.yaml").write_text(yaml.safe_dump(dict(study), sort_keys=sort_keys))
    return run


def write_folder(folder: Path, rows: Iterable[Mapping[str, Any]], curves: Mapping[str, Any], done: Mapping[str, Any] | None,
                 epochs: Iterable[Mapping[str, Any]] = ()) -> Path:
    """A folder of trials/ or references/; without ``done`` it is not complete. ``epochs`` are the lines of metrics.jsonl."""
    folder.mkdir(parents=True)
    write_results(folder, rows, curves, done or {})
    if done is None:
        (folder / COMPLETE).unlink()
    if lines := [json.dumps(dict(epoch)) + "\n" for epoch in epochs]:
        (folder / "metrics.jsonl").write_text("".join(lines))
    return folder


CONTENTS = {"list": b"[]", "number": b"5", "null": b"null", "text": b"x", "deep": b"[" * 100_000, "mapping": b"{}",
            "NaN": b"NaN",
            "bytes": b"\xff\xfe\x00", "list of lists": b"[[1]]", "string": b'"x"', "NUL": b"\0" * 100,
            "long number": b"9" * 5000}
CELLS = ("inf", "nan", "-1", "1e999", "x", "", "=1+1", "<script>", "9" * 40, "1e30", "\x1b[31m", "1.5")
VALUES = {
    "students": ["[]", "5", "null", "[5]", "{a: 1}", "x"],
    "arms": ["[]", "5", "null", "[5]", "x", "[{name: [1]}]", "[{name: a, training: {epochs: x}}]"],
    "seeds": ["[]", "x", "null", "[x]", "5", "[null]"],
    "noise": ["[]", "5", "{sigmas: x}", "{std: [1]}", "null", "{sigmas: [.nan]}"],
    "data": ["[]", "5", "null"], "teacher": ["[]", "5", "null"], "published": ["5", "[5]", "[{measure: [1]}]", "x"],
    "name": ["[]", "{a: 1}", "5", "''"], "description": ["[]", "5"], "spread": ["x", "5"],
    "training": ["5", "[]", "{epochs: x}"],
    "target": ["5", "[]"], "remedies": ["5", "[5]"], "stresses": ["5"], "probes": ["5"], "validation": ["x"], "limit": ["x"],
    "screen": ["[]"]}


def mutated(content: bytes, rng: random.Random) -> bytes:
    """One to four bytes changed, a part cut out or doubled."""
    data = bytearray(content)
    kind = rng.randrange(4)
    if kind == 0:
        for _ in range(rng.randint(1, 4)):
            data[rng.randrange(len(data))] = rng.randrange(256)
    elif kind == 1:
        del data[rng.randrange(len(data)):]
    else:
        first, last = sorted(rng.randrange(len(data) + 1) for _ in range(2))
        if kind == 2:
            del data[first:last]
        else:
            data[first:first] = data[first:min(last, first + 200)]
    return bytes(data)


def with_cell(column: str, value: str) -> Callable[[bytes], bytes]:
    """Every second row of a CSV with another value in one column."""
    def change(content: bytes) -> bytes:
        head, *rows = csv.reader(io.StringIO(content.decode()))
        for row in rows[::2]:
            row[head.index(column)] = value
        out = io.StringIO()
        csv.writer(out).writerows([head, *rows])
        return out.getvalue().encode()
    return change


def with_setting(key: str, text: str) -> Callable[[bytes], bytes]:
    """study.yaml with one key set to a piece of YAML."""
    def change(content: bytes) -> bytes:
        kept = {k: v for k, v in yaml.safe_load(content).items() if k != key}
        return f"{yaml.safe_dump(kept)}{key}: {text}\n".encode()
    return change


def with_key(key: str, value: object) -> Callable[[bytes], bytes]:
    """A JSON object with one key of another value."""
    return lambda content: json.dumps({**json.loads(content), key: value}).encode()


def with_predictions(run, share, seed=0):
    """Saves predictions of 300 items to every trial; about ``share`` of them are right."""
    for path in sorted(run.glob("trials/*")):
        rng = np.random.default_rng([seed, int(path.name.rpartition("seed")[2])])
        labels = np.arange(300) % 10
        columns = {"id": [f"test/{i}" for i in range(300)], "label": labels}
        for name in ("paper|clean|", "paper|noise=0.2|0", "paper|noise=0.2|1"):
            columns[name] = np.where(rng.random(300) < share, labels, (labels + 1) % 10)
        pd.DataFrame(columns).to_parquet(path / "predictions.parquet", index=False)
    return run
