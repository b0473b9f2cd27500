"""What images cost on their way to teacher and student.

    python benchmarks/data_path.py photos [--count 400]        # photos of 2 to 12 MP: embed, against timm and PIL
    python benchmarks/data_path.py epochs [--count 600]        # photos of 0.6 MP: epochs at 96 px, against PIL

Photos are cut from scikit-learn's two, enlarged, with noise of up to 6 levels, and saved as JPEG of quality 88. All with one
thread a process; `photos` and `epochs` with two decoding workers on both sides. Processor time counts those of the workers.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from timing import publish

WORKERS = 2


class Clock:
    """Processor and wall-clock milliseconds an image, by what was timed."""

    def __init__(self, count: int) -> None:
        self.count, self.found = count, {}

    def __call__(self, name: str, work: Callable[[], Any]) -> Any:
        began, wall = processor_seconds(), time.perf_counter()
        found = work()
        took = {"processor": processor_seconds() - began, "wall": time.perf_counter() - wall}
        for kind, seconds in took.items():
            self.found.setdefault(name, {}).setdefault(kind, []).append(round(1000 * seconds / self.count, 3))
        return found

    def ratio(self, over: str, under: str) -> float:
        """Of the medians of processor time."""
        over_ms, under_ms = (statistics.median(self.found[name]["processor"]) for name in (over, under))
        return round(over_ms / under_ms, 2)


def processor_seconds() -> float:
    return sum(os.times()[:4])


def write_photos(count: int, folder: Path, least: float, most: float) -> Path:
    """``count`` JPEGs of ``least`` to ``most`` megapixels, in any shape from 1:1 to 16:9."""
    from PIL import Image
    from sklearn.datasets import load_sample_image

    rng, whole = np.random.default_rng(0), [Image.fromarray(load_sample_image(n)) for n in ("china.jpg", "flower.jpg")]
    side = int((most * 16 / 9 * 1e6) ** 0.5) + 1
    noise = rng.integers(0, 7, (side, side, 3), dtype=np.uint8)
    (folder / "train").mkdir(parents=True)
    for i in range(count):
        area, shape = 1e6 * rng.uniform(least, most), rng.uniform(1, 16 / 9)
        width, height = int((area * shape) ** 0.5), int((area / shape) ** 0.5)
        x, y = rng.integers(0, 100, 2)
        part = whole[i % 2].crop((x, y, x + int(300 * shape), y + 300)).resize((width, height), Image.Resampling.BICUBIC)
        pixels = np.minimum(np.asarray(part), 249) + noise[:height, :width]
        Image.fromarray(pixels).save(folder / "train" / f"{i}.jpg", quality=88)
    return folder


class PilPhotos(torch.utils.data.Dataset):
    """What a torchvision data set does for each file."""

    def __init__(self, folder: Path, size: int, mean: Any, std: Any, shorter: int) -> None:
        from torchvision import transforms as T

        self.files = sorted((folder / "train").iterdir())
        self.transform = T.Compose([T.Resize(shorter, T.InterpolationMode.BICUBIC), T.CenterCrop(size), T.ToTensor(),
                                    T.Normalize(mean, std)])

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> torch.Tensor:
        from PIL import Image

        return self.transform(Image.open(self.files[index]).convert("RGB"))


def photos(count: int, folder: Path, rounds: int = 2) -> dict[str, Any]:
    """Embedding by EfficientNet-Lite0: photos as `embed` decodes them, whole ones (min_side: whole), and a plain loop."""
    from distillscope.registry import teachers
    from distillscope.study.embedding import embed_dataset

    torch.set_num_threads(1)
    write_photos(count, folder / "photos", 2, 12)
    rows: dict[str, np.ndarray] = {}

    def plain() -> None:
        encoder = teachers.call("efficientnet_lite0", {})
        sees, module = encoder.preprocess, encoder.module.eval()
        data = PilPhotos(folder / "photos", sees.size, sees.mean, sees.std, round(sees.size / sees.crop_fraction))
        with torch.inference_mode():
            loader = torch.utils.data.DataLoader(data, 32, num_workers=WORKERS)
            rows["plain"] = np.concatenate([module(images).numpy() for images in loader])

    def ours(name: str, settings: str) -> None:
        os.environ["DISTILLSCOPE_CACHE"] = str(folder / f"cache-{name}-{len(clock.found.get(name, {}).get('wall', []))}")
        out = folder / f"out-{name}-{len(list(folder.iterdir()))}"
        embed_dataset(f"{{path: {folder / 'photos'}{settings}}}", "train", teacher="efficientnet_lite0", out=out, device="cpu",
                      workers=WORKERS)
        rows[name] = np.load(out / "img_emb" / "img_emb_0.npy")

    clock = Clock(count)
    for _ in range(rounds):
        clock("plain", plain)
        clock("whole", lambda: ours("whole", ", min_side: whole"))
        clock("reduced", lambda: ours("reduced", ""))
    faster = {n: clock.ratio("plain", n) for n in ("whole", "reduced")}
    return {"count": count, "ms an image": clock.found, "times as fast": faster,
            "cosine to plain": {n: _cosines(rows[n], rows["plain"]) for n in ("whole", "reduced")},
            "cosine, reduced to whole": _cosines(rows["reduced"], rows["whole"]),
            "grey levels, reduced to whole": grey_levels(folder / "photos")}


def _cosines(a: np.ndarray, b: np.ndarray) -> dict[str, float]:
    found = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    return {"mean": round(float(found.mean()), 5), "least": round(float(found.min()), 5)}


def grey_levels(folder: Path, count: int = 24) -> dict[str, float]:
    """How far what a model sees at 224 px (of 256) of reduced photos is from what it sees of whole ones: a photo's mean
    difference of its pixels, and the difference of its mean."""
    from distillscope.data.decode import Decoding, decode
    from distillscope.data.looking import shown_of
    from distillscope.data.preprocess import Preprocess, reduced_for

    sees, pixels, means = Preprocess(224, crop_fraction=0.875), [], []
    ways = Decoding(), Decoding().for_models(*reduced_for([sees]))
    for file in sorted((folder / "train").iterdir())[:count]:
        whole, reduced = (shown_of(sees, decode(file.read_bytes(), way)[0]).astype(float) for way in ways)
        pixels.append(np.abs(whole - reduced).mean())
        means.append(abs(whole.mean() - reduced.mean()))
    return {"photos": count, "pixels, mean": round(float(np.mean(pixels)), 3), "pixels, most": round(max(pixels), 3),
            "mean, most": round(max(means), 3)}


def epochs(count: int, folder: Path, rounds: int = 3) -> dict[str, Any]:
    """Epochs of a width-1 student at 96 px: the first with all that comes before it, later ones, from memory, a plain loop."""
    from distillscope.config.study import Arm, Training
    from distillscope.data import looking
    from distillscope.data.preprocess import Preprocess
    from distillscope.data.source import Source
    from distillscope.data.splits import looked_through, named_split
    from distillscope.objectives.regression import cosine
    from distillscope.students.load import build_student
    from distillscope.training.loop import TrainingSet, distill
    from distillscope.training.stored_images import keeper_for, stored
    from distillscope.training.streams import KeyedStreams

    torch.set_num_threads(1)
    looking.IN_MEMORY_BYTES = 10_000_000  # as of a set that is too large
    write_photos(count, folder / "photos", 0.3, 0.9)
    sees, arm, settings = Preprocess(96), Arm(name="a"), Training(epochs=1, batch_size=32)
    rows = np.random.default_rng(1).normal(size=(count, 64)).astype(np.float32)

    def fresh() -> Any:
        return build_student("paper_cnn", {"width": 1}, 64, sees, "S", torch.device("cpu"))

    def train(source: Source, name: str) -> None:
        distill(fresh(), TrainingSet(source, lambda epoch: rows), arm, settings, KeyedStreams(1, "S"),
                folder / f"{name}-{len(list(folder.iterdir()))}", warn=lambda text: None)

    def first(number: int) -> Source:
        os.environ["DISTILLSCOPE_CACHE"] = str(folder / f"cache-{number}")
        named = named_split("image_folder", {"path": folder / "photos"}, "train")
        looked = looked_through(named, workers=WORKERS, keepers=lambda found: [keeper_for(found, sees, arm, 50)])
        kept = stored(looked, sees, "photos")
        train(kept, "first")
        return kept

    def plain() -> None:
        student, data = fresh(), PilPhotos(folder / "photos", 96, sees.mean, sees.std, 96)
        optimizer, targets = torch.optim.Adam(student.module.parameters()), torch.from_numpy(rows)
        order = torch.randperm(count).tolist()
        batches = [order[i : i + 32] for i in range(0, count - 31, 32)]
        loader = torch.utils.data.DataLoader(data, batch_sampler=batches, num_workers=WORKERS)
        student.module.train()
        for batch, images in zip(batches, loader, strict=True):
            loss = cosine(student.module(images), targets[batch])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()

    clock = Clock(count)
    for number in range(rounds):
        clock("plain", plain)
        kept = clock("first", lambda number=number: first(number))
        held = replace(kept, pixels=np.stack([kept.image(i) for i in range(count)]))
        clock("later", lambda kept=kept: train(kept, "later"))
        clock("memory", lambda held=held: train(held, "memory"))
    return {"count": count, "ms an image": clock.found, "first, rate over plain": clock.ratio("plain", "first"),
            "later, rate over memory": clock.ratio("memory", "later"), "later, rate over plain": clock.ratio("plain", "later")}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=["photos", "epochs"])
    parser.add_argument("--count", type=int)
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["DISTILLSCOPE_CACHE"] = f"{folder}/cache"
        work, usual = (photos, 400) if asked.what == "photos" else (epochs, 600)
        publish(f"data_path_{asked.what}", asked.out, work(asked.count or usual, Path(folder)))


if __name__ == "__main__":
    main()
