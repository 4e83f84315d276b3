import pytest
import torch
from pydantic import ValidationError

from mamfed_common.model.config import NetworkConfig
from mamfed_common.model.malignancy_net import Subtraction, build_network

CONFIG = NetworkConfig(channels=(4, 8), first_skip_level=1, stem=1)


def test_a_perfect_reconstruction_of_healthy_tissue_gives_no_malignancy():
    image = torch.rand(1, 1, 8, 8)
    assert Subtraction(5)(image, image).sigmoid().max() < 0.3


def test_even_odds_lie_at_a_difference_of_the_offset():
    head = Subtraction(5)
    logits = head(torch.full((1, 1, 2, 2), 0.6), torch.full((1, 1, 2, 2), 0.5))
    torch.testing.assert_close(logits, torch.zeros(1, 1, 2, 2), atol=1e-5, rtol=0)


def test_tissue_darker_than_its_reconstruction_is_not_malignant():
    head = Subtraction(5)
    assert (head(torch.zeros(1, 1, 2, 2), torch.ones(1, 1, 2, 2)) < 0).all()


def test_one_bright_pixel_is_averaged_over_its_window():
    image = torch.zeros(1, 1, 9, 9)
    image[0, 0, 4, 4] = 0.9
    difference = Subtraction(3)(image, torch.zeros(1, 1, 9, 9)) / 10 + 0.1
    expected = torch.zeros(1, 1, 9, 9)
    expected[0, 0, 3:6, 3:6] = 0.1
    torch.testing.assert_close(difference, expected)


def test_the_border_is_averaged_over_the_pixels_that_are_there():
    head = Subtraction(5)
    logits = head(torch.full((1, 1, 6, 6), 0.6), torch.full((1, 1, 6, 6), 0.5))
    torch.testing.assert_close(logits, torch.zeros(1, 1, 6, 6), atol=1e-5, rtol=0)


def test_an_even_window_is_refused():
    with pytest.raises(ValidationError, match="smoothing 4 is even"):
        NetworkConfig(smoothing=4)


def test_gain_and_offset_are_learned():
    network = build_network(CONFIG, seed=0)
    network(torch.rand(1, 1, 16, 16)).sum().backward()
    assert network.subtraction.gain.grad is not None
    assert network.subtraction.offset.grad is not None


def test_both_stages_train_weights_of_the_same_names():
    network = build_network(CONFIG, seed=0)
    image = torch.rand(1, 1, 16, 16)
    logits = network(image)
    expected = network.subtraction(image, network.reconstruct(image))
    torch.testing.assert_close(logits, expected)
    outside = {"subtraction.gain", "subtraction.offset"}
    assert {n for n in network.state_dict() if not n.startswith("backbone.")} == outside


def test_the_direct_head_supervises_the_output_itself():
    direct = build_network(CONFIG.model_copy(update={"head": "direct"}), seed=0)
    image = torch.rand(1, 1, 16, 16)
    torch.testing.assert_close(direct(image), direct.reconstruct(image))
    assert all(name.startswith("backbone.") for name in direct.state_dict())
    subtracting = build_network(CONFIG, seed=0).state_dict()
    assert all(torch.equal(value, subtracting[n]) for n, value in direct.state_dict().items())


def test_the_seed_decides_the_weights_and_leaves_the_process_alone():
    before = torch.random.get_rng_state()
    first, again, other = (build_network(CONFIG, seed) for seed in (1, 1, 2))
    weights = [n.backbone.head.weight for n in (first, again, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    assert torch.equal(torch.random.get_rng_state(), before)
