"""Files of embeddings of every format, and LiteRT models, made on the spot: small, and always the same."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from pyarrow import feather
from safetensors.torch import save_file

COUNT, DIM = 24, 5
IDS = [f"item/{i:02d}.png" for i in range(COUNT)]
LABELS = np.arange(COUNT) % 3


def embeddings(dtype: type = np.float32) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(COUNT, DIM)).astype(dtype)


def _npy(path: Path) -> None:
    np.save(path, embeddings())


def _npz(path: Path) -> None:
    np.savez(path, z=embeddings(), ids=np.array(IDS), labels=LABELS)


def _npz_compressed(path: Path) -> None:
    np.savez_compressed(path, z=embeddings(), ids=np.array(IDS), labels=LABELS)


def _safetensors(path: Path) -> None:
    save_file({"z": torch.from_numpy(embeddings()), "labels": torch.from_numpy(LABELS)}, path)


def _torch(path: Path) -> None:
    torch.save({"z": torch.from_numpy(embeddings()), "ids": IDS, "labels": torch.from_numpy(LABELS)}, path)


def _torch_alone(path: Path) -> None:
    torch.save(torch.nn.Parameter(torch.from_numpy(embeddings())), path)


def _torch_before_zip(path: Path) -> None:
    torch.save(torch.from_numpy(embeddings()), path, _use_new_zipfile_serialization=False)


def _parquet_lists(path: Path) -> None:
    pq.write_table(pa.table({"image_path": IDS, "vec": list(embeddings()), "label": LABELS}), path, row_group_size=7)


def _parquet_fixed(path: Path) -> None:
    lists = pa.FixedSizeListArray.from_arrays(pa.array(embeddings().ravel()), DIM)
    other = pa.FixedSizeListArray.from_arrays(pa.array(np.zeros(COUNT * 2)), 2)
    pq.write_table(pa.table({"id": np.arange(COUNT), "embedding": lists, "logits": other}), path)


def _parquet_columns(path: Path) -> None:
    frame = pd.DataFrame(embeddings()).rename(columns=lambda i: f"d{i}")
    frame.assign(id=IDS, label=[f"class {n}" for n in LABELS]).to_parquet(path)


def _csv(path: Path) -> None:
    pd.DataFrame(embeddings()).assign(key=IDS, label=LABELS).to_csv(path, index=False)


def _csv_indexed(path: Path) -> None:
    pd.DataFrame(embeddings()).to_csv(path)


def _csv_bare(path: Path) -> None:
    np.savetxt(path, embeddings(), delimiter=",")


def _table() -> pa.Table:
    lists = pa.array(embeddings().tolist(), pa.list_(pa.float32()))
    return pa.table({"filename": IDS, "embedding": lists, "label": LABELS})


def _feather(path: Path) -> None:
    feather.write_feather(_table(), path)


def _stream(path: Path) -> None:
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, _table().schema) as writer:
        writer.write_table(_table(), max_chunksize=7)


def _jsonl(path: Path) -> None:
    lines = "".join(json.dumps(row) + "\n" for row in _table().to_pylist())
    path.write_bytes(gzip.compress(lines.encode()) if path.suffix == ".gz" else lines.encode())


def _json(path: Path) -> None:
    path.write_text(json.dumps({"filenames": IDS, "embeddings": embeddings().tolist(), "labels": LABELS.tolist()}))


def _hdf5(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["test/embeddings"], file["test/ids"], file["test/labels"] = embeddings(), IDS, LABELS


def _named_columns(path: Path, **how: object) -> None:
    frame = pd.DataFrame(embeddings()).rename(columns=lambda i: f"embedding_{i}")
    frame.insert(0, "filenames", IDS)
    frame.assign(labels=LABELS, width=640, score=np.linspace(0, 1, COUNT)).to_csv(path, index=False, **how)


def _tsv(path: Path) -> None:
    _named_columns(path, sep="\t")


def _semicolon(path: Path) -> None:
    _named_columns(path, sep=";", decimal=",")


# name -> (writer, has ids, has labels)
FORMATS = {
    "a.npy": (_npy, False, False),
    "a.npz": (_npz, True, True),
    "compressed.npz": (_npz_compressed, True, True),
    "a.safetensors": (_safetensors, False, True),
    "a.pt": (_torch, True, True),
    "alone.pth": (_torch_alone, False, False),
    "old.bin": (_torch_before_zip, False, False),
    "lists.parquet": (_parquet_lists, True, True),
    "fixed.parquet": (_parquet_fixed, True, False),
    "columns.parquet": (_parquet_columns, True, True),
    "a.csv": (_csv, True, True),
    "indexed.csv": (_csv_indexed, False, False),
    "bare.csv": (_csv_bare, False, False),
    "a.csv.gz": (_named_columns, True, True),
    "a.tsv": (_tsv, True, True),
    "semicolon.csv": (_semicolon, True, True),
    "a.feather": (_feather, True, True),
    "stream.arrow": (_stream, True, True),
    "a.jsonl": (_jsonl, True, True),
    "a.jsonl.gz": (_jsonl, True, True),
    "a.json": (_json, True, True),
    "a.h5": (_hdf5, True, True),
}


def written(folder: Path, name: str) -> Path:
    """One of FORMATS, written to ``folder``."""
    FORMATS[name][0](folder / name)
    return folder / name


def save_lite(path, kind="FLOAT32", scale=None, zero=0, size=8, dim=4, quantised=None) -> np.ndarray:
    """Writes the file, its input of ``kind`` with ``scale`` and ``zero``, its output int8 where ``quantised`` is its scale.

    Gives the weights (dim, 3): embedding = weights @ channel means of the input in the network's own numbers.
    """
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    model, part = schema.ModelT(), schema.SubGraphT()
    model.version, model.buffers, model.operatorCodes = 3, [schema.BufferT()], []
    part.tensors, part.operators = [], []
    types, operators, options = schema.TensorType, schema.BuiltinOperator, schema.BuiltinOptions

    def tensor(name, shape, kind=types.FLOAT32, data=None, scale=None, zero=0) -> int:
        made = schema.TensorT()
        made.name, made.shape, made.type, made.buffer = name, list(shape), kind, 0
        if data is not None:
            held = schema.BufferT()
            held.data = np.frombuffer(data.tobytes(), np.uint8)
            model.buffers.append(held)
            made.buffer = len(model.buffers) - 1
        if scale:
            made.quantization = schema.QuantizationParametersT()
            made.quantization.scale, made.quantization.zeroPoint = [scale], [zero]
        part.tensors.append(made)
        return len(part.tensors) - 1

    def add(code, inputs, outputs, given=None, given_type=0) -> None:
        name, node = schema.OperatorCodeT(), schema.OperatorT()
        name.builtinCode = name.deprecatedBuiltinCode = code
        name.version = 1
        model.operatorCodes.append(name)
        node.opcodeIndex, node.inputs, node.outputs = len(model.operatorCodes) - 1, inputs, outputs
        node.builtinOptions, node.builtinOptionsType = given, given_type
        part.operators.append(node)

    weights = np.random.default_rng(0).normal(size=(dim, 3)).astype(np.float32)
    images = tensor("images", (1, size, size, 3), getattr(types, kind), scale=scale, zero=zero)
    floats = images
    if kind != "FLOAT32":
        floats = tensor("floats", (1, size, size, 3))
        add(operators.DEQUANTIZE, [images], [floats])
    means, axes = tensor("means", (1, 3)), tensor("axes", (2,), types.INT32, np.array([1, 2], np.int32))
    reducing = schema.ReducerOptionsT()
    reducing.keepDims = False
    add(operators.MEAN, [floats, axes], [means], reducing, options.ReducerOptions)
    held, bias = tensor("weights", (dim, 3), data=weights), tensor("bias", (dim,), data=np.zeros(dim, np.float32))
    out = tensor("embedding", (1, dim))
    add(operators.FULLY_CONNECTED, [means, held, bias], [out], schema.FullyConnectedOptionsT(), options.FullyConnectedOptions)
    if quantised:
        whole = tensor("whole", (1, dim), types.INT8, scale=quantised, zero=3)
        add(operators.QUANTIZE, [out], [whole], schema.QuantizeOptionsT(), options.QuantizeOptions)
        out = whole
    part.inputs, part.outputs, model.subgraphs = [images], [out], [part]
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    path.write_bytes(builder.Output())
    return weights
