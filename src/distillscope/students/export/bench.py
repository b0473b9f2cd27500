"""How fast students and their files are on this machine, timed in turn so that ratios come from one run; and what they take."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from distillscope import progress
from distillscope.errors import UserError
from distillscope.students.export.load import load_artefact
from distillscope.students.hub import is_folder, pinned, student_folder
from distillscope.students.load import StudentEncoder, load_student
from distillscope.teachers.artefacts import Artefact
from distillscope.teachers.encoder import Encoder
from distillscope.teachers.model_files import FileNetwork

Model = StudentEncoder | Encoder
ROUNDS = 15
WARM_UP = 3
MOST_THREADS, MOST_IMAGES, MOST_SECONDS = 1024, 65_536, 86_400
PAUSE = 0.005
"""Seconds between two models' turns: a runtime's threads spin a little after their last call."""


@dataclass(frozen=True)
class Timing:
    """One model at one batch and number of threads, from uint8 images at its size to embeddings.

    Milliseconds are those of a call. ``ratio`` is how many times as fast as the first model's a call is: the median over rounds
    that timed both. ``peak_mib`` is what a process's memory rises by at most while it loads and calls the model; None
    where the system does not say.
    """

    name: str
    runtime: str
    precision: str
    threads: int
    batch: int
    median_ms: float
    p90_ms: float
    images_per_second: float
    ratio: float
    calls: int
    size_bytes: int
    peak_mib: float | None

    def plain(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)


def bench(paths: Sequence[Path | str], *, threads: Sequence[int] = (1,), batches: Sequence[int] = (1,), seconds: float = 1.0,
          memory: bool = True, others: Mapping[str, Callable[[], Encoder]] | None = None) -> list[Timing]:
    """Time students (folders) and artefacts (files) against one another: about ``seconds`` each, batch and number of threads.

    ``others`` open what is neither, by name; their memory is not measured. A file that is fixed to another batch is left out
    there, and said; where none is left at any batch, refused.
    """
    for option, values, most in (("--threads", threads, MOST_THREADS), ("--batch", batches, MOST_IMAGES)):
        if not values or min(values) < 1 or max(values) > most:
            raise UserError(option, f"whole numbers from 1 to {most:,}", ", ".join(map(str, values)) or "none",
                            "1,32 are usual for batches.")
    if not paths:
        raise UserError("bench", "students' folders or exported files", "none", "Name one.")
    if not 0 < seconds <= MOST_SECONDS:
        raise UserError("--seconds", f"a time above 0, up to {MOST_SECONDS:,}", f"{seconds:g}", "1 is usual.")
    names = [pinned(path) for path in paths]
    before = torch.get_num_threads()
    found: list[Timing] = []
    try:
        for count in threads:
            torch.set_num_threads(count)  # what runtimes open their files with, too
            models: dict[str, Model] = {name: _load(name) for name in names}
            models |= {name: open_one() for name, open_one in (others or {}).items()}
            fitting = _fitting(models, batches, say=count == threads[0])
            steps = sum(len(fit) for _, fit in fitting) * (ROUNDS + 1)
            with progress.late_task(f"bench, {count} thread{'s' * (count > 1)}", steps, "turns") as advance:
                for batch, fit in fitting:
                    found += _timed(fit, count, batch, seconds, set(names) if memory else set(), advance)
    finally:
        torch.set_num_threads(before)
    return found


def _fitting(models: Mapping[str, Model], batches: Sequence[int], say: bool) -> list[tuple[int, dict[str, Model]]]:
    """The batches, each with the models that take it, without those that none does; what is left out is said."""
    found = []
    for batch in batches:
        fit = {name: m for name, m in models.items() if not isinstance(m, Artefact) or m.batch in (None, batch)}
        for name in sorted(models.keys() - fit.keys()) if say else ():
            progress.say(f"bench {name}: fixed to batch {getattr(models[name], 'batch', 1)}, left out at {batch}")
        if fit:
            found.append((batch, fit))
    if not found:
        raise UserError(f"bench --batch {','.join(map(str, batches))}", "a model that takes this batch",
                        "only files fixed to another", "Name a file with a dynamic batch, or another --batch.")
    return found


def _load(path: Path | str) -> Model:
    return load_student(path, "cpu") if is_folder(path) else load_artefact(path)


def _timed(models: dict[str, Model], threads: int, batch: int, seconds: float, memory: set[str],
           advance: Callable[[int], None]) -> list[Timing]:
    """Every model in turn, ROUNDS times; ``memory`` names those whose memory is measured, which takes about a turn."""
    calls = {name: _call(model, batch) for name, model in models.items()}
    taken: dict[str, list[list[float]]] = {name: [] for name in calls}
    with torch.inference_mode():
        for call in calls.values():
            for _ in range(WARM_UP):
                call()
        for _ in range(ROUNDS):
            for name, call in calls.items():
                time.sleep(PAUSE)
                taken[name].append(_one_turn(call, seconds / ROUNDS))
                advance(1)
    first = next(iter(taken))
    medians = {name: [statistics.median(turn) for turn in turns] for name, turns in taken.items()}
    found = []
    for name, model in models.items():
        every = [s for turn in taken[name] for s in turn]
        middle = statistics.median(every)
        ratio = statistics.median(a / b for a, b in zip(medians[first], medians[name], strict=True))
        found.append(Timing(name, runtime_of(model), precision_of(model), threads, batch, 1000 * middle,
                            1000 * float(np.quantile(every, 0.9)), batch / middle, ratio, len(every), bytes_of(model),
                            peak_memory(name, threads, batch) if name in memory else None))
        advance(1)
    return found


def _one_turn(call: Callable[[], Any], seconds: float) -> list[float]:
    """Seconds of each call until the time is over; three at least."""
    taken: list[float] = []
    end = time.perf_counter() + seconds
    while len(taken) < 3 or time.perf_counter() < end:
        began = time.perf_counter()
        call()
        taken.append(time.perf_counter() - began)
    return taken


def _call(model: Model, batch: int) -> Callable[[], Any]:
    """One call: pixels to embeddings, with the colours' normalisation and without any decoding or resizing."""
    seen = model.facts.preprocessing if isinstance(model, Artefact) else model.preprocess
    pixels = np.random.default_rng(0).integers(0, 256, (batch, seen.size, seen.size, 3), dtype=np.uint8)
    if isinstance(model, Artefact):
        return lambda: model.call(pixels)
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2)
    return lambda: model.module(seen.normalise(images.float().div_(255))).numpy()


