"""FedBN's local part: a site's own instance-norm scales and shifts, kept on its own disk.

Li et al., "FedBN: Federated Learning on Non-IID Features via Local Batch Normalization", ICLR 2021;
here the norms are instance norms, whose scale and shift are all that is learned of them. The site
still sends all its weights, and the server averages all: a site that never trained has a whole
network. One that trained puts its own norms in place of the average's before it goes on.
"""

from __future__ import annotations

import hashlib
import logging
import re
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save

from mamfed_common.model.state_dict import State
from mamfed_common.plan import Stage, TrainingPlan
from mamfed_common.plan.norm_groups import norm_names
from mamfed_common.runtime.files import private_directory, write_atomic

logger = logging.getLogger(__name__)

KEPT = re.compile(r"(\d{4})\.safetensors")


class LocalNorms:
    """One site's norms after each round of one run; a few kB each."""

    def __init__(self, folder: Path, plan: TrainingPlan, run: str = "") -> None:
        """Open the site's folder, which is made if missing (0700).

        Args:
            folder: Where the site keeps all its norms.
            plan: The plan that the run follows.
            run: What the coordinator calls the run: the same plan may be run again, and a site
                that misses its first rounds must not go on with the norms of the run before.
        """
        name = hashlib.sha256(f"{plan.sha256()} {run}".encode()).hexdigest()[:16]
        self._folder = private_directory(folder / name)
        self._names = norm_names(plan.network)

    def keep(self, state: State, stage: Stage, server_round: int) -> None:
        """Keep the norms of what this site trained in a round."""
        folder = private_directory(self._folder / stage)
        own = {name: state[name] for name in self._names}
        write_atomic(folder / f"{server_round:04}.safetensors", save(own))

    def to_train_from(self, state: State, stage: Stage, server_round: int) -> State:
        """Return the server's weights with the norms of the last round that this site trained.

        In the first round of stage 2 these are of stage 1. A round that is asked again starts
        from the same norms as before.
        """
        own = self._latest(stage, server_round - 1)
        if not own and stage is Stage.FINETUNING and server_round == 1:
            own = self._latest(Stage.PRETRAINING, None)
        return state | own

    def to_score(self, state: State, stage: Stage, server_round: int) -> State:
        """Return a round's average with the norms that this site had after that round.

        A site that has not trained in that stage has only the average's.
        """
        return state | self._latest(stage, server_round)

    def _latest(self, stage: Stage, last: int | None) -> State:
        """Return the norms of the last round up to one that the site trained; else nothing."""
        folder = self._folder / stage
        paths = sorted(folder.glob("*.safetensors"), reverse=True)
        for path in paths:
            found = KEPT.fullmatch(path.name)
            if found and (last is None or int(found[1]) <= last):
                try:
                    own = load_file(path)
                except (OSError, SafetensorError):
                    logger.warning("%s is damaged and will not be used", path.name)
                    continue
                return {name: own[name] for name in self._names}
        return {}
