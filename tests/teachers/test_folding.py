"""Batch norms are folded into the convolution that a forward pass shows before them, and into no other."""

import pytest
import torch
from torch import nn

from distillscope.data.preprocess import Preprocess
from distillscope.teachers.encoder import Encoder
from distillscope.teachers.folding import fold_batch_norms


def drawn(module: nn.Module) -> nn.Module:
    """In evaluation mode, with batch norms that do something."""
    torch.manual_seed(0)
    for norm in (m for m in module.modules() if isinstance(m, nn.BatchNorm2d)):
        norm.running_mean.normal_(0, 0.1)
        norm.running_var.uniform_(0.5, 2)
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        nn.init.normal_(norm.bias, 0, 0.1)
    return module.eval()


def folded(module: nn.Module, size: int = 64) -> tuple[int, int]:
    """(batch norms that are left, of them beside a convolution); the outputs must stay the same."""
    x = torch.randn(2, 3, size, size)
    with torch.no_grad():
        before = module(x)
        left = fold_batch_norms(module, lambda: x[:1])
        after = module(x)
    assert torch.allclose(before, after, rtol=1e-4, atol=1e-5)  # float32 sums in another order
    return sum(isinstance(m, nn.BatchNorm2d) for m in module.modules()), left


@pytest.mark.parametrize(("model", "norms", "left"), [
    ("test_efficientnet", 0, 0), ("resnet18", 0, 0), ("resnet18d", 1, 0), ("tf_efficientnet_lite0", 0, 0),
    ("repvit_m0_9", 23, 23)])
def test_folding_changes_rounding_only(model, norms, left):
    import timm

    assert folded(drawn(timm.create_model(model, pretrained=False, num_classes=0))) == (norms, left)


class Pair(nn.Module):
    """A convolution and a batch norm side by side, used as ``how`` says."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 1)
        self.conv = nn.Conv2d(4, 4, 1)
        self.norm = nn.BatchNorm2d(4)
        self.how = how

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = self.first(images)
        out = {"in order": lambda: self.norm(self.conv(x)),
               "norm first": lambda: self.conv(self.norm(x)),
               "of a sum": lambda: self.norm(self.conv(x) + x),
               "changed in place": lambda: self.norm(self.conv(x).relu_()),
               "also used": lambda: self.norm(y := self.conv(x)) + y,
               "convolution twice": lambda: self.norm(self.conv(x)) + self.conv(2 * x),
               "norm twice": lambda: self.norm(self.conv(x)) + self.norm(x),
               "other weight": lambda: self.norm(nn.functional.conv2d(x, self.conv.weight / 2, self.conv.bias))}[self.how]()
        return out.mean((2, 3))


@pytest.mark.parametrize(("how", "left"), [("in order", 0), ("norm first", 1), ("of a sum", 1), ("changed in place", 1),
                                           ("also used", 1), ("convolution twice", 1), ("norm twice", 1), ("other weight", 1)])
def test_only_what_a_forward_pass_confirms_is_folded(how, left):
    assert folded(drawn(Pair(how)), 8) == (left, left)


def test_what_older_embeddings_folded_wrongly_has_another_name_in_the_cache():
    right, wrong = (Encoder("mine", drawn(Pair(how)), 4, Preprocess(8), "0").to(torch.device("cpu"))
                    for how in ("in order", "norm first"))
    assert "unfolded" not in right.describe() and wrong.describe()["unfolded"] == 1
    assert right.mark == "0" and wrong.mark.startswith("0, batch norms")


def test_a_module_that_takes_no_such_images_is_left_as_it_is():
    assert fold_batch_norms(drawn(Pair("in order")), lambda: torch.zeros(1, 5, 8, 8)) == 1
