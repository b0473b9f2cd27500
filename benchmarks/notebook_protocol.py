"""The nine trials of the study, as the paper's notebook runs them and as Distillscope does.

    python benchmarks/notebook_protocol.py [--size 224] [--out DIR]

The notebook's protocol, restated: a live teacher at every step, PIL preprocessing in the loader without workers, students
in NCHW; S, M, L x 3 seeds x 5 epochs. Ours: each image through the teacher once, students on tensors in channels last.
Both in float32, in this one process, on all its threads (our own default, one trial a core, is not used here).

A slice is measured: for each size, images a second of each loop over a few batches of 64, in turn; and of the teacher
alone. The nine trials are extrapolated from it, being linear in images: the notebook's seconds an image are the sum over sizes
of 15 / rate; ours are that sum with our rates, and one teacher forward. Probes and measures are left out on both sides.
With ``--size 32`` the students see native pixels on our side; the notebook's stay at 224, which is all that it can do.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import timm
import torch
from PIL import Image
from timing import in_turn, publish, some_images
from torchvision import transforms as T

from distillscope.config.parts import CLIP_MEAN, CLIP_STD
from distillscope.config.study import Arm, Training
from distillscope.data.preprocess import Preprocess
from distillscope.devices import kept_memory
from distillscope.objectives.regression import cosine
from distillscope.students.load import build_student
from distillscope.students.networks import paper_cnn
from distillscope.teachers.encoder import Encoder
from distillscope.training.loop import TrainingSet, distill
from distillscope.training.streams import KeyedStreams

BATCH, EPOCHS, SEEDS, WIDTHS = 64, 5, 3, {"S": 1, "M": 2, "L": 4}


class PilImages(torch.utils.data.Dataset):
    """CLIP's preprocessing of each item, in PIL."""

    def __init__(self, pixels: np.ndarray) -> None:
        self.pixels = pixels
        self.transform = T.Compose([T.Resize(224, T.InterpolationMode.BICUBIC), T.CenterCrop(224), T.ToTensor(),
                                    T.Normalize(CLIP_MEAN, CLIP_STD)])

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, index: int) -> torch.Tensor:
        return self.transform(Image.fromarray(self.pixels[index]))


def notebook_epoch(teacher: torch.nn.Module, student: torch.nn.Module, optimizer, batches) -> list[float]:
    """One epoch of the notebook: the teacher is asked at every step. Its losses."""
    losses = []
    student.train()
    for images in batches:
        with torch.no_grad():
            target = teacher(images)
        loss = cosine(student(images), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses


def same_losses(teacher: torch.nn.Module, source, size: int = 224, steps: int = 3) -> dict:
    """Both loops from the same initial weights and order on the same tensors: how far apart are their losses?"""
    part = source.take(range(steps * BATCH))
    preprocess = Preprocess(size)
    inputs = preprocess(part.read(range(len(part)))).contiguous()
    with torch.no_grad():
        targets = torch.cat([teacher(inputs[i : i + 16]) for i in range(0, len(inputs), 16)]).numpy()
    streams = KeyedStreams(1, "S")
    ours = streams.build(lambda: build_student("paper_cnn", {}, 512, preprocess, "S", torch.device("cpu")))
    theirs = paper_cnn(512, size)
    theirs.load_state_dict(ours.module.state_dict())
    order = streams.order(0, len(part))
    theirs_losses = notebook_epoch(teacher, theirs, torch.optim.Adam(theirs.parameters()),
                                   [inputs[order[i : i + BATCH]] for i in range(0, len(part), BATCH)])
    with tempfile.TemporaryDirectory() as folder:
        record = distill(ours, TrainingSet(part, lambda epoch: targets), Arm(name="cosine"),
                         Training(epochs=1, batch_size=BATCH), streams, Path(folder))[0]
    pil = torch.stack([PilImages(part.pixels)[i] for i in range(16)])
    return {"steps": steps, "notebook_mean_loss": float(np.mean(theirs_losses)), "our_mean_loss": record["loss"],
            "relative_difference": abs(float(np.mean(theirs_losses)) / record["loss"] - 1),
            "tensor_against_pil_resize_max_grey_levels": float(((pil - Preprocess(224)(part.read(range(16)))).abs() * 255
                                                                * torch.tensor(CLIP_STD).view(1, 3, 1, 1)).max())}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    source = some_images(256)
    torch.manual_seed(0)
    teacher = timm.create_model("vit_base_patch32_clip_quickgelu_224", pretrained=False, num_classes=512).eval()
    encoder = Encoder("clip", timm.create_model("vit_base_patch32_clip_quickgelu_224", pretrained=False, num_classes=512), 512,
                      Preprocess(224), "").to(torch.device("cpu"))
    targets = np.random.default_rng(0).normal(size=(len(source), 512)).astype(np.float32)
    calls = {"notebook": 0}
    teacher.register_forward_hook(lambda module, inputs, output: calls.__setitem__("notebook", calls["notebook"] + len(output)))
    runs, seen = {}, 0
    for label, width in WIDTHS.items():
        net = paper_cnn(512, 224, width=width)
        optimizer = torch.optim.Adam(net.parameters())
        loader = torch.utils.data.DataLoader(PilImages(source.pixels[:BATCH]), BATCH, shuffle=True, drop_last=True)
        few = source.take(range(BATCH if args.size > 64 else 256))

        def theirs(net=net, optimizer=optimizer, loader=loader) -> int:
            notebook_epoch(teacher, net, optimizer, loader)
            return BATCH

        def ours(width=width, few=few) -> int:
            student = build_student("paper_cnn", {"width": width}, 512, Preprocess(args.size), "student", torch.device("cpu"))
            with tempfile.TemporaryDirectory() as folder:
                distill(student, TrainingSet(few, lambda epoch: targets), Arm(name="cosine"),
                        Training(epochs=2, batch_size=BATCH), KeyedStreams(1, "student"), Path(folder))
            return 2 * len(few)

        runs[f"notebook {label}"], runs[f"ours {label}"] = theirs, ours

    @kept_memory()
    def teach() -> int:
        encoder.encode(source.read(range(32)), source.ids[:32])
        return 32

    runs["our teacher"] = teach
    began = time.monotonic()
    rates = in_turn(runs, args.seconds, args.rounds)
    seen = calls["notebook"]
    each = SEEDS * EPOCHS
    theirs = sum(each / rates[f"notebook {s}"]["median"] for s in WIDTHS)
    students = sum(each / rates[f"ours {s}"]["median"] for s in WIDTHS)
    once = 1 / rates["our teacher"]["median"]
    publish(f"notebook_protocol_{args.size}", args.out, {
        "images_per_second": rates, "threads": torch.get_num_threads(), "measured_seconds": round(time.monotonic() - began, 1),
        "teacher_forwards_an_image": {"notebook": each * len(WIDTHS), "ours": 1},
        "teacher_forwards_counted_in_the_slice": seen,
        "nine_trials_seconds_an_image": {"notebook": theirs, "ours": students + once, "ours, students alone": students},
        "ratio": theirs / (students + once),
        "same_losses": same_losses(teacher, source),
    })


if __name__ == "__main__":
    main()
