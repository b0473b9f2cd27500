"""What the processes of a launcher do together: agree, share, take turns, and end with one line."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from builders import refused
from builders.together import Together
from builders.training import source
from distillscope import group
from distillscope.data.preprocess import Preprocess
from distillscope.errors import UserError
from distillscope.teachers import cache
from distillscope.teachers.encoder import Encoder
from distillscope.training.stored_images import stored


@pytest.fixture
def together(monkeypatch):
    return Together(2).patched(monkeypatch)


def encoder() -> Encoder:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 6))
    return Encoder("linear", module, 6, Preprocess(8), "weights", batch_size=5)


def test_each_image_is_embedded_once_and_all_have_the_rows_of_one_process(together, cache_dir, tmp_path, monkeypatch):
    """48 images in batches of 5, of which the first 12 are there already: 4 batches for one, 4 for the other."""
    images = source()
    alone = cache.embed(encoder(), images, root=tmp_path / "alone")
    cache.embed(encoder(), images.take(np.arange(12)), root=tmp_path / "both")
    seen: list[tuple[int, list[str]]] = []
    encode = Encoder.encode

    def counted(self, shown, ids=None, perturbation=None):
        seen.append((group.rank(), list(ids)))
        return encode(self, shown, ids, perturbation)

    monkeypatch.setattr(Encoder, "encode", counted)
    rows = together.run(lambda rank: np.array(cache.embed(encoder(), images, root=tmp_path / "both")))
    assert sorted(item for _, ids in seen for item in ids) == sorted(images.ids[12:].tolist())
    assert [sum(rank == one for rank, _ in seen) for one in range(2)] == [4, 4]
    for found in rows:  # batches of another size round differently
        assert np.allclose(found, alone, atol=1e-6)
    assert len(list((tmp_path / "both").glob("embeddings/*/img_emb/*.npy"))) == 1
    seen.clear()
    together.run(lambda rank: cache.embed(encoder(), images, root=tmp_path / "both"))
    assert not seen


def test_images_kept_on_disk_are_made_in_parts(together):
    images = replace(source(), pixels=None)
    shown = together.run(lambda rank: stored(images, Preprocess(4), "noise").read(range(48)))
    assert torch.equal(*shown)
    assert torch.equal(shown[0], Preprocess(4).shown(images.read(range(48))))


def test_what_the_first_process_finds_or_refuses_all_find_or_refuse(together):
    calls = []

    def find() -> int:
        calls.append(group.rank())
        return 7

    def refuse() -> None:
        raise UserError("data", "images", "none", "Name others.")

    def break_down() -> None:
        raise ZeroDivisionError

    assert together.run(lambda rank: group.agreed(find)) == [7, 7]
    assert calls == [0]

    def refused_at(rank: int) -> None:
        with refused(where="data", expected="images"):
            group.agreed(refuse)
        with pytest.raises(SystemExit if rank else ZeroDivisionError):
            group.agreed(break_down)

    together.run(refused_at)


def test_in_turn_each_works_by_itself_after_the_first(together):
    said = []

    def work() -> int:
        said.append((len(said), group.world(), group.rank()))
        return len(said)

    assert together.run(lambda rank: group.in_turn(work)) == [1, 2]
    assert said == [(0, 1, 0), (1, 1, 0)]
    assert together.run(lambda rank: group.world()) == [2, 2]


def test_batches_are_shared_and_counted():
    batches = [[0, 1], [2, 3], [4]]
    assert (group.share(batches), group.whole(batches)) == (batches, [2, 2, 1])


def test_batches_of_two_are_shared_and_counted(together):
    batches = [[0, 1], [2, 3], [4]]
    assert together.run(lambda rank: (group.share(batches), group.whole(batches))) == [
        ([[0, 1], [4]], [4, 1]), ([[2, 3]], [4, 1])]


def test_a_process_that_is_gone_is_one_line_and_any_other_error_is_its_own(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with refused(where="distill", expected="2 processes", got="one that has ended", advice="repeat"), group.parted("distill"):
        raise RuntimeError("[../gloo/transport/tcp/pair.cc:561] Connection closed by peer")
    with pytest.raises(RuntimeError, match="shapes"), group.parted("distill"):
        raise RuntimeError("shapes differ")


def test_a_launchers_variables_without_a_launcher_are_named(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    with refused(where="WORLD_SIZE", expected="MASTER_ADDR", got="2", advice="torchrun"):
        group.join()
