"""What the name of an array or a column says: an item's id, its class, an embedding, or one dimension of one."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

THING = (r"(image|img|photo|picture|pic|sample|item|file|asset|example|record|data|doc|row|frame|object|source|src|full|rel|"
         r"relative|abs|base|orig|original|instance|entry)*")
ID_KINDS = ("id|identifier|uid|uuid|guid", "filename|filepath|filestem|imagepath|path|file|fname|fpath|stem|basename", "name",
            "key", "url|uri|link", "image|img", "hash|md5|sha1|sha256|checksum", "index|idx|rownumber|number")
ANY_PREFIX = r"(id|uid|uuid|guid|filename|filepath|path|url|uri)"
LABEL_KINDS = ("label", "class|cls", "target", "category", "y")
LABEL_PREFIX = r"(fine|true|gt|groundtruth|image|img|numeric|class|coarse)?"
LABEL_SUFFIX = r"(id|idx|index|name|number|num|text|title)?"
EMBEDDING_FIRST = r"(image|img)?(embedding|emb|embed|vector)"
EMBEDDING_SECOND = (r"(image|img|visual|clip|dino|model|output|pooled|cls)?"
                    r"(embedding|emb|embed|vector|vec|feature|feat|representation|repr|latent|descriptor|hidden|activation)")
DIMENSION_STEMS = frozenset("e d f v z dim dimension component pc feat vec col column".split()) | {""}
WEIGHTS = frozenset("weight weights bias running_mean running_var num_batches_tracked in_proj_weight in_proj_bias gamma beta "
                    "position_embedding class_embedding cls_token pos_embed positional_embedding logit_scale".split())
"""How the parameters of networks are called, at the end of their paths."""
PLURALS = {"classes": "class", "categories": "category", "indices": "index", "hashes": "hash", "entries": "entry"}


def plain(name: str) -> str:
    """A name without case, punctuation and plural.

    >>> plain("ImageIDs"), plain("file_names"), plain("Class"), plain("img path")
    ('imageid', 'filename', 'class', 'imgpath')
    """
    joined = re.sub(r"[\W_]+", "", name.lower())
    joined = PLURALS.get(joined, joined)
    return joined[:-1] if joined.endswith("s") and not joined.endswith(("ss", "cls", "alias")) and len(joined) > 1 else joined


def _forms(name: str) -> tuple[str, ...]:
    """The whole name, and its last part where it is a path."""
    last = re.split(r"[./:]", name)[-1]
    return (plain(name), plain(last)) if last != name else (plain(name),)


@functools.lru_cache(4096)
def id_rank(name: str) -> int | None:
    """How surely a name is that of an id, 0 first; None where it is none.

    >>> id_rank("id"), id_rank("FileNames") < id_rank("image_hash"), id_rank("class_id"), id_rank("score")
    (0, True, None, None)
    """
    if label_rank(name) is not None:
        return None
    if is_index(name):
        return len(ID_KINDS)
    for form in _forms(name):
        if form == "id":
            return 0
        for rank, kind in enumerate(ID_KINDS, 1):
            if re.fullmatch(rf"{THING}({kind})", form):
                return rank
    last_word = plain(re.split(r"[\W_]+", re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name))[-1])
    return len(ID_KINDS) + 1 if re.fullmatch(ANY_PREFIX, last_word) else None


@functools.lru_cache(4096)
def label_rank(name: str) -> int | None:
    """How surely a name is that of a class, 0 first; None where it is none.

    >>> label_rank("labels"), label_rank("ClassName"), label_rank("class_id") is not None, label_rank("filename")
    (0, 7, True, None)
    """
    for form in _forms(name):
        for rank, kind in enumerate(LABEL_KINDS):
            if re.fullmatch(f"({kind})", form):
                return rank
            if re.fullmatch(rf"{LABEL_PREFIX}({kind}){LABEL_SUFFIX}", form) or re.fullmatch(rf"y({kind})", form):
                return 6 + rank
    return None


def is_coordinate(name: str, names: Iterable[str]) -> bool:
    """Whether a y is the other half of an x among ``names`` of numbers, and so no class.

    >>> is_coordinate("box.y", ["box.x", "box.y"]), is_coordinate("y", ["e0", "y"])
    (True, False)
    """
    return _forms(name)[-1] == "y" and name[:-1] + ("X" if name[-1] == "Y" else "x") in names


@functools.lru_cache(4096)
def embedding_rank(name: str) -> int | None:
    """0 for the usual names of an image's embedding, 1 for others; None for names that say nothing.

    >>> embedding_rank("img_emb"), embedding_rank("features"), embedding_rank("text_embedding"), embedding_rank("logits")
    (0, 1, None, None)
    """
    forms = _forms(name)
    if any(re.fullmatch(EMBEDDING_FIRST, form) for form in forms):
        return 0
    return 1 if any(re.fullmatch(EMBEDDING_SECOND, form) for form in forms) else None


def is_index(name: str) -> bool:
    """Whether a column is the row labels that pandas writes, or is called as they are."""
    return plain(name) in ("", "index", "idx", "level0", "indexlevel0", "unnamed0")


def are_weights(names: Iterable[str]) -> bool:
    """Whether these are the parameters of a network.

    >>> are_weights(["conv.weight", "conv.bias"]), are_weights(["embeddings", "labels"])
    (True, False)
    """
    return any(re.split(r"[./]", name)[-1] in WEIGHTS for name in names)


@dataclass(frozen=True)
class Run:
    """Columns of one stem and rising numbers (e0, emb[0], 0_emb): ``names`` in the order of their numbers."""

    stem: str
    names: tuple[str, ...]
    numbers: tuple[int, ...]

    @property
    def whole(self) -> bool:
        """From 0 or 1 on, without a gap."""
        return self.numbers[0] in (0, 1) and self.numbers == tuple(range(self.numbers[0], self.numbers[0] + len(self.numbers)))

    @property
    def title(self) -> str:
        """'e0..e47', which also names it on the command line."""
        return f"{self.names[0]}..{self.names[-1]}"

    @property
    def named_as_embedding(self) -> bool:
        return embedding_rank(self.stem) is not None or plain(self.stem) in DIMENSION_STEMS


def runs(names: Sequence[str]) -> list[Run]:
    """The runs of two columns and more among ``names``, the longest first.

    >>> [(r.stem, r.numbers, r.whole) for r in runs(["id", "e0", "e1", "e10", "e2", "w", "h3"])]
    [('e', (0, 1, 2, 10), False)]
    """
    found: dict[str, list[tuple[int, str]]] = {}
    for name in names:
        match = re.fullmatch(r"(.*?)(\d{1,9})(\D*)", name, re.DOTALL)
        if match:
            found.setdefault(match[1] + match[3], []).append((int(match[2]), name))
    ordered = [(stem, sorted(parts)) for stem, parts in found.items() if len({n for n, _ in parts}) == len(parts) > 1]
    return [Run(stem, tuple(name for _, name in parts), tuple(n for n, _ in parts))
            for stem, parts in sorted(ordered, key=lambda item: -len(item[1]))]
