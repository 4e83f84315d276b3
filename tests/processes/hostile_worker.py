"""``python hostile_worker.py HOME=KIND ...``: sites that train as asked and spoil what they send.

Each site is a real node and a real worker, in processes of their own; only the answer is changed,
after the site's gate, as a hostile administrator could: the coordinator must find out by the answer
alone. The processes are forked from this one, because fourteen imports of torch take a minute.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from flwr.app import Array, ConfigRecord, Context, Message, MessageType, RecordDict
from safetensors.torch import load, save

from mamfed_client.node.executor import Progress, RequestHandler, Worker, installed_handler
from mamfed_client.node.flower_compat import start_log
from mamfed_client.node.supernode import run_node
from mamfed_client.site.settings import SiteHome
from mamfed_common.model.state_dict import State
from mamfed_common.protocol.messages import ARRAYS, BODY, JSON, SAFETENSORS, WEIGHTS

NAME = "Doe^Jane"
"""What the extra record carries; it must appear nowhere at the coordinator."""

Spoil = Callable[[RecordDict], None]


def _change(content: RecordDict, change: Callable[[State], None]) -> None:
    arrays = content.array_records[ARRAYS]
    state = load(arrays[WEIGHTS].data)
    change(state)
    data = save(state)
    arrays[WEIGHTS] = Array("uint8", (len(data),), SAFETENSORS, data)


def _with_nan(state: State) -> None:
    next(iter(state.values())).view(-1)[-1] = torch.nan


def _with_another_shape(state: State) -> None:
    name = next(iter(state))
    state[name] = state[name][..., None]


def _remove_last(state: State) -> None:
    del state[list(state)[-1]]


def _claim(content: RecordDict, num_examples: int) -> None:
    body = content.config_records[BODY]
    report = json.loads(str(body[JSON]))
    counts = dict.fromkeys(report["num_examples"], num_examples)
    body[JSON] = json.dumps({**report, "num_examples": counts})


def _add_name(content: RecordDict) -> None:
    content["patient"] = ConfigRecord({"name": NAME})


SPOILS: dict[str, Spoil] = {
    "nan": partial(_change, change=_with_nan),
    "shape": partial(_change, change=_with_another_shape),
    "missing": partial(_change, change=_remove_last),
    "negative": partial(_claim, num_examples=-5),
    "none": partial(_claim, num_examples=0),
    "vast": partial(_claim, num_examples=10**7),
    "name": _add_name,
}


def spoiled(answers: RequestHandler, spoil: Spoil) -> RequestHandler:
    """Return answers whose trained weights are spoiled after the gate."""

    def app(message: Message, context: Context) -> Message:
        reply = answers.app(message, context)
        if message.metadata.message_type == MessageType.TRAIN and not reply.has_error():
            spoil(reply.content)
        return reply

    return RequestHandler(app, answers.release_code)


def run_worker(home: SiteHome, kind: str) -> None:
    """Work for a site's node."""
    progress = Progress(home)
    Worker(home, spoiled(installed_handler(home, progress), SPOILS[kind]), progress).run()


def start(home: SiteHome, run: Callable[[], None]) -> None:
    """Run a part of a site in a process of its own."""
    if os.fork():
        return
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.environ["FLWR_HOME"] = str(home.path / "flower")
    try:
        run()
    finally:
        os._exit(1)


def main() -> None:
    """Run the sites given on the command line until SIGTERM."""
    start_log()
    signal.signal(signal.SIGTERM, lambda *_: os.killpg(0, signal.SIGKILL))
    for word in sys.argv[1:]:
        path, _, kind = word.rpartition("=")
        home = SiteHome(Path(path))
        start(home, partial(run_node, home))
        start(home, partial(run_worker, home, kind))
    while True:
        signal.pause()


if __name__ == "__main__":
    main()
