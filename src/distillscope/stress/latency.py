"""How long one image takes on this machine."""

from __future__ import annotations

import time

import numpy as np
import torch

from distillscope.data.source import Source
from distillscope.devices import kept_memory
from distillscope.errors import UserError
from distillscope.registry import stresses
from distillscope.results.rows import Row
from distillscope.stress.subject import Findings, Subject


@stresses.register("latency")
def latency(model: Subject, test: Source, labels: np.ndarray | None, seed: int, *, repeats: int = 50,
            threads: int = 1) -> Findings:
    """Median time of the network's forward pass on one preprocessed image (capacity.latency_ms), batch 1, one thread.

    Decoding and preprocessing are not in it. Other work on the machine lengthens it: for a figure to be published, run
    with --jobs 1 on an idle machine. Weights and precision are those that the study ran with.
    """
    if repeats < 1 or threads < 1:
        raise UserError("stresses.latency", "repeats and threads of at least 1", f"repeats {repeats}, threads {threads}",
                        "50 and 1 are usual.")
    if model.module is None or model.preprocess is None:
        return Findings(skipped=["latency: ready-made embeddings have no network to time"])
    milliseconds = forward_milliseconds(model.module, model.preprocess.size, model.device, repeats, threads)
    unit = f"ms per image, median, batch 1, {threads} thread{'s' if threads > 1 else ''}, {model.device.type}"
    return Findings(rows=[Row.clean("capacity.latency_ms", milliseconds, repeats, unit)])


@kept_memory()
@torch.inference_mode()
def forward_milliseconds(module: torch.nn.Module, image_size: int, device: torch.device, repeats: int, threads: int) -> float:
    """Median of ``repeats`` forward passes of one image, after five that are not counted; threads and mode are put back."""
    was_training, before = module.training, torch.get_num_threads()
    inputs = torch.zeros(1, 3, image_size, image_size, device=device).contiguous(memory_format=torch.channels_last)
    module.eval()
    torch.set_num_threads(threads)
    try:
        seconds = []
        for repeat in range(5 + repeats):
            began = time.perf_counter()
            module(inputs)
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            if repeat >= 5:
                seconds.append(time.perf_counter() - began)
    finally:
        torch.set_num_threads(before)
        module.train(was_training)
    return 1000 * float(np.median(seconds))
