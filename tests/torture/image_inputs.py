"""Images, tars, tables and manifests of images: damaged bytes, bombs, absurd sizes, hostile names, paths that lead away."""

from __future__ import annotations

import functools
import io
import json
import random
import struct
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from torture.fuzz import HOSTILE_NAMES, HOSTILE_VALUES, Reader, damaged, nested_json

SAVED = {".png": "PNG", ".jpg": "JPEG", ".webp": "WEBP", ".bmp": "BMP", ".gif": "GIF", ".tif": "TIFF", ".ppm": "PPM"}


def readers(work: Path) -> dict[str, Reader]:
    return {"images": Reader(10, "folders with an image damaged, a bomb, of an odd mode or size, with `corrupt` error and skip",
                             images),
            "tars": Reader(5, "WebDataset tars: bytes damaged, hostile names, links, labels of every kind", tars),
            "tables": Reader(5, "parquet and manifests of images: cells of every kind, paths that lead elsewhere", tables)}


@functools.cache
def picture(suffix: str, mode: str = "RGB", size: int = 8) -> bytes:
    from PIL import Image

    kept = io.BytesIO()
    draws = np.random.default_rng(size).integers(0, 255, (size, size, 4), np.uint8)
    whole = Image.fromarray(draws, "RGBA")
    if mode == "I;16":
        whole = Image.fromarray(draws[..., 0].astype(np.uint16) * 257)
    else:
        whole = whole.convert("L").convert("F") if mode == "F" else whole.convert(mode)
    whole.save(kept, SAVED[suffix])
    return kept.getvalue()


def png(width: int, height: int, data: bytes = b"", colour: int = 2, depth: int = 8, extra: bytes = b"") -> bytes:
    """A PNG whose header says what it likes."""
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0,
                                                             0)) + extra + chunk(b"IDAT", data) + chunk(b"IEND", b"")


