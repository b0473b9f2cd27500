"""The network that is exported: pixel values in, embeddings out, with the student's preprocessing inside."""

from __future__ import annotations

import copy

import torch

from distillscope.students.load import StudentEncoder
from distillscope.students.networks import Transform
from distillscope.teachers.folding import fold_batch_norms


class PixelNetwork(torch.nn.Module):
    """uint8 images (b, size, size, 3) to float32 embeddings (b, dim); the network between computes in ``dtype``.

    Channels last, as image libraries and cameras give them. Batch norms are folded into convolutions; a transform of the target
    stays in float32, as in training.
    """

    scale: torch.Tensor
    shift: torch.Tensor

    def __init__(self, student: StudentEncoder, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        network = copy.deepcopy(student.module).cpu().eval().requires_grad_(False)
        fold_batch_norms(network, lambda: torch.zeros(1, 3, student.preprocess.size, student.preprocess.size))
        self.network = network.to(memory_format=torch.contiguous_format).to(dtype)
        for part in self.network.modules():
            if isinstance(part, Transform):
                part.float()
        seen, self.dtype = student.preprocess, dtype
        std = torch.tensor(seen.std)
        # Said for each value of a line: runtimes take a product with three colours three values at a time, 14 times as slow.
        self.register_buffer("scale", (1 / (255 * std)).repeat(seen.size))
        self.register_buffer("shift", (-torch.tensor(seen.mean) / std).repeat(seen.size))
        self.eval()

    def colours(self, images: torch.Tensor) -> torch.Tensor:
        """What the network is shown of the images, (b, 3, size, size)."""
        lines = images.flatten(2).float() * self.scale + self.shift
        return lines.unflatten(2, images.shape[2:]).permute(0, 3, 1, 2).to(self.dtype)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.network(self.colours(images)).float()
