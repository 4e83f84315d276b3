"""Read the checkpoint to export, and the facts of its run."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import torch

from mamfed_common.checkpoint import Checkpoint, load_model, require_finetuned
from mamfed_common.errors import DataError
from mamfed_common.training.inference import load_network
from mamfed_server.export.network import ExportModel
from mamfed_server.export.preprocessing import preprocessing_of
from mamfed_server.report.data import RunNotes, read_notes
from mamfed_server.run_folder.folder import RunFolder


class Source(NamedTuple):
    """A fine-tuned checkpoint and its run.

    Attributes:
        path: The checkpoint's file.
        checkpoint: Weights and facts.
        summary: The run's summary; None: a checkpoint without a run, or a run that has not ended.
        notes: The run's notes for the report; those of a simulation have intervals.
    """

    path: Path
    checkpoint: Checkpoint
    summary: dict[str, Any] | None
    notes: RunNotes

    def model(self) -> ExportModel:
        """Build the network."""
        facts = self.checkpoint.facts
        network = load_network(self.checkpoint.state, facts.plan, torch.device("cpu")).eval()
        return ExportModel(network, facts, preprocessing_of(facts), self.checkpoint.painter)


def read_source(place: Path, name: str, norms: str | None = None) -> Source:
    """Read a checkpoint file, or the checkpoint ``name`` of a run folder.

    Args:
        place: The file or the folder.
        name: ``best``, ``final`` or ``latest``.
        norms: The norm group to use, if the checkpoint has norm groups.

    Raises:
        CheckpointError: The checkpoint is missing, damaged or of stage 1, or the norm group is
            missing or unknown.
        DataError: The run's notes are damaged.
    """
    is_run = place.is_dir()
    path = RunFolder(place).checkpoint_path(name) if is_run else place
    checkpoint = load_model(path, norms)
    require_finetuned(path, checkpoint.facts)
    if not is_run:
        return Source(path, checkpoint, None, RunNotes())
    return Source(path, checkpoint, _summary(place), read_notes(place))


def _summary(folder: Path) -> dict[str, Any] | None:
    try:
        return RunFolder(folder).read_summary()
    except DataError:
        return None
