"""Random draws keyed by what they are for, so that no draw depends on what was drawn before it.

Every draw is keyed by (seed, purpose, epoch, item id). A trial needs no other trial to have run, arms with one seed
see the same order and the same noise, and neither batch size nor the number of processes changes anything.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator

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


def keyed_rngs(items: Iterable[object], *key: object) -> Iterator[np.random.Generator]:
    """For each of ``items`` in turn, the generator of (``key``, item); only one lives at a time.

    `keyed_rng` builds a generator for each item (about 20 us); this moves one counter-based generator to the item's own
    part of its stream (about 3 us): the key of Philox is ``key``'s hash, the upper half of its counter the item's.

    >>> draws = [rng.normal() for rng in keyed_rngs(["a", "b"], 42, "noise")]
    >>> draws[1] == next(keyed_rngs(["b"], 42, "noise")).normal()
    True
    """
    digest = hashlib.blake2b("\x1f".join(map(str, key)).encode(), digest_size=16).digest()
    philox = np.random.Philox(key=int.from_bytes(digest, "little"))
    rng, state = np.random.Generator(philox), philox.state
    for item in items:
        upper = hashlib.blake2b(str(item).encode(), digest_size=16).digest()
        state["state"]["counter"] = np.frombuffer(bytes(16) + upper, "<u8")
        philox.state = state  # buffer_pos and has_uint32 as in a fresh one: nothing of the last item is left
        yield rng
