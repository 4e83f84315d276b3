"""The peers' networks: real packages, random weights, logits of the image's own size."""

import subprocess
import sys

import pytest
import torch

from mamfed_common.model.state_dict import state_of, state_sha256
from mamfed_simulations.study.peers import PEERS


@pytest.mark.parametrize("name", PEERS)
@pytest.mark.parametrize("shape", [(64, 64), (100, 84)])
def test_logits_have_the_images_size(name, shape):
    network = PEERS[name].build(64, 0).eval()
    with torch.no_grad():
        logits = network(torch.rand(1, 1, *shape))
    assert logits.shape == (1, 1, *shape)
    assert logits.min() < logits.max()


@pytest.mark.parametrize("name", PEERS)
def test_the_same_seed_gives_the_same_weights_and_no_draw_of_the_process(name):
    before = torch.random.get_rng_state()
    one, two, other = (state_sha256(state_of(PEERS[name].build(64, s))) for s in (0, 0, 1))
    assert one == two != other
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize(
    ("name", "size", "parameters"),
    [
        # monai's documentation gives the features; smp's table has 24 M for a ResNet-34 U-Net.
        ("basicunet", 256, 1_978_433),
        ("smp-resnet34", 256, 24_430_097),
        # 9 stages at 1536, as nnU-Net's plans for patches of that side.
        ("plainconvunet", 256, 33_470_310),
    ],
)
def test_networks_have_the_size_they_are_known_for(name, size, parameters):
    assert sum(p.numel() for p in PEERS[name].build(size, 0).parameters()) == parameters


def test_plainconvunet_pools_as_nnunet_plans():
    from mamfed_simulations.study.peers import _poolings

    assert [_poolings(size) for size in (256, 512, 1536)] == [6, 7, 8]


def test_a_missing_package_is_one_line_that_says_what_to_install():
    script = """
import sys
sys.modules["dynamic_network_architectures"] = None
from mamfed_common.errors import MamfedError
from mamfed_simulations.study.peers import PEERS
try:
    PEERS["plainconvunet"].build(64, 0)
except MamfedError as error:
    print(error.exit_code, error)
"""
    found = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    ).stdout
    assert "dynamic_network_architectures" in found
    assert found.startswith("1 ")
    assert "[peers]'" in found
    assert len(found.splitlines()) == 1


def test_no_package_is_imported_before_a_network_is_built():
    script = """
import sys, mamfed_simulations.study.peers
print([m for m in ("segmentation_models_pytorch", "dynamic_network_architectures", "timm")
       if m in sys.modules])
"""
    found = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == "[]"
