"""What holds models, and what they gave: student.json with its weights, checkpoints, weights of teachers, ONNX, TorchScript.

And the cache with damaged shards, indices, records, links and strangers: the right rows come out; it is listed and pruned.
"""

from __future__ import annotations

import functools
import json
import os
import random
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from torture import commands
from torture.embedding_inputs import Evil
from torture.fuzz import HOSTILE_VALUES, Reader, damaged, distorted, nested_json


def readers(work: Path) -> dict[str, Reader]:
    return {"student": Reader(8, "student.json and weights of a distilled student: values of other types and sizes, bytes "
                                 "damaged", partial(student, commands.truth("run", work))),
            "checkpoint": Reader(3, "checkpoint.pt of a trial that goes on: bytes damaged, other content, pickles", checkpoint),
            "model-files": Reader(3, "weights of teachers, ONNX and TorchScript files, bytes damaged",
                                  partial(model_file, work)),
            "cache": Reader(5, "entries of the teacher's cache, damaged, linked or strange: embedded again rightly, "
                               "listed, pruned", partial(entry, work)),
            "targets": Reader(2, "targets in the cache, damaged: made again, never trained on", partial(targets, work))}


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

    from distillscope.training.loop import save_checkpoint

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
        from distillscope.training.loop import load_checkpoint

        load_checkpoint(path)
        return None

    return title, attempt


@functools.cache
def _models(work: str) -> dict[str, bytes]:
    """A TorchScript file, an ONNX file where onnx is there, and weights in both formats."""
    import io

    import torch
    from safetensors.torch import save

    found = {"a.ts": commands.make_teacher(Path(work) / "teacher.ts").read_bytes()}
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


@functools.cache
def _filled(work: str, folder: str):
    """A cache of two shards; the teacher, the images, and their embeddings."""
    from distillscope.config.parts import Teacher
    from distillscope.data.splits import load_split
    from distillscope.teachers.cache import embed
    from distillscope.teachers.encoder import load_teacher

    settings = {"name": "torchscript", "path": str(Path(work) / "teacher.ts"), "size": 16}
    commands.make_teacher(Path(work) / "teacher.ts")
    encoder, source, clean = load_teacher(Teacher.model_validate(settings), "cpu",
                                          None), load_split("digits", {}, "train", 40), Path(folder) / "clean-cache"
    embed(encoder, source.take(range(20)), root=clean)
    return encoder, source, embed(encoder, source, root=clean), clean


def entry(work: Path, rng: random.Random, number: int, folder: Path) -> tuple[str, Callable[[], str | None]]:
    encoder, source, right, clean = _filled(str(work), str(folder.parent))
    root = folder / "cache"
    shutil.copytree(clean, root, symlinks=True)
    here = next((root / "embeddings").glob("*/"))
    precious = folder / "precious" / "file"
    precious.parent.mkdir()
    precious.write_text("mine")
    hurts = list(HURTS)
    title = hurts[number] if number < len(hurts) else rng.choice(("npy damaged", "metadata damaged", "entry.json damaged",
                                                                  "keys changed"))
    HURTS.get(title, _random)(here, rng) if title in HURTS else _random(here, rng, title)
    what = number % 3

    def attempt() -> str | None:
        from distillscope.teachers.cache import embed
        from distillscope.teachers.inventory import list_entries, prune_entries

        if what == 0:
            if not np.array_equal(embed(encoder, source, root=root), right):
                return "other embeddings than the teacher's"
        elif what == 1:
            list_entries(root)
        else:
            prune_entries(None, root)
            if left := [p.name for p in (root / "embeddings").glob("*/") if not p.is_symlink() and any(p.rglob("*.npy"))]:
                return f"pruned, but {left[0]} is still there"
        return None if precious.exists() else "deleted what a link pointed to"

    return f"{title}: {('embed', 'list', 'prune')[what]}", attempt


def _random(here: Path, rng: random.Random, title: str) -> None:
    npy, metadata = sorted(here.glob("img_emb/*.npy"))[0], sorted(here.glob("metadata/*.parquet"))[0]
    if title == "keys changed":
        table = pq.read_table(metadata)
        keys = rng.choice((lambda k: [x[:5] for x in k], lambda k: [None] * len(k), lambda k: [b"x" * 16] * len(k),
                           lambda k: k[::-1]))(table["key"].to_pylist())
        pq.write_table(table.set_column(table.column_names.index("key"), "key",
                                        [pa.array(keys, pa.binary())]).replace_schema_metadata(table.schema.metadata), metadata)
    elif title == "entry.json damaged":
        path = here / "entry.json"
        text = nested_json(rng) if rng.random() < 0.5 else json.dumps(distorted(json.loads(path.read_text()), rng)[0])
        path.write_text(text, encoding="utf-8", errors="surrogatepass")
    else:
        path = npy if title == "npy damaged" else metadata
        path.write_bytes(damaged(path.read_bytes(), rng))


