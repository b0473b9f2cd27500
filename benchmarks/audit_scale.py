"""Time and memory of the audit against N and d, and of the spectrum against the bare float64 product.

Embeddings are float16 files on disk, memory-mapped. "product" casts blocks of 8,192 rows to float64 and sums their
z^T z: what any exact spectrum must do at the least. "spectrum" is the audit's own centred moments of ten groups and their
eigenvalues; "audit" is everything that applies without labels, intervals and nulls included. Memory is the largest
anonymous resident memory seen (each 20 ms) above that before the call: pages of the files themselves can be dropped.

    python benchmarks/audit_scale.py --out DIR [--most 1000000] [--audits] [--rounds 3]
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
from timing import publish

CASES = [(1_000, 512), (10_000, 512), (100_000, 128), (100_000, 512), (100_000, 2048), (300_000, 512), (1_000_000, 512)]
AUDITED = [(1_000, 512), (10_000, 512), (100_000, 512), (300_000, 512), (1_000_000, 512)]
BLOCK = 8192


def make(path: Path, count: int, dim: int, seed: int, base: Path | None = None) -> None:
    """A float16 file (count, dim) with a decaying spectrum and a mean; the student's follows the teacher's ``base``."""
    rng = np.random.default_rng(seed)
    out = np.lib.format.open_memmap(path, mode="w+", dtype=np.float16, shape=(count, dim))
    scale = (np.arange(1, dim + 1) ** -0.5).astype(np.float32)
    other = None if base is None else np.load(base, mmap_mode="r")
    for i in range(0, count, BLOCK):
        rows = rng.standard_normal((min(BLOCK, count - i), dim), dtype=np.float32) * scale
        out[i : i + BLOCK] = rows + 0.3 if other is None else 0.7 * other[i : i + BLOCK].astype(np.float32) + 0.5 * rows
    out.flush()


def product(path: Path) -> None:
    z = np.load(path, mmap_mode="r")
    total = np.zeros((z.shape[1],) * 2)
    for i in range(0, len(z), BLOCK):
        block = np.asarray(z[i : i + BLOCK], np.float64)
        total += block.T @ block


def spectrum(path: Path) -> None:
    from distillscope.measure.pool import Side
    from distillscope.measure.rows import Rows
    from distillscope.measure.scan import Items

    rows = Rows(np.load(path, mmap_mode="r"))
    _ = Side(rows, items=Items.of(np.arange(rows.count, dtype=np.uint64)), precision="float16").eigenvalues


def whole(path: Path) -> None:
    from distillscope import audit

    audit(np.load(path, mmap_mode="r"), np.load(path.with_name("student.npy"), mmap_mode="r"))


def anonymous_mib() -> float:
    return int(re.search(r"RssAnon:\s+(\d+)", Path("/proc/self/status").read_text())[1]) / 1024


def child(what: str, path: Path, rounds: int) -> None:
    """Run in its own process: seconds of each round, and the memory above that before the first."""
    run = {"product": product, "spectrum": spectrum, "audit": whole}[what]
    import distillscope.measure.audit  # noqa: F401  imports are no part of the figures

    before, peak, done = anonymous_mib(), 0.0, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.02):
            peak = max(peak, anonymous_mib())

    watcher = threading.Thread(target=watch)
    watcher.start()
    seconds, processor = [], []
    for _ in range(rounds):
        began, used = time.perf_counter(), time.process_time()
        run(path)
        seconds.append(time.perf_counter() - began)
        processor.append(time.process_time() - used)
    done.set()
    watcher.join()
    print(json.dumps({"seconds": seconds, "processor": processor, "extra_mib": max(0.0, peak - before)}))


def in_child(what: str, path: Path, rounds: int) -> dict:
    command = [sys.executable, str(Path(__file__).resolve()), "--child", what, str(path), str(rounds)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path)
    parser.add_argument("--most", type=int, default=1_000_000, help="largest N")
    parser.add_argument("--rounds", type=int, default=1, help="of the audit: its median")
    parser.add_argument("--audits", action="store_true", help="audits alone, without products and spectra")
    parser.add_argument("--folder", type=Path, help="where the files go [default: a temporary folder]")
    parser.add_argument("--child", nargs=3)
    given = parser.parse_args()
    if given.child:
        child(given.child[0], Path(given.child[1]), int(given.child[2]))
        return
    found = []
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        path = Path(folder) / "teacher.npy"
        for count, dim in CASES:
            if count > given.most or (given.audits and (count, dim) not in AUDITED):
                continue
            make(path, count, dim, 0)
            parts: dict[str, list[float]] = {"product": [], "spectrum": []}
            memory = 0.0
            for _ in range(0 if given.audits else 3 if count * dim < 2**28 else 1):  # in turn: A B A B
                for what, seconds in parts.items():
                    result = in_child(what, path, 1)
                    seconds += result["seconds"]
                    memory = max(memory, result["extra_mib"] if what == "spectrum" else 0)
            record: dict[str, float] = {"n": count, "d": dim}
            if not given.audits:
                record |= {f"{k}_seconds": float(np.median(v)) for k, v in parts.items()}
                record |= {"spectrum_extra_mib": memory, "ratio": record["spectrum_seconds"] / record["product_seconds"]}
            if (count, dim) in AUDITED:
                make(path.with_name("student.npy"), count, dim, 1, path)
                result = in_child("audit", path, given.rounds)
                record |= {"audit_seconds": float(np.median(result["seconds"])),
                           "audit_processor_seconds": float(np.median(result["processor"])),
                           "audit_extra_mib": result["extra_mib"]}
            print({k: round(v, 3) for k, v in record.items()}, file=sys.stderr, flush=True)
            found.append(record)
    publish("audit_scale", given.out, {"dtype": "float16", "rounds": given.rounds, "cases": found})


if __name__ == "__main__":
    main()
