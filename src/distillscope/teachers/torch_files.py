"""Files that PyTorch saved as teachers: torch.export programs (.pt2), read and run without unpickling or evaluating anything in
them, and TorchScript.

`torch.export.load` unpickles sample inputs, evaluates size expressions as Python, and compiles names from the file into code.
Here the graph is read as JSON and weights as bytes, and its operations are carried out one by one: tensor operations from a
fixed list of namespaces, and nothing else. TorchScript is read by torch.jit; its
preprocessing is not in the file, so it is a setting.
"""

from __future__ import annotations

import json
import math
import operator
import re
import warnings
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from distillscope.errors import UserError
from distillscope.inputs.arrays import is_torchscript
from distillscope.registry import teachers
from distillscope.teachers.encoder import Encoder, plain_line
from distillscope.teachers.model_files import (
    Colour,
    FileNetwork,
    Layout,
    Pooling,
    Shown,
    existing,
    file_encoder,
    hash_files,
)

DTYPES = {1: torch.uint8, 2: torch.int8, 3: torch.int16, 4: torch.int32, 5: torch.int64, 6: torch.float16, 7: torch.float32,
          8: torch.float64, 12: torch.bool, 13: torch.bfloat16}
MEMORY_FORMATS = {1: torch.contiguous_format, 2: torch.channels_last, 3: torch.channels_last_3d, 4: torch.preserve_format}
PLAIN = {name: getattr(operator, name) for name in (
    "add", "sub", "mul", "floordiv", "truediv", "mod", "neg", "pow", "getitem", "eq", "ne", "lt", "le", "gt", "ge",
    "and_", "or_", "not_")}
PLAIN_ARGUMENTS = ("as_int", "as_ints", "as_float", "as_floats", "as_bool", "as_bools", "as_string", "as_int_lists",
                   "as_float_lists")
SUBGRAPHS = {"wrap_with_set_grad_enabled": 1, "wrap_with_autocast": 4}  # how many arguments stand before the graph
FILES = ("from_file",)  # the one tensor operation that opens a file
AGAIN = "Export it again with torch.export.save of PyTorch 2.8 or newer, or to ONNX."


@teachers.register("exported")
def exported(*, path: Path, output: str | None = None, pool: Pooling | None = None, size: int | None = None,
             mean: Colour | None = None, std: Colour | None = None, interpolation: str = "bicubic", crop_fraction: float = 1.0,
             unit_norm: bool = False) -> Encoder:
    """A torch.export program (.pt2) with one image input; nothing in the file is unpickled or run as Python.

    ``output`` names the embedding where the program gives several (its key, or its place), ``pool`` ("first" or "mean") says
    what to take of tokens.
    """
    path, where = existing(path, "exported")
    network = ExportedNetwork(path, where, Shown(size, mean, std, interpolation, crop_fraction, output, pool, unit_norm))
    return file_encoder(f"exported/{path.name}", network, hash_files([path], *network.mark()), Encoder)


