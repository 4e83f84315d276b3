"""The network used for prediction, and what identifies it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from mamfed_common import checkpoint as checkpoints
from mamfed_common.checkpoint import CheckpointFacts, require_finetuned
from mamfed_common.errors import CheckpointError
from mamfed_common.model.malignancy_net import MalignancyNetwork
from mamfed_common.plan import TrainingPlan
from mamfed_common.training.device import choose_device
from mamfed_common.training.inference import load_network

NOTICE = "research use only: not a medical device, not for diagnosis"


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A trained network, ready to run.

    Attributes:
        network: The network, on ``device``.
        device: The device it runs on.
        plan: The plan of its training, with the threshold to use.
        facts: The facts in its checkpoint.
        threshold_from: Origin of the threshold.
        painter: The network at the end of stage 1, on ``device``, which draws healthy tissue; None
            if there was no stage 1.
    """

    network: MalignancyNetwork
    device: torch.device
    plan: TrainingPlan
    facts: CheckpointFacts
    threshold_from: str
    painter: MalignancyNetwork | None = None

    @property
    def threshold(self) -> float:
        """Lowest probability at which a pixel is marked."""
        return self.plan.evaluation.threshold

    def to_json(self) -> dict[str, Any]:
        """Return what identifies model and threshold: equal values give equal predictions."""
        personal = self.facts.personal
        return {
            **({"personal_of": personal.site} if personal else {}),
            **({"norms": self.facts.norm_group} if self.facts.norm_group else {}),
            "weights_sha256": self.facts.weights_sha256,
            "painter_sha256": self.facts.painter_sha256 or None,
            "plan_sha256": self.facts.plan_sha256,
            "trained_by": f"mamfed {self.facts.mamfed_version}",
            "stage": str(self.facts.stage),
            "server_round": self.facts.server_round,
            "image_size": self.plan.image_size,
            "threshold": self.threshold,
            "threshold_from": self.threshold_from,
        }


def load_model(
    checkpoint: Path, threshold: float | None, device: str, norms: str | None = None
) -> LoadedModel:
    """Read a checkpoint of stage 2.

    Args:
        checkpoint: The file.
        threshold: Lowest probability at which a pixel is marked; None: the one that validation
            chose, from the checkpoint, or else the plan's.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        norms: The group of sites whose norms to use, if the checkpoint holds norms by group.

    Raises:
        CheckpointError: The file is missing, damaged, for another network, or from stage 1.
        PlanError: ``threshold`` is not between 0 and 1, or there is no such device.
    """
    if checkpoint.is_dir():
        raise CheckpointError(
            f"{checkpoint}: found a folder, expected a file; of a run, its "
            "checkpoints/best.safetensors"
        )
    state, facts, painter = checkpoints.load_model(checkpoint, norms)
    require_finetuned(checkpoint, facts)
    plan, threshold_from = facts.plan_at(threshold)
    chosen = choose_device(device)
    network = load_network(state, plan, chosen).eval()
    return LoadedModel(
        network,
        chosen,
        plan,
        facts,
        threshold_from,
        None if painter is None else load_network(painter, plan, chosen).eval(),
    )