def _link(here: Path, rng: random.Random) -> None:
    (here.parent / "link-abc").symlink_to(here.parents[2] / "precious")


def _linked_entry(here: Path, rng: random.Random) -> None:
    shutil.move(here, here.parents[2] / "precious" / "real")
    here.symlink_to(here.parents[2] / "precious" / "real")


def _first(pattern: str, change: Callable[[Path], object]) -> Callable[[Path, random.Random], None]:
    return lambda here, rng: change(sorted(here.glob(pattern))[0])


def _shorter(path: Path) -> None:
    table = pq.read_table(path)
    pq.write_table(table.slice(1), path)


HURTS: dict[str, Callable[[Path, random.Random], object]] = {
    "as it is": lambda e, r: None,
    "a link out of the cache": _link, "an entry that is a link": _linked_entry,
    "a link inside an entry": lambda e, r: (e / "deep").symlink_to(e.parents[2] / "precious"),
    "a stranger's file among entries": lambda e, r: (e.parent / "file").write_text("x"),
    "a stranger's folder": lambda e, r: (e.parent / "folder").mkdir(),
    "a stranger's metadata": lambda e, r: (e / "metadata" / "metadata_x.parquet").write_text("x"),
    "a stranger's shard": lambda e, r: (e / "img_emb" / "img_emb_x.npy").write_text("x"),
    "no embeddings": _first("img_emb/*.npy", Path.unlink), "no metadata": _first("metadata/*.parquet", Path.unlink),
    "no entry.json": _first("entry.json", Path.unlink),
    "empty embeddings": _first("img_emb/*.npy", lambda p: p.write_bytes(b"")),
    "metadata without a row": _first("metadata/*.parquet", _shorter),
    "metadata is a folder": _first("metadata/*.parquet", lambda p: (p.unlink(), p.mkdir())),
    "embeddings are a folder": _first("img_emb/*.npy", lambda p: (p.unlink(), p.mkdir())),
    "the lock is a folder": lambda e, r: ((e / ".lock").unlink(missing_ok=True), (e / ".lock").mkdir()),
    "img_emb is a file": lambda e, r: (shutil.rmtree(e / "img_emb"), (e / "img_emb").write_text("x")),
    "embeddings of whole numbers": _first("img_emb/*.npy", lambda p: np.save(p, np.ones((40, 24), int))),
    "leftovers of a kill": lambda e, r: [
        (e / "img_emb" / f".img_emb_{n}.{os.getpid()}.tmp.npy").write_bytes(b"x") for n in range(3)],
}


@functools.cache
def _targets(work: str, folder: str):
    """The targets of the small study in a cache of their own."""
    from distillscope.config.load import load_preset
    from distillscope.config.resolve import with_noise
    from distillscope.study.prepared import load_data, prepare_targets
    from distillscope.teachers.encoder import load_teacher

    clean = Path(folder) / "clean-targets"
    os.environ["DISTILLSCOPE_CACHE"] = str(clean)
    study = with_noise(load_preset(str(commands.study_file(Path(work)))))
    splits, encoder = load_data(study, study.data[0]), load_teacher(study.teacher[0], "cpu", None)

    def make():
        return prepare_targets(study, encoder, splits, study.target_of(study.arms[0]), [study.arms[0]])

    right = {name: np.array(make().rows(name)) for name in ("train", "test")}
    return make, right, clean


def targets(work: Path, rng: random.Random, number: int, folder: Path) -> tuple[str, Callable[[], str | None]]:
    make, right, clean = _targets(str(work), str(folder.parent))
    root = folder / "cache"
    shutil.copytree(clean, root)
    os.environ["DISTILLSCOPE_CACHE"] = str(root)
    files = sorted(p for p in (root / "targets").rglob("*") if p.is_file() and p.name != ".lock")
    path, kind = files[number % len(files)], rng.randrange(5)
    if kind == 0:
        path.write_bytes(b"")
    elif kind == 1 and path.suffix == ".npy":
        np.save(path, np.load(path)[:-1])
    elif kind == 2 and path.suffix == ".npy":
        np.save(path, np.load(path)[::-1])
    elif kind == 3:
        path.unlink()
        path.mkdir()
    else:
        path.write_bytes(damaged(path.read_bytes(), rng))

    def attempt() -> str | None:
        made = make()
        odd = [name for name, rows in right.items() if not np.array_equal(made.rows(name), rows)]
        return f"other targets for {', '.join(odd)}" if odd else None

    return f"{path.name} {('empty', 'a row short', 'reversed', 'a folder', 'damaged')[kind]}", attempt