def runtime_of(model: Model) -> str:
    """What runs it."""
    return model.module.runtime if isinstance(model.module, FileNetwork) else "torch"


def precision_of(model: Model) -> str:
    """What it computes in, as far as it says."""
    return model.facts.precision if isinstance(model, Artefact) else model.precision


def bytes_of(model: Model) -> int:
    """Bytes of its file or files, or of its parameters and buffers."""
    if isinstance(model.module, FileNetwork):
        return sum(p.stat().st_size for p in model.module.files())
    return sum(t.numel() * t.element_size() for t in model.module.state_dict().values())


PROBE = """
import sys
from pathlib import Path
import torch
from distillscope.students.export import bench
path, threads, batch = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
torch.set_num_threads(threads)
bench.import_runtime(path)
with torch.inference_mode():
    torch.nn.Conv2d(3, 3, 3)(torch.zeros(1, 3, 8, 8))
    Path("/proc/self/clear_refs").write_text("5")
    before = bench.resident_mib("VmRSS")
    call = bench._call(bench._load(path), batch)
    for _ in range(3):
        call()
print(bench.resident_mib("VmHWM") - before)
"""


def peak_memory(path: str, threads: int, batch: int) -> float | None:
    """MiB that a process of its own needs at most to load and call the model, above what its libraries take."""
    if not Path("/proc/self/clear_refs").exists():
        return None
    place = str(student_folder(path))
    done = subprocess.run([sys.executable, "-c", PROBE, place, str(threads), str(batch)], capture_output=True, text=True)
    last = done.stdout.strip().splitlines()
    return max(float(last[-1]), 0.0) if done.returncode == 0 and last else None


def resident_mib(key: str) -> float:
    """VmRSS or VmHWM of this process."""
    line = next(x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith(key))
    return int(line.split()[1]) / 1024


def import_runtime(path: Path) -> None:
    """Import what runs the file, so that only the model counts."""
    import contextlib
    import importlib

    module = {".onnx": "onnxruntime", ".xml": "openvino", ".tflite": "ai_edge_litert.interpreter",
              ".pte": "executorch.runtime"}.get(path.suffix.lower())
    with contextlib.suppress(ImportError):
        importlib.import_module(module or "torch")


def int8_instructions() -> str:
    """What this processor has for int8, in words; runtimes are hardly faster in int8 than in float32 without it."""
    path = Path("/proc/cpuinfo")
    flags = set(path.read_text().split()) if path.exists() else set()
    if not flags:
        return "int8 instructions unknown"
    found = [name for flag, name in (("avx_vnni", "AVX-VNNI"), ("avx512_vnni", "AVX512-VNNI"), ("amx_int8", "AMX"),
                                     ("asimddp", "dot product")) if flag in flags]
    return f"int8 instructions: {', '.join(found)}" if found else "no VNNI, no AMX"
