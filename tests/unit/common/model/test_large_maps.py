"""Blocks of large maps beside the same in double precision: same numbers, same gradients."""

from __future__ import annotations

import copy
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from mamfed_common.model import instance_norm
from mamfed_common.model.config import NetworkConfig
from mamfed_common.model.unet import ResidualBlock, UNet


class Case(NamedTuple):
    """A block and its input."""

    block: ResidualBlock
    x: Tensor
    skip: Tensor | None = None


def draw(*shape: int) -> Tensor:
    return torch.randn(*shape).contiguous(memory_format=torch.channels_last).requires_grad_()


CASES = {
    "plain": lambda: Case(ResidualBlock(5, 5), draw(1, 5, 13, 9)),
    "wider": lambda: Case(ResidualBlock(3, 6), draw(1, 3, 8, 11)),
    "shrinking": lambda: Case(ResidualBlock(4, 7, stride=2), draw(1, 4, 14, 10)),
    "enlarging": lambda: Case(ResidualBlock(4, 4, enlarges=True), draw(1, 4, 7, 5)),
    "joining": lambda: Case(
        ResidualBlock(7, 4, enlarges=True), draw(1, 4, 7, 5), draw(1, 3, 14, 10)
    ),
}


@pytest.fixture(autouse=True)
def everything_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(3)
    monkeypatch.setattr(instance_norm, "LARGE_BYTES", 0)


def run(case: Case) -> tuple[Tensor, list[Tensor]]:
    """Return the output and the gradients of a weighted sum of it: input, skip, weights."""
    leaves = [t for t in (case.x, case.skip) if t is not None]
    out = case.block(case.x, case.skip)
    weights = torch.linspace(-1, 2, out.numel()).reshape(out.shape).to(out.dtype)
    return out.detach(), list(
        torch.autograd.grad((out * weights).sum(), [*leaves, *case.block.parameters()])
    )


def in_double(case: Case) -> Case:
    block = copy.deepcopy(case.block).double()
    leaves = [None if t is None else t.detach().double().requires_grad_() for t in case[1:]]
    return Case(block, *leaves)  # type: ignore[arg-type]


def with_odd_norms(case: Case) -> Case:
    with torch.no_grad():
        for name, weight in case.block.named_parameters():
            if "norm" in name:
                weight.uniform_(-1, 2)
    return case


@pytest.mark.parametrize("rows", [1, 3, 1000])
@pytest.mark.parametrize("name", CASES)
def test_bands_give_the_numbers_and_gradients_of_the_whole_in_double_precision(
    name: str, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = with_odd_norms(CASES[name]())
    channels, width = case.block.units[0].pointwise.out_channels, case.x.shape[-1]
    wide = width * (2 if case.block.enlarges else 1) // case.block.stride
    monkeypatch.setattr(instance_norm, "BAND_BYTES", 4 * channels * wide * rows)
    out, gradients = run(case)
    exact, exact_gradients = run(in_double(case))
    assert out.dtype == torch.float32
    torch.testing.assert_close(out.double(), exact, rtol=1e-4, atol=1e-5)
    for gradient, expected in zip(gradients, exact_gradients, strict=True):
        torch.testing.assert_close(gradient.double(), expected, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("name", CASES)
def test_a_block_that_forgets_gives_the_same_bits(name: str) -> None:
    case = with_odd_norms(CASES[name]())
    out, gradients = run(case)
    case.block.forgets = True
    again, same = run(case)
    assert torch.equal(out, again)
    assert all(torch.equal(a, b) for a, b in zip(gradients, same, strict=True))


def test_a_block_that_forgets_keeps_its_input_only() -> None:
    case = CASES["plain"]()
    for forgets in (False, True):
        case.block.forgets = forgets
        kept: list[int] = []

        def keep(tensor: Tensor, kept: list[int] = kept) -> Tensor:
            kept.append(tensor.data_ptr())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            case.block(case.x)
        assert (set(kept) == {case.x.data_ptr()}) is forgets


def test_a_large_norm_keeps_its_input_only_and_is_undone_once() -> None:
    norm, kept = instance_norm.InstanceNorm(3), []
    x = draw(1, 3, 8, 6)
    x = x * 1  # no leaf: its memory takes its gradient

    def keep(tensor: Tensor) -> Tensor:
        kept.append(tensor.data_ptr())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        out = norm.activated(x)
    assert kept == [x.data_ptr()]
    out = norm.activated(x)
    out.sum().backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        out.sum().backward()


def test_the_norm_of_a_map_far_from_zero_keeps_its_digits() -> None:
    case = CASES["plain"]()
    with torch.no_grad():
        case.x.add_(300)
    out, _ = run(case)
    exact, _ = run(in_double(case))
    assert (out - exact).abs().max() < 1e-2


def test_without_gradients_the_input_stays_as_it_was() -> None:
    for make in CASES.values():
        case = make()
        before = case.x.detach().clone()
        expected, _ = run(case)
        with torch.no_grad():
            assert torch.equal(case.block(case.x, case.skip), expected)
        assert torch.equal(case.x, before)


def test_a_batch_is_its_images_one_by_one() -> None:
    network = UNet(NetworkConfig(channels=(4, 6), first_skip_level=0, stem=1, smoothing=1))
    images = torch.rand(3, 1, 16, 12)
    assert torch.equal(network(images), torch.cat([network(image[None]) for image in images]))


def test_small_maps_other_precisions_and_autocast_take_the_fast_kernel(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: object) -> Tensor:
        raise AssertionError("large")

    monkeypatch.setattr(instance_norm, "_apply", fail)
    case = CASES["plain"]()
    run(in_double(case))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        run(case)
    with pytest.raises(AssertionError, match="large"):
        run(case)
    monkeypatch.setattr(instance_norm, "LARGE_BYTES", 4 << 20)
    run(case)


@pytest.mark.parametrize("limit", [0, 4 << 20])
def test_checkpointing_a_network_gives_the_same_bits(
    limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(instance_norm, "LARGE_BYTES", limit)
    network = UNet(NetworkConfig(channels=(4, 6, 8), first_skip_level=1, stem=2))
    image, found = torch.rand(1, 1, 40, 24), []
    for checkpointing in (False, True):
        network.activation_checkpointing = checkpointing
        assert network.activation_checkpointing is checkpointing
        gradients = torch.autograd.grad(network(image).square().sum(), list(network.parameters()))
        found.append(gradients)
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


@torch.no_grad()
def test_few_channels_of_many_pixels_keep_their_digits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(instance_norm, "LARGE_BYTES", 4 << 20)
    block, x = ResidualBlock(8, 8), torch.rand(1, 8, 256, 256) + 2
    exact = copy.deepcopy(block).double()(x.double())
    assert (block(x) - exact).abs().max() < 2e-5
