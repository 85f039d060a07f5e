"""A small network as an ONNX model, without the package `onnx`: the few messages of its protocol buffers that it needs.

Field numbers are those of onnx.proto3 (ONNX, IR version 8).
"""

from __future__ import annotations

import numpy as np

FLOAT = 1  # TensorProto.DataType


def varint(n: int) -> bytes:
    out = b""
    while n > 127:
        out, n = out + bytes([n & 127 | 128]), n >> 7
    return out + bytes([n])


def number(field: int, value: int) -> bytes:
    return varint(field << 3) + varint(value)


def piece(field: int, value: bytes | str) -> bytes:
    data = value.encode() if isinstance(value, str) else value
    return varint(field << 3 | 2) + varint(len(data)) + data


def tensor(name: str, value: np.ndarray) -> bytes:
    """TensorProto."""
    dims = b"".join(number(1, n) for n in value.shape)
    return dims + number(2, FLOAT) + piece(8, name) + piece(9, value.astype("<f4").tobytes())


def node(op: str, inputs: list[str], output: str, **integers: int) -> bytes:
    """NodeProto; attributes are AttributeProtos of type INT (2)."""
    made = b"".join(piece(1, name) for name in inputs) + piece(2, output) + piece(4, op)
    for name, value in integers.items():
        made += piece(5, piece(1, name) + number(3, value) + number(20, 2))
    return made


def value_info(name: str, shape: tuple[int, ...]) -> bytes:
    """ValueInfoProto of a float tensor."""
    dims = b"".join(piece(1, number(1, n)) for n in shape)
    return piece(1, name) + piece(2, piece(1, number(1, FLOAT) + piece(2, dims)))


def perceptron(weights: list[tuple[np.ndarray, np.ndarray]], rows: int) -> bytes:
    """ModelProto of linear layers (weight [N, K], bias [N]) with tanh between them: "x" [rows, K] -> "y"."""
    nodes, constants, at = b"", b"", "x"
    for i, (w, b) in enumerate(weights):
        last = i == len(weights) - 1
        constants += piece(5, tensor(f"w{i}", w)) + piece(5, tensor(f"b{i}", b))
        nodes += piece(1, node("Gemm", [at, f"w{i}", f"b{i}"], "y" if last else f"h{i}", transB=1))
        at = f"h{i}"
        if not last:
            nodes, at = nodes + piece(1, node("Tanh", [at], f"a{i}")), f"a{i}"
    sizes = weights[0][0].shape[1], weights[-1][0].shape[0]
    ends = piece(11, value_info("x", (rows, sizes[0]))) + piece(12, value_info("y", (rows, sizes[1])))
    graph = nodes + piece(2, "perceptron") + constants + ends
    return number(1, 8) + piece(7, graph) + piece(8, piece(1, "") + number(2, 17))
