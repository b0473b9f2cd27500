"""Exported files against their student in torch, and int8 against float32: latency, size, peak memory.

    python benchmarks/export_speed.py [--out DIR] [--seconds 4] [--students S M L mobilenetv4]

Random weights, batch norms' statistics from 128 images; 1280-d embeddings. All models of a student are timed in turn in one
process (`distillscope bench`), one thread; a ratio is the median over rounds. Speed does not depend on what weights hold; the
cosine of int8 does, and is that of an untrained network.
"""

from __future__ import annotations

import argparse
import json
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


def exported(label: str, place: Path) -> dict[str, Any]:
    """Each file's cosine to the network, once all are in ``place``; files of an earlier call are kept."""
    done = place / f"{label}.json"
    if done.exists():
        return dict(json.loads(done.read_text()))
    folder, cosines = place / label, {}
    folder.mkdir(parents=True, exist_ok=True)
    untrained(label, folder)
    for to, precision, name in FILES:
        made = export_student(folder, place / f"{label}.{name}", to=to, precision=precision,
                              min_cosine=0.9 if precision == "int8" else None)[0]
        cosines[name] = {"mean": made.agreement.mean, "worst": made.agreement.worst,
                         **{k: made.decided["chosen"][k] for k in ("method", "weight_bits") if made.decided}}
    done.write_text(json.dumps(cosines))
    print(f"{label}: {len(FILES)} files exported", flush=True)
    return cosines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--files", type=Path, help="a folder to export to, and to take files from that are there")
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--students", nargs="+", default=list(STUDENTS), choices=list(STUDENTS))
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        place = args.files or Path(scratch)
        record = {label: {"cosine_to_network": exported(label, place)} for label in args.students}
        for label in args.students:  # timed once nothing else is left to do
            files = [place / label, *(place / f"{label}.{name}" for _, _, name in FILES)]
            timings = bench(files, threads=(1,), batches=(1, 32), seconds=args.seconds)
            timings += bench([files[1], files[3]], threads=(1,), batches=(1, 32), seconds=args.seconds, memory=False)
            found = [
                {**t.plain(), "name": Path(t.name).name, "against": "torch" if i < len(timings) - 4 else "onnx float32"}
                for i, t in enumerate(timings)]
            record[label]["timings"] = found
            for t in found:
                print(label, t["against"], t["name"], t["batch"], f"{t['median_ms']:.3f} ms, x{t['ratio']:.2f}", flush=True)
        publish("export_speed", args.out, {"int8": int8_instructions(), "threads": 1, "students": record})


if __name__ == "__main__":
    main()
