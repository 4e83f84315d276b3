"""``python -m mamfed_client.training.device_worker``: train on a further device of a site.

The process reads its task from stdin, trains one round and ends. It also ends at once if the
process that started it ends. It returns no weights: the leader of the group has the same ones.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from mamfed_common.errors import MamfedError
from mamfed_common.runtime.lifeline import hold_lifeline
from mamfed_common.runtime.terminal import set_environment
from mamfed_common.transforms.sample import Sample

if TYPE_CHECKING:  # torch is loaded after the task has been read
    from mamfed_client.preparation.sample_store import StoredSample
    from mamfed_client.training.devices import StoredImage, WorkerTask

logger = logging.getLogger(__name__)


class StoredSamples(Sequence[Sample]):
    """The samples that a task names."""

    def __init__(self, images: Sequence[StoredImage]) -> None:
        """Wrap the samples without reading them."""
        self._images = [(image.entry(), image.name) for image in images]

    def __len__(self) -> int:
        """Return the number of samples."""
        return len(self._images)

    def __getitem__(self, index: int) -> Sample:  # type: ignore[override]  # no slices needed
        """Read one sample."""
        entry, name = self._images[index]
        return entry.load(name)

    def entry(self, index: int) -> tuple[str, StoredSample]:
        """Return the site's name for an image and its sample on disk, without reading it."""
        entry, name = self._images[index]
        return name, entry


def carry_out(task: WorkerTask) -> None:
    """Train this process's share of a round, led by another process.

    Raises:
        DataError: A sample cannot be read.
    """
    import torch

    from mamfed_common.model.malignancy_net import MalignancyNetwork
    from mamfed_common.training.batches import Batches
    from mamfed_common.training.data_parallel import join_group
    from mamfed_common.training.stages import fit

    torch.set_num_threads(task.threads)
    device = torch.device(task.place.device)
    with join_group(task.place) as process_group:
        network = MalignancyNetwork(task.plan.network).to(device)
        network.backbone.activation_checkpointing = task.activation_checkpointing
        samples, benign = StoredSamples(task.samples), StoredSamples(task.benign)
        batches = Batches(
            samples, task.plan, task.stage, task.round_context, benign, process_group.share
        )
        fit(network, batches, device=device, process_group=process_group)


def main() -> None:
    """Carry out the task on stdin."""
    hold_lifeline()
    set_environment()
    text = sys.stdin.buffer.read()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    from mamfed_client.training.devices import WorkerTask

    task = WorkerTask.model_validate_json(text)
    try:
        carry_out(task)
    except MamfedError as error:
        logger.error("%s: %s", task.place.device, error)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
