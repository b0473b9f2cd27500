"""Small LiteRT files, written table by table: the mean of the image's channels through one linear layer."""

from __future__ import annotations

import numpy as np


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
