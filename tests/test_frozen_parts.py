"""What is frozen is not computed: operations that training steps execute."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from dimred.models import resnet
from dimred.net import Net
from dimred.training.tape import Recorder

Operations = list[tuple[str, ...]]


def executed(net: Net, images: Tensor) -> Operations:
    """The operations of a forward and a backward pass."""
    net.zero_grad()
    with Recorder() as recorder, net.weights_in_place(channels_last=True) as model:
        images = images.to(memory_format=torch.channels_last)
        F.cross_entropy(model(images), torch.zeros(len(images), dtype=torch.int64)).backward()
    return recorder.tape.lines


def wanted(lines: Operations, name: str) -> list[list[bool]]:
    """The gradients that each call of a backward kernel computes: of its input, weight, bias."""
    calls = [line for line in lines if line[0] == f"aten.{name}.default"]
    return [[flag == "True" for flag in line[-3:]] for line in calls]


def resnet8() -> Net:
    """A stem, three blocks (the last two with a convolution in their shortcut) and a Linear
    layer: 9 convolutions, 9 norms."""
    torch.manual_seed(0)
    model = resnet(
        shape=(3, 8, 8),
        classes=10,
        depth=8,
        width=0.25,
        shortcut="conv",
        init="kaiming_normal",
        pretrained=None,
    )
    return Net(model)


def test_a_frozen_weight_takes_no_gradient_and_nothing_below_the_first_trained_one_does() -> None:
    images = torch.randn(4, 3, 8, 8)
    net = resnet8()
    lines = executed(net, images)
    # of the first convolution, the weight alone; of the 8 others, both
    assert wanted(lines, "convolution_backward") == [[True, True, False]] * 8 + [
        [False, True, False]
    ]

    net.freeze(dict.fromkeys(["stage2.0.conv1.weight", "stage3.0.conv2.weight"]))
    lines = executed(net, images)
    kinds = wanted(lines, "convolution_backward")
    assert kinds.count([True, False, False]) == 2 and len(kinds) == 9

    below = [name for name in net.parameters() if not name.startswith(("stage3", "fc"))]
    net.freeze(dict.fromkeys(below))
    lines = executed(net, images)
    # stage3: conv2, frozen above, and two convolutions of the first input that trains
    kinds = wanted(lines, "convolution_backward")
    assert sorted(kinds) == [[False, True, False], [False, True, False], [True, False, False]]
    assert len(wanted(lines, "native_batch_norm_backward")) == 3


def test_norms_alone_train_without_the_gradient_of_a_single_weight() -> None:
    net = resnet8()
    net.freeze(dict.fromkeys(net.weights))
    lines = executed(net, torch.randn(4, 3, 8, 8))
    # everything above the first norm is computed through: all convolutions but the first
    assert wanted(lines, "convolution_backward") == [[True, False, False]] * 8
    # the Linear layer: the product of its forward pass, and the gradient of its input
    assert [line[0] for line in lines].count("aten.mm.default") == 1