@functools.cache
def odd_images() -> dict[str, tuple[bytes, str]]:
    few, text = zlib.compress(b"\0" * 200), zlib.compress(b"\0" * 100_000_000, 1)
    note = b"k\0\0" + text
    chunk = struct.pack(">I", len(note)) + b"zTXt" + note + struct.pack(">I", zlib.crc32(b"zTXt" + note))
    made = {f"header of {w} x {h}": (png(w, h, few), ".png")
            for w, h in ((20_000, 20_000), (13_000, 13_000), (2**31 - 1, 2**31 - 1), (0, 0), (1, 2**31 - 1), (70_000, 70_000))}
    made |= {"bomb of 12,000 px": (png(12_000, 12_000, zlib.compress(b"\0" * (12_000 * 36_001 // 8), 1)), ".png"),
             "bomb of text": (png(8, 8, few, extra=chunk), ".png"),
             "no palette": (png(8, 8, few, colour=3), ".png"),
             "16 bits": (png(8, 8, zlib.compress(b"\0" * 400), depth=16), ".png"),
             "unknown colours": (png(8, 8, few, colour=5), ".png"),
             "GIF of 65,535 px": (b"GIF89a\xff\xff\xff\xff\x80\x00\x00" + b"\0" * 6
                                  + b",\0\0\0\0\xff\xff\xff\xff\x00\x02\x01\x44\x00;", ".gif"),
             "PPM of 10^9 px": (b"P6 1000000000 1000000000 255\n" + b"\0" * 100, ".ppm"),
             "PPM of negative size": (b"P6 -8 8 255\n" + b"\0" * 200, ".ppm"), "empty": (b"", ".png"),
             "HTML": (b"<html>", ".jpg"),
             "SVG": (b'<svg xmlns="http://www.w3.org/2000/svg"/>', ".png"),
             "EPS": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n", ".png")}
    return made | {f"{mode} as {suffix}": (picture(suffix, mode), suffix)
                   for suffix, mode in ((".png", "LA"), (".png", "P"), (".png", "1"), (".png", "I;16"), (".tif", "F"),
                                        (".jpg", "CMYK"), (".webp", "RGBA"), (".gif", "P"))}


def read_all(name: str, settings: dict, corrupt: str = "error") -> None:
    from distillscope.data.splits import load_split

    found = load_split(name, settings, "train", None, corrupt)
    for i in range(len(found)):
        image = found.read([i])
        if len(image) != 1:
            raise AssertionError("an item of another length")


def images(rng: random.Random, number: int, folder: Path) -> tuple[str, Callable[[], str | None]]:
    odd = list(odd_images())
    for label in "ab":
        (folder / "train" / label).mkdir(parents=True)
        for i in range(3):
            (folder / "train" / label / f"{i}.png").write_bytes(picture(".png", size=8 if rng.random() < 0.8 else 9))
    if number < 2 * len(odd):
        title, (content, suffix) = odd[number // 2], odd_images()[odd[number // 2]]
    else:
        suffix = rng.choice(list(SAVED))
        title, content = f"{suffix} damaged", damaged(picture(suffix, rng.choice(("RGB", "L"))), rng)
    name = rng.choice([n for n in HOSTILE_NAMES if n.strip(". ") and not set("/\0") & set(n)
                       and len(n.encode()) < 200]) if rng.random() < 0.3 else "z"
    (folder / "train" / "a" / f"{name}{suffix}").write_bytes(content)
    corrupt = ("error", "skip")[number % 2]
    return f"{title}, {corrupt}", lambda: read_all("image_folder", {"path": str(folder)}, corrupt)


LABEL_TEXTS = ("x", "9" * 5000, "1180591620717411303424", " 1\n", "", "1.5", "\xff", "-1", "true", "1e3", "小")


def tars(rng: random.Random, number: int, folder: Path) -> tuple[str, Callable[[], str | None]]:
    good, path = picture(".png"), folder / "train.tar"
    members: list[tuple[str | tarfile.TarInfo, bytes]] = [(f"{i}.png", good) for i in range(4)]
    kind = number % 4
    if kind == 0:
        members += [(f"{i}.cls", b"%d" % (i % 2)) for i in range(4)]
        title = "bytes damaged" if number else "as it is"
    elif kind == 1:
        label = rng.choice(LABEL_TEXTS)
        members += [(f"{i}.cls", b"1") for i in range(3)] + [("3.cls", label.encode("latin-1", "replace"))]
        title = f"label {label[:20]!r}"
    elif kind == 2:
        label = nested_json(rng) if rng.random() < 0.4 else json.dumps({"label": rng.choice(HOSTILE_VALUES)})
        members += [(f"{i}.json", b'{"label": 1}') for i in range(3)] + [("3.json", label.encode("utf-8", "surrogatepass"))]
        title = f"label in JSON {label[:30]!r}"
    else:
        name = rng.choice((*HOSTILE_NAMES, "../../../x", "/etc/x", "a/../../b"))
        info = tarfile.TarInfo(f"{name}.png".replace("\0", "%00"))
        info.type = rng.choice((tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE,
                                tarfile.DIRTYPE))
        info.linkname = str(folder.parents[1] / "bait.txt")
        members += [(info, good)] + [(f"{i}.cls", b"1") for i in range(4)] + [(f"{name}.cls".replace("\0", "%00"), b"0")]
        title = f"member {name[:20]!r} of type {info.type!r}"
    with tarfile.open(path, "w") as archive:
        for member, content in members:
            info = member if isinstance(member, tarfile.TarInfo) else tarfile.TarInfo(member)
            info.size = len(content) if info.isfile() else 0
            archive.addfile(info, io.BytesIO(content))
    if kind == 0 and number:
        path.write_bytes(damaged(path.read_bytes(), rng))
    return title, lambda: read_all("webdataset", {"path": str(folder)}, rng.choice(("error", "skip")))


def tables(rng: random.Random, number: int, folder: Path) -> tuple[str, Callable[[], str | None]]:
    good, bait, count = picture(".png"), str(folder.parents[1] / "bait.txt"), 12
    labels: object = [0, 1] * 6
    cells = {"bytes": [good] * count, "structs": [{"bytes": good, "path": "x.png"}] * count,
             "a path alone": [{"bytes": None, "path": bait}] * count,
             "a path to a device": [{"bytes": None, "path": "/dev/zero"}] * count,
             "a path upwards": [{"bytes": None, "path": "../../bait.txt"}] * count, "text": ["x.png"] * count,
             "numbers": [1] * count,
             "nothing": [None] * count, "lists": [[good]] * count,
             "damaged": [damaged(good, rng) if i == 3 else good for i in range(count)],
             "one nothing": [None if i == 3 else good for i in range(count)],
             "empty bytes": [b""] * count}
    title = list(cells)[number % len(cells)]
    if number >= len(cells) and rng.random() < 0.4:
        title, labels = "bytes", rng.choice((["a"] * count, [0, None] * 6, [[1]] * count, [1.5] * count, [-1] * count,
                                             [2**62] * count, [True, False] * 6, [b"x"] * count, [{"a": 1}] * count))
    if rng.random() < 0.25:
        return _manifest(rng, folder, good)
    kind = pa.binary() if title == "nothing" else None
    table = pa.table({"img": pa.array(cells[title], kind), "label": pa.array(labels)})
    if rng.random() < 0.2:
        evil = json.dumps({"info": {"features": {"img": {"_type": "Evil"}}}})
        table = table.replace_schema_metadata({"huggingface": rng.choice(("{", "[]", evil, nested_json(rng)))})
    pq.write_table(table, folder / "train.parquet")
    if rng.random() < 0.3:
        (folder / "train.parquet").write_bytes(damaged((folder / "train.parquet").read_bytes(), rng))
    return f"cells of {title}, labels {str(labels)[:20]}", lambda: read_all("parquet", {"path": str(folder)},
                                                                            rng.choice(("error", "skip")))


def _manifest(rng: random.Random, folder: Path, good: bytes) -> tuple[str, Callable[[], str | None]]:
    """A table of paths and labels; skipped where this version reads none."""
    for i in range(6):
        (folder / f"{i}.png").write_bytes(good)
    rows = [[f"{i}.png", str(i % 2)] for i in range(6)]
    rows[3][rng.randrange(2)] = rng.choice((*HOSTILE_NAMES, "../bait.txt", "/dev/zero", "http://localhost/x.png", "9" * 400))
    suffix = rng.choice((".csv", ".tsv", ".jsonl"))
    path = folder / f"train{suffix}"
    text = "".join(json.dumps({"path": p, "label": n}) + "\n"
                   for p, n in rows) if suffix == ".jsonl" else "path,label\n".replace(",", mark := "\t" if suffix == ".tsv"
                                                                                       else ",") + "".join(
        f"{p}{mark}{n}\n" for p, n in rows)
    content = text.encode("utf-8", "surrogatepass")
    path.write_bytes(damaged(content, rng) if rng.random() < 0.4 else content)

    def attempt() -> str | None:
        from distillscope.registry import datasets

        if "manifest" in list(datasets):
            return read_all("manifest", {"path": str(path)})
        return None

    return f"manifest {suffix}, row 4 {rows[3]}"[:120], attempt
