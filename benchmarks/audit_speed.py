"""What an audit costs against a user's own script of the same questions (audit_by_hand.py): processor and wall seconds.

Both sides are whole processes, imports and reading included, in turn A B A B: the medians of five and their ratio, with one
thread and with two. Embeddings are float32 files with a decaying spectrum and classes. "shell" is `distillscope audit` of two
small files beside the import of NumPy alone.

    python benchmarks/audit_speed.py --out DIR [--rounds 5] [--threads 1 2] [--only CASE ...]
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from timing import publish, spread

BY_HAND = Path(__file__).with_name("audit_by_hand.py")
CASES = {"10,000 x 512": (10_000, 512, False), "10,000 x 512, 10 classes": (10_000, 512, True),
         "300 x 1,280": (300, 1280, False),
         "shell, 1,000 x 64": (1000, 64, False)}
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def make(folder: Path, count: int, dim: int) -> list[Path]:
    """Teacher, student and labels: ten classes in a decaying spectrum; the student is the teacher and noise."""
    rng = np.random.default_rng(0)
    scale = (np.arange(1, dim + 1) ** -0.5).astype(np.float32)
    labels = rng.integers(0, 10, count)
    centres = 0.7 * rng.standard_normal((10, dim)).astype(np.float32) * scale
    teacher = rng.standard_normal((count, dim), dtype=np.float32) * scale + 0.1 + centres[labels]
    student = 0.7 * teacher + 0.5 * rng.standard_normal((count, dim), dtype=np.float32) * scale
    paths = [folder / f"{name}.npy" for name in ("teacher", "student", "labels")]
    for path, values in zip(paths, (teacher, student, labels), strict=True):
        np.save(path, values)
    return paths


def commands(case: str, paths: list[Path]) -> dict[str, list[str]]:
    """The two sides of a case."""
    teacher, student, labels = map(str, paths)
    audit = [sys.executable, "-m", "distillscope.cli", "audit", "--teacher", teacher, "--student", student]
    if case.startswith("shell"):
        return {"audit": audit, "by hand": [sys.executable, "-c", "import numpy"]}
    with_labels = CASES[case][2]
    return {"audit": [*audit, *(["--labels", labels] if with_labels else [])],
            "by hand": [sys.executable, str(BY_HAND), teacher, student, *([labels] if with_labels else [])]}


def run(command: list[str], threads: int) -> tuple[float, float]:
    """Processor and wall seconds of a process and its children."""
    began = time.perf_counter()
    process = subprocess.Popen(command, env={**os.environ, **dict.fromkeys(THREADS, str(threads))}, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{command} ended with {process.returncode}")
    return usage.ru_utime + usage.ru_stime, wall


def measured(case: str, paths: list[Path], threads: int, rounds: int) -> dict:
    sides = commands(case, paths)
    for command in sides.values() if rounds > 1 else ():  # a first run fills the page cache and compiles modules
        run(command, threads)
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, command in sides.items():
            found[name].append(run(command, threads))
    record: dict = {"case": case, "threads": threads}
    for name, values in found.items():
        for what, numbers in zip(("processor_seconds", "wall_seconds"), zip(*values, strict=True), strict=True):
            record.setdefault(name, {})[what] = spread(list(numbers))
    record |= {f"ratio_{what}": record["audit"][f"{what}_seconds"]["median"] / record["by hand"][f"{what}_seconds"]["median"]
               for what in ("processor", "wall")}
    return record


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--only", nargs="+", choices=list(CASES), default=list(CASES))
    given = parser.parse_args()
    found = []
    for case in given.only:
        with tempfile.TemporaryDirectory() as folder:
            paths = make(Path(folder), *CASES[case][:2])
            for threads in given.threads:
                found.append(measured(case, paths, threads, given.rounds))
                print({k: round(v, 3) for k, v in found[-1].items() if k.startswith("ratio")}, case, threads,
                      {n: round(found[-1][n]["processor_seconds"]["median"], 2) for n in ("audit", "by hand")}, file=sys.stderr)
    publish("audit_speed", given.out, {"rounds": given.rounds, "cases": found})


if __name__ == "__main__":
    main()
