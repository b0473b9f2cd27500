"""Student training at 32 px: our loop against the same step on tensors that are already resident and normalised.

    python benchmarks/student_step.py [--out DIR]

One thread, batch 64, 512-d random targets. The third rival feeds the step from a DataLoader (no workers) with PIL.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from timing import publish, random_images, rate, spread

from distillscope.config.parts import CLIP_MEAN, CLIP_STD
from distillscope.config.study import Arm, Training
from distillscope.data.preprocess import Preprocess
from distillscope.devices import kept_memory
from distillscope.objectives.regression import cosine
from distillscope.students.load import build_student
from distillscope.training.loop import TrainingSet, distill
from distillscope.training.streams import KeyedStreams

BATCH = 64


class PilImages(torch.utils.data.Dataset):
    """What a torchvision data set does for each item."""

    def __init__(self, pixels: np.ndarray, targets: torch.Tensor) -> None:
        from torchvision import transforms as T

        self.pixels, self.targets = pixels, targets
        self.transform = T.Compose([T.Resize(32, T.InterpolationMode.BICUBIC), T.CenterCrop(32), T.ToTensor(),
                                    T.Normalize(CLIP_MEAN, CLIP_STD)])

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, index: int):
        return self.transform(Image.fromarray(self.pixels[index])), self.targets[index]


@kept_memory()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    torch.set_num_threads(1)
    source = random_images(4096)
    targets = np.random.default_rng(1).normal(size=(len(source), 512)).astype(np.float32)
    record = {}
    for label, width, images in (("S", 1, 4096), ("M", 2, 2048), ("L", 4, 1024)):
        part, rows = source.take(range(images)), targets[:images]
        preprocess = Preprocess(32)
        student = build_student("paper_cnn", {"width": width}, 512, preprocess, label, torch.device("cpu"))
        optimizer = torch.optim.Adam(student.module.parameters())
        resident = preprocess(part.read(range(images)))
        pil = PilImages(part.pixels, torch.from_numpy(rows))
        loader = torch.utils.data.DataLoader(pil, BATCH, shuffle=True, drop_last=True)

        def step(x: torch.Tensor, y: torch.Tensor, student=student, optimizer=optimizer) -> None:
            student.module.train()
            loss = cosine(student.module(x), y)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            float(loss.detach())

        targets = torch.from_numpy(rows)

        def bare(images=images, resident=resident, rows=targets, step=step) -> int:
            for i in range(0, images, BATCH):
                step(resident[i : i + BATCH], rows[i : i + BATCH])
            return images

        def pil(loader=loader, step=step, images=images) -> int:
            for x, y in loader:
                step(x.contiguous(memory_format=torch.channels_last), y)
            return images

        def ours(part=part, rows=rows, width=width, images=images) -> int:
            fresh = build_student("paper_cnn", {"width": width}, 512, Preprocess(32), "student", torch.device("cpu"))
            with tempfile.TemporaryDirectory() as folder:
                distill(fresh, TrainingSet(part, lambda epoch: rows), Arm(name="cosine"), Training(epochs=2, batch_size=BATCH),
                        KeyedStreams(1, "student"), Path(folder))
            return 2 * images

        speeds: dict[str, list[float]] = {"bare": [], "ours": [], "pil": []}
        for run in (bare, ours, pil):
            run()
        for _ in range(args.rounds):
            for name, run in (("bare", bare), ("ours", ours), ("pil", pil)):
                speeds[name].append(rate(run, args.seconds))
        record[label] = {"images_per_second": {k: spread(v) for k, v in speeds.items()},
                         "ours_over_bare": spread([a / b for a, b in zip(speeds["ours"], speeds["bare"], strict=True)]),
                         "ours_over_pil": spread([a / b for a, b in zip(speeds["ours"], speeds["pil"], strict=True)])}
    publish("student_step", args.out, {"threads": 1, "batch": BATCH, "students": record})


if __name__ == "__main__":
    main()
