"""Random draws keyed by what they are for, so that no draw depends on what was drawn before it.

Every draw is keyed by (seed, purpose, epoch, item id). A trial needs no other trial to have run, arms with one seed
see the same order and the same noise, and neither batch size nor the number of processes changes anything.
"""

from __future__ import annotations

import hashlib

import numpy as np


def keyed_rng(*key: object) -> np.random.Generator:
    """An independent generator for ``key``: the same key always gives the same draws, on every machine.

    >>> bool((keyed_rng(42, "noise", 0, "test/7").normal(size=3) == keyed_rng(42, "noise", 0, "test/7").normal(size=3)).all())
    True
    """
    digest = hashlib.blake2b("\x1f".join(map(str, key)).encode(), digest_size=16).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest, "little")))


def keyed_seed(*key: object) -> int:
    """A 63-bit seed for libraries that want an integer."""
    return int(keyed_rng(*key).integers(0, 2**63 - 1))
