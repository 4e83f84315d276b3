import copy

import pytest
import torch
from torch import nn

from mamfed_common.model.config import NetworkConfig
from mamfed_common.model.instance_norm import InstanceNorm
from mamfed_common.model.unet import (
    ResidualBlock,
    UNet,
    pad_to_multiple,
)

SMALL = NetworkConfig(channels=(4, 8, 8), first_skip_level=1, stem=1)


@pytest.mark.parametrize("stem", [1, 2, 4])
@pytest.mark.parametrize("size", [(64, 64), (33, 47), (1, 1), (5, 130)])
def test_output_has_the_size_of_any_input(stem, size):
    network = UNet(SMALL.model_copy(update={"stem": stem}))
    assert network(torch.rand(2, 1, *size)).shape == (2, 1, *size)


@pytest.mark.parametrize("batch", [1, 3])
def test_instance_norm_equals_torchs_own(batch):
    ours, torchs = InstanceNorm(5), nn.InstanceNorm2d(5, affine=True)
    nn.init.normal_(ours.weight)
    nn.init.normal_(ours.bias)
    torchs.load_state_dict(ours.state_dict())
    x = torch.randn(batch, 5, 9, 7, requires_grad=True)
    y = x.detach().clone().requires_grad_()
    weight = torch.randn(batch, 5, 9, 7)
    (ours(x) * weight).sum().backward()
    (torchs(y) * weight).sum().backward()
    torch.testing.assert_close(ours(x), torchs(y), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(x.grad, y.grad, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(ours.weight.grad, torchs.weight.grad, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_a_block_loses_no_digits_on_a_large_image():
    torch.manual_seed(0)
    x = (torch.rand(1, 3, 768, 768) + 3).contiguous(memory_format=torch.channels_last)
    block = ResidualBlock(3, 3)
    exact = copy.deepcopy(block).double()(x.double())
    assert (block(x) - exact).abs().max() < 1e-5


def test_instance_norm_in_eval_mode_still_uses_the_images_own_statistics():
    norm = InstanceNorm(2).eval()
    x = torch.randn(1, 2, 8, 8) * 3 + 5
    assert norm(x).mean().abs() < 1e-4


def test_images_of_one_batch_do_not_touch_each_other():
    network = UNet(SMALL).eval()
    one, other = torch.rand(1, 1, 32, 32), torch.rand(1, 1, 32, 32)
    together = network(torch.cat([one, other]))
    torch.testing.assert_close(together[:1], network(one), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("first_skip", [0, 1, 2])
def test_only_levels_from_first_skip_level_down_have_a_long_skip(first_skip):
    network = UNet(NetworkConfig(channels=(4, 8, 16), first_skip_level=first_skip, stem=1))
    inputs = [block.units[0].depthwise.in_channels for block in network.decoder]
    doubled = [count == 2 * channels for count, channels in zip(inputs, (4, 8), strict=True)]
    assert doubled == [level >= first_skip for level in (0, 1)]


def test_without_the_top_skip_fine_detail_cannot_be_copied_through():
    """A checkerboard of one-pixel squares averages out in every path below the top level."""
    network = UNet(NetworkConfig(channels=(4, 8), first_skip_level=1, stem=1))
    features, skips = network._encode(torch.rand(1, 1, 16, 16))
    assert skips == [None]
    assert features.shape == (1, 8, 8, 8)


def test_every_block_has_a_short_skip():
    network = UNet(SMALL)
    block = network.encoder[0]
    for parameter in block.units.parameters():
        nn.init.zeros_(parameter)
    x = torch.rand(1, 4, 8, 8)
    torch.testing.assert_close(block(x), x)


def test_convolutions_of_the_blocks_are_separable():
    for module in UNet(SMALL).encoder.modules():
        if isinstance(module, nn.Conv2d) and module.kernel_size != (1, 1):
            assert module.groups == module.in_channels


def test_the_state_dict_loads_in_any_memory_format_and_gives_the_same_output():
    network = UNet(SMALL).eval()
    other = UNet(SMALL).eval().to(memory_format=torch.channels_last)
    other.load_state_dict(network.state_dict())
    x = torch.rand(1, 1, 24, 40)
    torch.testing.assert_close(other(x), network(x), atol=1e-5, rtol=1e-4)


def test_padding_repeats_the_edge_up_to_two_multiples():
    padded = pad_to_multiple(torch.arange(6.0).reshape(1, 1, 2, 3), 4)
    assert padded.shape == (1, 1, 8, 8)
    assert padded[0, 0, 7, 7] == 5


@pytest.mark.parametrize(
    ("values", "culprit"),
    [
        ({"channels": (8,)}, "channels"),
        ({"channels": (8, 0)}, "channels"),
        ({"channels": (8, 8), "first_skip_level": 2}, "first_skip_level"),
        ({"stem": 3}, "stem"),
    ],
)
def test_an_impossible_network_is_refused_by_name(values, culprit):
    with pytest.raises(ValueError, match=culprit):
        NetworkConfig(**values)


@pytest.mark.parametrize("stem", [1, 2])
def test_every_map_is_channels_last_whatever_the_stem(stem):
    network = UNet(SMALL.model_copy(update={"stem": stem}))
    layouts = {}

    def note(name):
        def hook(module, inputs, output):
            layouts[name] = output.is_contiguous(memory_format=torch.channels_last)

        return hook

    for name, module in network.named_modules():
        if name.endswith(("depthwise", "pointwise")):
            module.register_forward_hook(note(name))
    network(torch.rand(1, 1, 64, 64))
    assert layouts
    assert all(layouts.values()), [name for name, good in layouts.items() if not good]
