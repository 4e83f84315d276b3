"""Find a site's models in a simulation's run folder."""

from __future__ import annotations

from pathlib import Path

from mamfed_client.models.model_store import PERSONAL, ModelFolder
from mamfed_client.training.fedbn import LocalNorms
from mamfed_common.checkpoint import Checkpoint
from mamfed_common.plan.norm_groups import group_of
from mamfed_server.run_folder.folder import RunFolder


def shared_path(folder: Path) -> Path:
    """Return the path of a run folder's chosen model."""
    return RunFolder(folder).checkpoint_path("best")


def personal_path(folder: Path, site: str) -> Path:
    """Return the path of a site's personal model."""
    return ModelFolder(folder / "models" / site).file(PERSONAL)


def as_at_site(shared: Checkpoint, folder: Path, site: str) -> Checkpoint:
    """Return a run folder's shared model as a site has it: with its own or its group's norms."""
    facts = shared.facts
    shared = shared.for_group(group_of(facts.plan, site))
    if not facts.plan.federation.local_norms:
        return shared
    norms = LocalNorms(folder.absolute() / "norms" / site, facts.plan)
    return shared._replace(state=norms.to_score(shared.state, facts.stage, facts.server_round))