class ExportedNetwork(FileNetwork):
    """The graph of a program, carried out one operation at a time."""

    def __init__(self, path: Path, where: str, shown: Shown) -> None:
        super().__init__(path, where, shown)
        try:
            program, tensors = _read(path, where)
            self.graph, signature = program["graph_module"]["graph"], program["graph_module"]["signature"]
            self.place = torch.nn.Parameter(torch.empty(0), requires_grad=False)  # says on which device the weights are
            self.images = self._inputs(signature["input_specs"], tensors)
            self.results = self._outputs(signature["output_specs"], program["graph_module"]["module_call_graph"])
            self.layout = self._layout(self.graph["tensor_values"][self.images])
            _check_operations(self.graph, where)
        except UserError:
            raise
        except Exception as error:  # a damaged or foreign archive: zip, JSON, keys, shapes
            raise UserError(where, "a program that torch.export.save wrote", plain_line(error), AGAIN) from None

    def _inputs(self, specs: list[dict], tensors: dict[str, torch.Tensor]) -> str:
        """Register the weights under the names of the graph's inputs; gives the name of the image input."""
        self.held, images = {}, []
        kinds = {"parameter": "parameter_name", "buffer": "buffer_name", "tensor_constant": "tensor_constant_name"}
        for number, spec in enumerate(specs):
            (kind, value), = spec.items()
            if kind == "user_input":
                images.append(value["arg"].get("as_tensor", {}).get("name", "a number"))
            elif kind in kinds:
                self.held[value["arg"]["name"]] = f"held_{number}"
                tensor = tensors[value[kinds[kind]]]
                if kind == "parameter" and tensor.is_floating_point():
                    self.register_parameter(f"held_{number}", torch.nn.Parameter(tensor, requires_grad=False))
                else:
                    self.register_buffer(f"held_{number}", tensor)
            else:
                raise UserError(self.where, "a program of tensors", f"an input of the kind '{kind}'", AGAIN)
        if len(images) != 1 or len(self.graph["tensor_values"].get(images[0], {}).get("sizes", ())) != 4:
            raise UserError(self.where, "one input of images, of four dimensions", ", ".join(images) or "none",
                            "Export only the image encoder.")
        return images[0]

    def _outputs(self, specs: list[dict], calls: list[dict]) -> dict[str, str]:
        """Name of each output (its key, or its place) -> its name in the graph."""
        made = [spec["user_output"]["arg"].get("as_tensor", {}).get("name") for spec in specs if "user_output" in spec]
        spec = json.loads(calls[0]["signature"]["out_spec"])[1]
        keyed = spec["type"] in ("builtins.dict", "collections.OrderedDict")
        names = json.loads(spec["context"]) if keyed else range(len(made))
        if len(names) != len(made):
            names = range(len(made))
        return {"" if len(made) == 1 and spec["type"] is None else str(n): m for n, m in zip(names, made, strict=True) if m}

    def _layout(self, meta: dict) -> Layout:
        shape = [s.get("as_int") for s in meta["sizes"]]
        last = shape[3] == 3 and shape[1] != 3
        sides = {n for n in (shape[1:3] if last else shape[2:]) if n}
        dtype = DTYPES.get(meta["dtype"])
        if len(sides) > 1 or 3 not in shape[1:] or dtype is None or not (dtype.is_floating_point or dtype is torch.uint8):
            raise UserError(self.where, "square colour images, float or uint8", f"an input of {shape}, {dtype}",
                            "Export it with such an input.")
        return Layout(dtype, last, shape[0], next(iter(sides), None), name=self.images)

    def run(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        values: dict[str, Any] = {name: getattr(self, held) for name, held in self.held.items()}
        values[self.images] = images
        _carry_out(self.graph, values, self.place.device)
        return {name: values[made] for name, made in self.results.items()}


def _read(path: Path, where: str) -> tuple[dict, dict[str, torch.Tensor]]:
    """The program as plain values, and its tensors by their full names."""
    if not zipfile.is_zipfile(path):
        raise UserError(where, "a program that torch.export.save wrote", "a file of another kind", AGAIN)
    with zipfile.ZipFile(path) as archive:
        names = {n.partition("/")[2]: n for n in archive.namelist()}
        if any(n.startswith("data/aotinductor/") for n in names):
            raise UserError(where, "a program", "one compiled to machine code, which is never run",
                            "Export it with torch.export.save.")
        if "models/model.json" not in names:
            raise UserError(where, "a program that torch.export.save wrote", "an archive without models/model.json", AGAIN)
        if "byteorder" in names and archive.read(names["byteorder"]).strip() != b"little":
            raise UserError(where, "weights in little-endian order", "another order", AGAIN)
        tensors = {}
        for kind in ("weights", "constants"):
            config = names.get(f"data/{kind}/model_{kind}_config.json")
            for name, entry in (json.loads(archive.read(config))["config"] if config else {}).items():
                if entry.get("use_pickle") or not re.fullmatch(r"(weight|tensor)_\d+", entry["path_name"]):
                    raise UserError(where, "weights as plain bytes", f"'{name}' pickled, which is never opened", AGAIN)
                tensors[name] = _tensor(archive.read(names[f"data/{kind}/{entry['path_name']}"]), entry["tensor_meta"])
        return json.loads(archive.read(names["models/model.json"])), tensors


def _tensor(data: bytes, meta: dict) -> torch.Tensor:
    """A tensor from its bytes; sizes and strides that reach beyond them raise."""
    sizes, strides = ([s["as_int"] for s in meta[k]] for k in ("sizes", "strides"))
    dtype, offset = DTYPES[meta["dtype"]], meta["storage_offset"]["as_int"]
    if 0 in sizes:
        return torch.empty(sizes, dtype=dtype)
    flat = torch.frombuffer(bytearray(data), dtype=dtype)
    last = offset + sum((n - 1) * s for n, s in zip(sizes, strides, strict=True))
    if min(sizes + strides + [offset]) < 0 or last >= len(flat):
        raise ValueError("a tensor that is larger than its data")
    return flat.as_strided(sizes, strides, offset)


def _check_operations(graph: dict, where: str) -> None:
    """Every operation of the graph, and of graphs in it, is one that can be carried out: said before any is."""
    for node in graph["nodes"]:
        target = node["target"]
        if _subgraph_at(target) is not None:
            _check_operations(node["inputs"][_subgraph_at(target)]["arg"]["as_graph"]["graph"], where)
        elif _operation(target) is None:
            raise UserError(where, "tensor operations", f"'{target[:60]}'", "Export only the image encoder, or to ONNX.")


def _subgraph_at(target: str) -> int | None:
    head, _, name = target.rpartition(".")
    return SUBGRAPHS.get(name) if head == "torch.ops.higher_order" else None


def _operation(target: str) -> Any:
    """The function that a target names, or None."""
    if found := re.fullmatch(r"torch\.ops\.(aten|prims|torchvision|quantized_decomposed)\.(\w+)\.(\w+)", target):
        library, name, overload = found.groups()
        if name in FILES or name.startswith("__") or overload.startswith("__"):
            return None
        known = getattr(getattr(getattr(torch.ops, library), name, None), overload, None)
        return known if isinstance(known, torch._ops.OpOverload) else None
    if found := re.fullmatch(r"_operator\.(\w+)", target):
        return PLAIN.get(found[1])
    if found := re.fullmatch(r"math\.(ceil|floor|trunc|sqrt)", target):
        return getattr(math, found[1])
    if found := re.fullmatch(r"torch\.(sym_(?:max|min|not|int|float|ite))", target):
        return getattr(torch, found[1])
    return None


def _carry_out(graph: dict, values: dict[str, Any], device: torch.device) -> None:
    """Every node of ``graph`` in its order; ``values`` holds its inputs and takes what it makes."""
    for node in graph["nodes"]:
        at = _subgraph_at(node["target"])
        if at is not None:
            inner = node["inputs"][at]["arg"]["as_graph"]["graph"]
            given = [_value(i["arg"], values, device) for i in node["inputs"][at + 1 :]]
            local = dict(zip(map(_name, inner["inputs"]), given, strict=True))
            _carry_out(inner, local, device)
            made: Any = [_value(o, local, device) for o in inner["outputs"]]
        else:
            positional = [_value(i["arg"], values, device) for i in node["inputs"] if i.get("kind") != 2]
            named = {i["name"]: _value(i["arg"], values, device) for i in node["inputs"] if i.get("kind") == 2}
            made = _operation(node["target"])(*positional, **named)
        outputs = node["outputs"]
        if made is None or not outputs:  # a check of sizes or types
            continue
        if len(outputs) == 1 and "as_tensors" in outputs[0]:
            values.update(zip([t["name"] for t in outputs[0]["as_tensors"]], made, strict=True))
        elif len(outputs) == 1:
            values[_name(outputs[0])] = made[0] if at is not None else made
        else:
            values.update({_name(o): m for o, m in zip(outputs, made, strict=True) if _name(o)})


def _name(argument: dict) -> str:
    """What the graph calls a tensor or a size."""
    (_, value), = argument.items()
    return value.get("name") or value.get("as_name") or "" if isinstance(value, dict) else ""


def _value(argument: dict, values: dict[str, Any], device: torch.device) -> Any:
    """An argument of an operation."""
    (kind, value), = argument.items()
    if kind == "as_none":
        return None
    if kind in ("as_tensor", "as_sym_int", "as_sym_float", "as_sym_bool", "as_optional_tensor"):
        return _one(value, values)
    if kind in ("as_tensors", "as_sym_ints", "as_sym_floats", "as_sym_bools", "as_optional_tensors"):
        return [_one(v, values) for v in value]
    if kind == "as_scalar_type":
        return DTYPES[value]
    if kind == "as_memory_format":
        return MEMORY_FORMATS[value]
    if kind == "as_layout":
        return torch.strided
    if kind == "as_device":
        return device
    if kind in PLAIN_ARGUMENTS:
        return float(value) if kind == "as_float" else value
    raise ValueError(f"an argument of the kind {kind}")


def _one(value: dict, values: dict[str, Any]) -> Any:
    """A tensor or a size by its name, or a plain number."""
    if "as_tensor" in value:
        value = value["as_tensor"]
    if "as_none" in value:
        return None
    name = value.get("name") or value.get("as_name")
    return values[name] if name else next(iter(value.values()))


SAVE = "Save the model with torch.jit.save(torch.jit.trace(model.eval(), images), FILE), or export it to ONNX."


@teachers.register("torchscript")
def torchscript(*, path: Path, output: str | None = None, pool: Pooling | None = None, size: int | None = None,
                mean: Colour | None = None, std: Colour | None = None, interpolation: str = "bicubic",
                crop_fraction: float = 1.0, unit_norm: bool = False) -> Encoder:
    """A TorchScript file that maps (b, 3, size, size) to (b, dim). Loading runs its program: open only what you trust.

    ``output`` names the embedding where the program gives several (its key, or its place), ``pool`` ("first" or "mean") says
    what to take of tokens.
    """
    path, where = existing(path, "torchscript")
    network = TorchScriptNetwork(path, where, Shown(size, mean, std, interpolation, crop_fraction, output, pool, unit_norm))
    return file_encoder(f"torchscript/{path.name}", network, hash_files([path], *network.mark()), Encoder)


class TorchScriptNetwork(FileNetwork):
    """A script module, which says nothing about its input: what works is found by trying."""

    def __init__(self, path: Path, where: str, shown: Shown) -> None:
        super().__init__(path, where, shown)
        if zipfile.is_zipfile(path) and not is_torchscript(path):
            raise UserError(where, "a TorchScript archive",
                            "another torch file: tensors, or a pickled module, which is never opened", SAVE)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # torch announces that TorchScript is no longer developed
                self.inner = torch.jit.load(str(path), map_location="cpu").eval()
        except Exception as error:  # a damaged archive: zip, pickle and compiler errors, without a common base
            raise UserError(where, "a TorchScript archive", plain_line(error), SAVE) from None
        kinds = {p.dtype for p in self.inner.parameters() if p.is_floating_point()}
        self.layout = Layout(dtype=kinds.pop() if len(kinds) == 1 else torch.float32)

    def layouts(self) -> list[Layout]:
        last = replace(self.layout, channels_last=True)
        return [*super().layouts(), last, replace(self.layout, dtype=torch.float16)]

    def requires_grad_(self, requires_grad: bool = True) -> TorchScriptNetwork:
        """A script module does not take it; its parameters do."""
        for parameter in self.parameters():
            parameter.requires_grad_(requires_grad)
        return self

    def run(self, images: torch.Tensor) -> Any:
        return self.inner(images)
