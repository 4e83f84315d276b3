"""The network that predicts, and all that says which one it is."""

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
        device: Where it runs.
        plan: The plan that it was trained by, with the threshold to use.
        facts: What its checkpoint says of it.
        threshold_from: Where the threshold comes from.
        painter: The network as stage 1 left it, on ``device``, which draws healthy tissue; None:
            there was no stage 1.
    """

    network: MalignancyNetwork
    device: torch.device
    plan: TrainingPlan
    facts: CheckpointFacts
    threshold_from: str
    painter: MalignancyNetwork | None = None

    @property
    def threshold(self) -> float:
        """Probability from which a pixel is marked."""
        return self.plan.evaluation.threshold

    def to_json(self) -> dict[str, Any]:
        """Name the model and its threshold; equal ones give equal predictions."""
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
        threshold: Probability from which a pixel is marked; None: the checkpoint's, which
            validation chose, or else its plan's.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        norms: The group of sites whose norms to use, where the checkpoint holds those of groups.

    Raises:
        CheckpointError: It is missing, damaged, of another network, or of stage 1.
        PlanError: ``threshold`` is not between 0 and 1, or there is no such device.
    """
    if checkpoint.is_dir():
        raise CheckpointError(
            f"{checkpoint}: a folder; name a file, of a run its checkpoints/best.safetensors"
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
