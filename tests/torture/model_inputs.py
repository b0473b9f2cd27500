"""What holds models: student.json with its weights, checkpoints, weights of teachers, ONNX and TorchScript files."""

from __future__ import annotations

import functools
import json
import random
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

from torture import small
from torture.embedding_inputs import Evil
from torture.fuzz import Reader
from torture.mutate import HOSTILE_VALUES, damaged, distorted, nested_json


def readers(work: Path) -> dict[str, Reader]:
    run = small.truth("run", work)
    return {"student": Reader(8,
                              "student.json and weights of a distilled student: values of other types and sizes, bytes damaged",
                              partial(student, run)),
            "checkpoint": Reader(3, "checkpoint.pt of a trial that goes on: bytes damaged, other content, pickles", checkpoint),
            "model-files": Reader(3, "weights of teachers, ONNX and TorchScript files, bytes damaged",
                                  partial(model_file, work))}


def student(run: Path, rng: random.Random, number: int, folder: Path) -> tuple[str, Callable[[], str | None]]:
    trials = sorted(run.glob("trials/*--cosine--S--seed*"))
    kept = [trials[0], *sorted(trials[0].glob("remedies/*"))]
    source = rng.choice([p for p in kept if (p / "student.json").exists()])
    for name in ("student.json", "weights.safetensors"):
        shutil.copy(source / name, folder)
    recipe = json.loads((folder / "student.json").read_text())
    description, weights = folder / "student.json", folder / "weights.safetensors"
    kind, wrong = rng.random(), None
    if number == 0:
        title = "as it is"
    elif number == 1:
        shutil.copy(trials[1] / "weights.safetensors", folder)
        shutil.copy(trials[0] / "student.json", folder)
        title, wrong = "weights of another student", "loaded, though weights_hash names other weights"
    elif kind < 0.2:
        key, value = rng.choice(list(recipe)), rng.choice(HOSTILE_VALUES)
        title = f"{key} = {repr(value)[:40]}"
        description.write_text(json.dumps({**recipe, key: value}))
    elif kind < 0.6:
        values, title = distorted(recipe, rng)
        description.write_text(json.dumps(values))
    elif kind < 0.7:
        title = "settings that name a model"
        model = rng.choice(("hf-hub:x/y", "local-dir:/etc", "resnet18", "vit_giant_patch14_dinov2", "../x"))
        description.write_text(json.dumps({**recipe, "name": "timm",
                                           "settings": {"model": model, "pretrained": rng.random() < 0.5}}))
    elif kind < 0.85:
        title = "student.json damaged"
        text = nested_json(rng) if rng.random() < 0.4 else damaged(description.read_bytes(), rng).decode("latin-1")
        description.write_text(text, encoding="utf-8", errors="surrogatepass")
    else:
        title = "weights damaged"
        weights.write_bytes(damaged(weights.read_bytes(), rng))
        if weights.read_bytes() == (source / "weights.safetensors").read_bytes():
            title = "weights as they are"

    def attempt() -> str | None:
        import torch

        from distillscope.students.load import load_student

        def embedded(where: Path):
            return load_student(where, "cpu").encode(torch.full((2, 3, 8, 8), 7, dtype=torch.uint8), ["a", "b"])

        found = embedded(folder)
        return wrong or ((title == "weights damaged" and (found != embedded(source)).any()
                          and "other weights than weights_hash names") or None)

    return f"{source.name[-12:]} {title}", attempt


@functools.cache
def _checkpoint(folder: str) -> bytes:
    import torch

    from distillscope.distill.loop import save_checkpoint

    path = Path(folder) / "good.pt"
    layer = torch.nn.Linear(3, 2)
    save_checkpoint(path,
                    {"module": layer.state_dict(), "terms": {}, "optimizer": torch.optim.Adam(layer.parameters()).state_dict(),
                           "history": [], "step": 3, "total": 0.5, "seconds": 1.0})
    return path.read_bytes()


def checkpoint(rng: random.Random, number: int, folder: Path) -> tuple[str, Callable[[], str | None]]:
    import torch

    good = _checkpoint(str(folder))
    path = folder / "checkpoint.pt"
    state = torch.random.get_rng_state()
    contents = {"as it is": None, "a pickle that runs": Evil(), "a list": [1], "a number": 5, "a tensor": torch.ones(3),
                "nothing of ours": {"step": 1}, "rng of text": {"rng": "x"},
                "rng too short": {"rng": torch.zeros(5, dtype=torch.uint8)}, "rng of floats": {"rng": torch.zeros(5056)},
                "empty": {}, "rng_cuda of text": {"rng": state, "rng_cuda": "x"},
                "step of text": {"rng": state, "step": "x"}}
    if number < len(contents):
        title = list(contents)[number]
        path.write_bytes(good) if contents[title] is None else torch.save(contents[title], path)
    else:
        title = "damaged"
        path.write_bytes(damaged(good, rng))

    def attempt() -> str | None:
        from distillscope.distill.loop import load_checkpoint

        load_checkpoint(path)
        return None

    return title, attempt


@functools.cache
def _models(work: str) -> dict[str, bytes]:
    """A TorchScript file, an ONNX file where onnx is there, and weights in both formats."""
    import io

    import torch
    from safetensors.torch import save

    found = {"a.ts": small.make_teacher(Path(work) / "teacher.ts").read_bytes()}
    state = {"a": torch.ones(2, 3), "b.weight": torch.zeros(4)}
    kept = io.BytesIO()
    torch.save(state, kept)
    found |= {"a.pth": kept.getvalue(), "a.safetensors": save(state)}
    try:
        from onnx import TensorProto, helper

        node = helper.make_node("GlobalAveragePool", ["x"], ["y"]), helper.make_node("Flatten", ["y"], ["z"])
        shapes = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in (("x", ["b", 3, 16, 16]), ("z", ["b", 3]))]
        graph = helper.make_graph(list(node), "g", shapes[:1], shapes[1:])
        found["a.onnx"] = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)],
                                            ir_version=8).SerializeToString()
    except ImportError:
        pass
    return found


def model_file(work: Path, rng: random.Random, number: int, folder: Path) -> tuple[str, Callable[[], str | None]]:
    files = _models(str(work))
    name = list(files)[number % len(files)]
    path = folder / name
    path.write_bytes(files[name] if number < len(files) else damaged(files[name], rng))
    if number % 11 == 10 and path.suffix == ".pth":
        import torch

        torch.save({"a": torch.ones(2), "b": Evil()}, path)

    def attempt() -> str | None:
        from distillscope.teachers.encoder import read_state
        from distillscope.teachers.runtime_files import onnx
        from distillscope.teachers.torch_files import torchscript

        if path.suffix == ".ts":
            torchscript(path=path, size=16)
        elif path.suffix == ".onnx":
            onnx(path=path, size=16)
        else:
            read_state(path)
        return None

    return f"{name} {'as it is' if number < len(files) else 'damaged'}", attempt
