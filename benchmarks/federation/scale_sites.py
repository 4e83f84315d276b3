"""The sites of ``scale.py``, in a separate module that Ray's processes import by name."""

from __future__ import annotations

from functools import cache

import torch
from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp

from mamfed_common.model.config import NetworkConfig
from mamfed_common.model.malignancy_net import MalignancyNetwork
from mamfed_common.model.state_dict import State, state_of
from mamfed_common.protocol.messages import pack, unpack_body, unpack_state
from mamfed_common.protocol.tasks import SiteDescription, TrainReport, TrainTask

IMAGES = 2


@cache
def expected() -> State:
    """Return weights with the names and shapes of the default network."""
    return state_of(MalignancyNetwork(NetworkConfig()))


def site_app() -> ClientApp:
    """Return a client app whose sites train by changing every weight a little."""
    app = ClientApp()

    @app.query()
    def describe(message: Message, context: Context) -> Message:
        images = {"benign": {"train": IMAGES}}
        description = SiteDescription(
            site=f"site-{context.node_config['partition-id']}", images=images, patients={},
            rows=IMAGES, rejected={}, left_out={}, vendors={},
        )  # fmt: skip
        return Message(pack(description), reply_to=message)

    @app.train()
    def train(message: Message, context: Context) -> Message:
        torch.set_num_threads(1)
        content: RecordDict = message.content
        task, state = unpack_body(content, TrainTask), unpack_state(content, expected())
        step = 1e-5 * (task.server_round + int(context.node_config["partition-id"]) % 7)
        for tensor in state.values():
            if tensor.is_floating_point():
                tensor.add_(step)
        return Message(
            pack(TrainReport(num_examples={"benign": IMAGES}, loss=1.0), state), reply_to=message
        )

    return app
