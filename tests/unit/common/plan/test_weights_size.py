"""The counted size of weights is that of the built network."""

import pytest

from mamfed_common.plan import TrainingPlan
from mamfed_common.plan.norm_groups import expected_state
from mamfed_common.plan.weights_size import weights_bytes

GROUPS = {"film": ("a", "b"), "digital": ("c",)}


@pytest.mark.parametrize(
    ("network", "groups"),
    [
        ({}, {}),
        ({}, GROUPS),
        ({"channels": (4, 4)}, GROUPS),
        ({"channels": (4, 8, 8, 16), "first_skip_level": 0, "stem": 4}, {}),
        ({"channels": (8, 8, 4, 12), "first_skip_level": 3, "stem": 1, "head": "direct"}, GROUPS),
    ],
)
def test_counts_what_the_network_has(network, groups):
    plan = TrainingPlan(network=network, federation={"norm_groups": groups})
    assert weights_bytes(plan) == sum(t.nbytes for t in expected_state(plan).values())
