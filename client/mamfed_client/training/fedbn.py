"""FedBN's local part: a site's own instance-norm scales and shifts, kept on its own disk.

Li et al., "FedBN: Federated Learning on Non-IID Features via Local Batch Normalization", ICLR 2021.
Here the norms are instance norms, whose only learned parameters are scale and shift. The site still
sends all its weights and the server averages all of them, so a site that never trained has a
complete network. A site that has trained replaces the average's norms with its own before it
continues.
"""

from __future__ import annotations

import hashlib
import logging
import re
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load, save

from mamfed_common.model.state_dict import State, state_sha256
from mamfed_common.plan import Stage, TrainingPlan
from mamfed_common.plan.norm_groups import norm_names
from mamfed_common.runtime.bounded import CHECKPOINT_BYTES, parse_json, read_bytes
from mamfed_common.runtime.files import private_directory, write_atomic

logger = logging.getLogger(__name__)

CHECKSUM = "sha256"
"""Key of a file's header."""
KEPT = re.compile(r"(\d{4})\.safetensors")


class LocalNorms:
    """One site's norms after each round of one run; a few kB per round."""

    def __init__(self, folder: Path, plan: TrainingPlan, run: str = "") -> None:
        """Open the site's folder, creating it if missing (0700).

        Args:
            folder: Folder of all the site's norms.
            plan: The plan of the run.
            run: The coordinator's name for the run. The same plan may run again, and a site that
                misses the first rounds must not continue with the norms of the earlier run.
        """
        name = hashlib.sha256(f"{plan.sha256()} {run}".encode()).hexdigest()[:16]
        self._folder = private_directory(folder / name)
        self._names = norm_names(plan.network)

    def keep(self, state: State, stage: Stage, server_round: int) -> None:
        """Store the norms that this site trained in a round."""
        folder = private_directory(self._folder / stage)
        own = {name: state[name] for name in self._names}
        write_atomic(
            folder / f"{server_round:04}.safetensors",
            save(own, metadata={CHECKSUM: state_sha256(own)}),
        )

    def to_train_from(self, state: State, stage: Stage, server_round: int) -> State:
        """Return the server's weights with the norms of the last round that this site trained.

        The first round of stage 2 uses the norms of stage 1. A repeated round starts from the same
        norms as before.
        """
        own = self._latest(stage, server_round - 1)
        if not own and stage is Stage.FINETUNING and server_round == 1:
            own = self._latest(Stage.PRETRAINING, None)
        return state | own

    def to_score(self, state: State, stage: Stage, server_round: int) -> State:
        """Return a round's average with the norms that this site had after that round.

        A site that has not trained in that stage uses the average's norms.
        """
        return state | self._latest(stage, server_round)

    def _latest(self, stage: Stage, last: int | None) -> State:
        """Return the norms of the last trained round up to ``last``; empty if there is none."""
        folder = self._folder / stage
        paths = sorted(folder.glob("*.safetensors"), reverse=True)
        for path in paths:
            match = KEPT.fullmatch(path.name)
            if match and (last is None or int(match[1]) <= last):
                try:
                    own = self._read(path)
                except (OSError, SafetensorError, ValueError, KeyError):
                    logger.warning("%s is damaged and will not be used", path.name)
                    continue
                return own
        return {}

    def _read(self, path: Path) -> State:
        """Read a round's norms; files of earlier versions have no checksum.

        Raises:
            OSError, SafetensorError: The file cannot be read or decoded.
            ValueError, KeyError: It is damaged.
        """
        data = read_bytes(path, CHECKPOINT_BYTES)
        own = load(data)
        length = int.from_bytes(data[:8], "little")
        facts = parse_json(data[8 : 8 + length]).get("__metadata__", {})
        if facts and facts != {CHECKSUM: state_sha256(own)}:
            raise ValueError("its norms do not match their SHA-256")
        return {name: own[name] for name in self._names}
