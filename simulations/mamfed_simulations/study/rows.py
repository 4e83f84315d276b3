"""Define the rows of a study: the network that each row trains, and its initial weights.

All rows of a study share data, batches, augmentation, optimizer and steps. Rows with a subtraction
head continue to reconstruct benign images in stage 2, as the plan says (``losses.benign``). The
supervised rows are the paper's baseline and never see benign images in stage 2. One additional
supervised row sees them with an empty mask, so that it lacks only the subtraction.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from torch import nn

from mamfed_common.model.malignancy_net import build_network
from mamfed_common.plan import TrainingPlan
from mamfed_common.runtime.seeds import derive_seed
from mamfed_simulations.study.peers import PEERS

OURS = "discriminative-pretrained"
"""The row with which all others are compared."""
EMPTY_WEIGHT = 0.3
"""Weight of the cross-entropy with an empty mask; the same as with a non-empty mask."""


class Row(NamedTuple):
    """One way to train.

    Attributes:
        name: Key in files and options.
        label: Name in reports.
        head: Output that stage 2 supervises (``NetworkConfig.head``); a peer has its own head.
        pretrained: Whether stage 1 runs first.
        empty: Weight of the benign images' cross-entropy against an empty mask
            (``losses.empty``); None: the plan's.
    """

    name: str
    label: str
    head: Literal["subtraction", "direct", "peer"]
    pretrained: bool
    empty: float | None = None

    @property
    def sees_benign(self) -> bool:
        """Whether stage 2 uses benign images in addition to malignant ones."""
        return self.head == "subtraction" or bool(self.empty)

    def plan(self, plan: TrainingPlan) -> TrainingPlan:
        """Return the study's plan with this row's head."""
        if self.head == "peer":
            return plan
        network = plan.network.model_copy(update={"head": self.head})
        empty = plan.losses.empty if self.empty is None else self.empty
        losses = plan.losses.model_copy(update={"empty": empty})
        return plan.model_copy(update={"network": network, "losses": losses})

    def build(self, plan: TrainingPlan) -> nn.Module:
        """Build the row's network with the initial weights of the plan's seed."""
        if self.head == "peer":
            return PEERS[self.name].build(plan.image_size, initial_seed(plan))
        return build_network(self.plan(plan).network, initial_seed(plan))


TABLE1 = (
    Row("supervised-scratch", "Supervised, from scratch", "direct", False),
    Row("supervised-pretrained", "Supervised, pretrained", "direct", True),
    Row(
        "supervised-pretrained-benign",
        "Supervised, pretrained, benign images against an empty mask",
        "direct",
        True,
        EMPTY_WEIGHT,
    ),
    Row("discriminative-scratch", "Discriminative, from scratch", "subtraction", False),
    Row(OURS, "Discriminative, pretrained", "subtraction", True),
)
"""The rows of the paper's table 1, and one that isolates the effect of the subtraction."""

PEER_ROWS = (
    *(Row(name, peer.label, "peer", False) for name, peer in PEERS.items()),
    Row(OURS, "mamfed: discriminative, pretrained", "subtraction", True),
)
"""Common networks of other projects, and mamfed's own recipe."""


def initial_seed(plan: TrainingPlan) -> int:
    """Return the seed of the initial weights, the same for every row."""
    return derive_seed(plan.seed, "initial weights")
