"""``python -m`` this module: trains on one more of a site's devices, as stdin orders.

It trains one round and ends; and it ends at once where the process that started it does. What it
trained stays there: the leader of the group has the same weights.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from mamfed_common.errors import MamfedError
from mamfed_common.runtime.process_supervisor import hold_lifeline
from mamfed_common.runtime.terminal import set_environment
from mamfed_common.transforms.sample import Sample

if TYPE_CHECKING:  # torch is loaded once the order has been read
    from mamfed_client.training.devices import StoredImage, WorkerTask

logger = logging.getLogger(__name__)


class OrderedSamples(Sequence[Sample]):
    """The samples that an order names."""

    def __init__(self, images: Sequence[StoredImage]) -> None:
        """Read none yet."""
        self._images = [(image.entry(), image.name) for image in images]

    def __len__(self) -> int:
        """Count the samples without reading any."""
        return len(self._images)

    def __getitem__(self, index: int) -> Sample:  # type: ignore[override]  # no slices needed
        """Read one sample."""
        entry, name = self._images[index]
        return entry.load(name)


def carry_out(order: WorkerTask) -> None:
    """Train this process's share of a round, led by another one.

    Raises:
        DataError: A sample cannot be read.
    """
    import torch

    from mamfed_common.model.malignancy_net import MalignancyNetwork
    from mamfed_common.training.batches import Batches
    from mamfed_common.training.data_parallel import join_group
    from mamfed_common.training.stages import fit

    torch.set_num_threads(order.threads)
    device = torch.device(order.place.device)
    with join_group(order.place) as process_group:
        network = MalignancyNetwork(order.plan.network).to(device)
        network.backbone.activation_checkpointing = order.activation_checkpointing
        samples, benign = OrderedSamples(order.samples), OrderedSamples(order.benign)
        batches = Batches(
            samples, order.plan, order.stage, order.round_context, benign, process_group.share
        )
        fit(network, batches, device=device, process_group=process_group)


def main() -> None:
    """Carry out the order on stdin."""
    hold_lifeline()
    set_environment()
    text = sys.stdin.buffer.read()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    from mamfed_client.training.devices import WorkerTask

    order = WorkerTask.model_validate_json(text)
    try:
        carry_out(order)
    except MamfedError as error:
        logger.error("%s: %s", order.place.device, error)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
