"""Exported files against their student in torch, and int8 against float32: latency, size, peak memory.

    python benchmarks/export_speed.py [--out DIR] [--seconds 4] [--students S M L mobilenetv4]

Random weights, batch norms' statistics from 128 images; 1280-d embeddings. All models of a student are timed in turn in one
process (`distillscope bench`), one thread; a ratio is the median over rounds. Speed does not depend on what weights hold; the
cosine of int8 does, and is that of an untrained network.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import torch
from timing import publish, some_images

from distillscope.data.preprocess import Preprocess
from distillscope.data.source import one_tensor
from distillscope.students.export.bench import bench, int8_instructions
from distillscope.students.export.write import export_student
from distillscope.students.load import build_student, save_student

STUDENTS = {"S": ("paper_cnn", {"width": 1}, 32), "M": ("paper_cnn", {"width": 2}, 32), "L": ("paper_cnn", {"width": 4}, 32),
            "mobilenetv4": ("timm", {"model": "mobilenetv4_conv_small"}, 128)}
DIM = 1280
FILES = (("onnx", "float32", "float32.onnx"), ("onnx", "float16", "float16.onnx"), ("onnx", "int8", "int8.onnx"),
         ("openvino", "float32", "float32.xml"), ("openvino", "int8", "int8.xml"), ("executorch", "float32", "float32.pte"))


def untrained(label: str, folder: Path) -> Path:
    """A student's folder with random weights and the statistics of real images."""
    name, settings, size = STUDENTS[label]
    torch.manual_seed(0)
    student = build_student(name, settings, DIM, Preprocess(size), label, torch.device("cpu"))
    images = some_images(128)
    student.module.train()
    with torch.no_grad():
        for start in range(0, 128, 32):
            student.module(student.preprocess(one_tensor(images.read(range(start, start + 32)))))
    save_student(student, folder, {"dataset": images.name})
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--students", nargs="+", default=list(STUDENTS), choices=list(STUDENTS))
    args = parser.parse_args()
    record: dict[str, Any] = {}
    exported: dict[str, list[Path]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        for label in args.students:
            folder = Path(scratch) / label
            folder.mkdir()
            untrained(label, folder)
            files, cosines = [folder], {}
            for to, precision, name in FILES:
                made = export_student(folder, Path(scratch) / f"{label}.{name}", to=to, precision=precision, min_cosine=0.9)
                files.append(made[0].path)
                cosines[name] = {"mean": made[0].agreement.mean, "worst": made[0].agreement.worst,
                                 **{k: made[0].decided["chosen"][k] for k in ("method", "weight_bits") if made[0].decided}}
            exported[label], record[label] = files, {"cosine_to_network": cosines}
            print(f"{label}: {len(files) - 1} files exported", flush=True)
        for label, files in exported.items():  # timed once nothing else is left to do
            timings = bench(files, threads=(1,), batches=(1, 32), seconds=args.seconds)
            timings += bench([files[1], files[3]], threads=(1,), batches=(1, 32), seconds=args.seconds, memory=False)
            record[label]["timings"] = [
                {**t.plain(), "name": Path(t.name).name, "against": "torch" if i < len(timings) - 4 else "onnx float32"}
                for i, t in enumerate(timings)]
            for t in record[label]["timings"]:
                print(label, t["against"], t["name"], t["batch"], f"{t['median_ms']:.3f} ms, x{t['ratio']:.2f}", flush=True)
        publish("export_speed", args.out, {"int8": int8_instructions(), "threads": 1, "students": record})


if __name__ == "__main__":
    main()
