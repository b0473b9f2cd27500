"""Colour profiles, made from what defines them: primaries and a gamma."""

from __future__ import annotations

import struct
from collections.abc import Sequence

import numpy as np

D50 = np.array([0.9642, 1.0, 0.8249])
BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
D65 = (0.3127, 0.3290)
SRGB = ((0.64, 0.33), (0.30, 0.60), (0.15, 0.06))
ADOBE = ((0.64, 0.33), (0.21, 0.71), (0.15, 0.06))
DISPLAY_P3 = ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060))


def srgb_curve() -> np.ndarray:
    """1,024 values of sRGB's own curve, from 0 to 1."""
    x = np.linspace(0, 1, 1024)
    return np.where(x <= 0.04045, x / 12.92, ((x + 0.055) / 1.055) ** 2.4)


def _xyz(x: float, y: float) -> np.ndarray:
    return np.array([x / y, 1, (1 - x - y) / y])


def colour_profile(primaries: Sequence[tuple[float, float]], curve: float | np.ndarray) -> bytes:
    """An RGB profile of these primaries (x, y) with the white D65; ``curve`` is a gamma, or its values from 0 to 1."""
    matrix = np.stack([_xyz(*p) for p in primaries], axis=1)
    white = _xyz(*D65)
    adapt = np.linalg.inv(BRADFORD) @ np.diag((BRADFORD @ D50) / (BRADFORD @ white)) @ BRADFORD
    columns = (adapt @ (matrix * np.linalg.solve(matrix, white))).T
    tags = {f"{c}XYZ".encode(): _xyz_tag(column) for c, column in zip("rgb", columns, strict=True)}
    return _profile(b"RGB ", tags | {f"{c}TRC".encode(): _curve_tag(curve) for c in "rgb"})


def grey_profile(curve: float | np.ndarray) -> bytes:
    """A profile of grey."""
    return _profile(b"GRAY", {b"kTRC": _curve_tag(curve)})


def _fixed(value: float) -> bytes:
    return struct.pack(">i", round(float(value) * 65536))


def _xyz_tag(values: Sequence[float] | np.ndarray) -> bytes:
    return b"XYZ \0\0\0\0" + b"".join(map(_fixed, values))


def _curve_tag(curve: float | np.ndarray) -> bytes:
    if isinstance(curve, np.ndarray):
        return b"curv\0\0\0\0" + struct.pack(f">I{len(curve)}H", len(curve), *np.rint(curve * 65535).astype(int).tolist())
    return b"curv\0\0\0\0" + struct.pack(">IH", 1, round(curve * 256))


def _profile(space: bytes, tags: dict[bytes, bytes]) -> bytes:
    text = b"made for a test\0"
    desc = b"desc\0\0\0\0" + struct.pack(">I", len(text)) + text + bytes(78)
    tags = {b"desc": desc, b"cprt": b"text\0\0\0\0" + text, b"wtpt": _xyz_tag(D50), **tags}
    table, body, start = b"", b"", 132 + 12 * len(tags)
    for name, content in tags.items():
        content += bytes(-len(content) % 4)
        table += name + struct.pack(">II", start + len(body), len(content))
        body += content
    head = bytearray(128)
    head[0:4], head[8:12], head[12:24] = struct.pack(">I", start + len(body)), b"\x02\x10\0\0", b"mntr" + space + b"XYZ "
    head[36:40], head[68:80] = b"acsp", b"".join(map(_fixed, D50))
    return bytes(head) + struct.pack(">I", len(tags)) + table + body
