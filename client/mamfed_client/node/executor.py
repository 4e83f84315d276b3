"""``python -m mamfed_client.node.executor HOME``: the process that looks at images and trains.

It stands where Flower would start a process for each message, from a bundle of code that came over
the wire. This one never unpacks a bundle: it runs the ClientApp that is installed here, and answers
to a bundle that is not mamfed's by a fault. It stays warm, takes one message at a time, and keeps
the text of every failure in its log (Flower 1.41-1.42).
"""

from __future__ import annotations

import gc
import json
import logging
import os
import signal
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Any, NamedTuple

import httpx
from flwr.app import Context, Error, Message
from flwr.common.constant import SubStatus
from flwr.proto.runtime_pb2 import AcquireTaskRequest
from flwr.supercore.constant import TaskType
from flwr.supercore.heartbeat import HeartbeatSender, make_task_heartbeat_fn_http
from flwr.supercore.inflatable.inflatable_utils import pull_and_inflate_object_from_tree
from flwr.supercore.interceptors import (
    RuntimeTokenHttpInterceptor,
    RuntimeVersionHttpInterceptor,
    SuperExecAuthHttpInterceptor,
)
from flwr.supercore.retry import make_simple_http_retry_invoker
from flwr.supercore.runtime import RuntimeHttpClient
from flwr.supernode.runtime import run_clientapp
from flwr.supernode.runtime.run_clientapp import pull_task_input, push_message, push_task_output

from mamfed_client.node.flower_compat import check_flower_parts, start_log
from mamfed_client.node.supernode import ARRIVAL, RUNTIME_FILE
from mamfed_client.site.settings import SiteHome, load_site_settings
from mamfed_client.site.status import STARTS_OVER, Task, update_status
from mamfed_common.errors import MamfedError, WeightsError
from mamfed_common.protocol.flower_bundle import bundle_sha256
from mamfed_common.protocol.messages import unpack_body
from mamfed_common.protocol.tasks import REFUSAL_CODES, RefusalCode, TrainTask
from mamfed_common.runtime.files import os_error_line
from mamfed_common.runtime.polling import pause_seconds
from mamfed_common.runtime.process_supervisor import hold_lifeline

logger = logging.getLogger(__name__)

PATIENCE_SECONDS = 120.0
"""How long a worker waits for a node that does not answer."""
LONGEST_PAUSE = 0.5
TELL_SECONDS = 2.0
ACQUIRE = "/flwr.proto.Runtime/AcquireTask"

ClientAppCall = Callable[[Message, Context], Message]


class RequestHandler(NamedTuple):
    """What answers messages.

    Attributes:
        app: The ClientApp of this installation.
        release_code: Records a fault code that leaves in place of an answer.
    """

    app: ClientAppCall
    release_code: Callable[[RefusalCode], RefusalCode]


class Runtime(NamedTuple):
    """Where the node is, and what lets the worker in."""

    port: int
    secret: bytes


class Progress:
    """What the worker is doing, written to the site's status now and then."""

    def __init__(self, home: SiteHome) -> None:
        """Tell it of a site."""
        self._home = home
        self._task: Task | None = None
        self._told_at = 0.0

    def begin(self, message: Message) -> None:
        """Take note of what was asked; nothing of it is trusted yet."""
        kind = message.metadata.message_type.partition(".")[0][:20]
        try:
            train = unpack_body(message.content, TrainTask)
        except WeightsError:
            self._tell(Task(kind=kind))
        else:
            self._tell(Task(kind=kind, stage=train.stage, server_round=train.server_round))

    def step(self) -> None:
        """Count a training step."""
        if self._task is not None:
            self._task = self._task.model_copy(update={"steps": self._task.steps + 1})
            if monotonic() - self._told_at > TELL_SECONDS:
                self._tell(self._task)

    def end(self) -> None:
        """Take note that it is over."""
        self._tell(None)

    def _tell(self, task: Task | None) -> None:
        self._task, self._told_at = task, monotonic()
        update_status(self._home, task=task, worker_pid=os.getpid())


class Worker:
    """Takes one message after another from the node."""

    def __init__(self, home: SiteHome, answers: RequestHandler, progress: Progress) -> None:
        """Answer by the installed app, whatever bundle a message names."""
        self._home = home
        self._answers = answers
        self._progress = progress
        self._patience_seconds = PATIENCE_SECONDS

    def run(self) -> None:
        """Work until the node has been away for too long."""
        heard_at, worked_at = monotonic(), float("-inf")
        while monotonic() - heard_at < self._patience_seconds:
            try:
                token = self._acquire()
                heard_at = monotonic()
                if token:
                    self._work(token)
                    if worked_at < 0:
                        gc.freeze()  # torch and Flower: looked at after each message, 0.3 s
                    heard_at = worked_at = monotonic()
                    continue
            except (httpx.HTTPError, OSError, ValueError) as error:
                logger.warning("the node does not answer: %s", type(error).__name__)
            time.sleep(pause_seconds(monotonic() - worked_at, LONGEST_PAUSE))

    def _acquire(self) -> str:
        """Ask for a task; return its token, empty where there is none."""
        runtime = read_runtime(self._home)
        signed = SuperExecAuthHttpInterceptor(
            master_secret=runtime.secret, protected_methods=frozenset({ACQUIRE})
        )
        with _client(runtime.port, signed) as client:
            request = AcquireTaskRequest(supported_task_types=[TaskType.CLIENT_APP])
            return client.AcquireTask(request).token

    def _work(self, token: str) -> None:
        """Answer one message, beating for as long as it takes; leave no reference to it behind."""
        runtime = read_runtime(self._home)
        with _client(runtime.port, RuntimeTokenHttpInterceptor(token), retry=True) as client:
            heartbeats = HeartbeatSender(make_task_heartbeat_fn_http(client))
            heartbeats.start()
            try:
                self._answer(client)
            finally:
                if heartbeats.is_running:
                    heartbeats.stop()
                self._progress.end()
                gc.collect()

    def _answer(self, client: RuntimeHttpClient) -> None:
        message, context, _, bundle = pull_task_input(client)
        reply, outcome = self._reply(message, context, bundle.hash_str), SubStatus.COMPLETED
        if reply.has_error():
            outcome = SubStatus.FAILED
        push_message(client, reply, context)
        push_task_output(client, context, outcome, "")

    def _reply(self, message: Message, context: Context, bundle: str) -> Message:
        """Return the answer: the app's, or a fault that says nothing of why."""
        if bundle != bundle_sha256():
            logger.error("refused a bundle that is not mamfed's: %s", bundle[:64])
            return self._fault(RefusalCode.OTHER_VERSION, message)
        try:
            self._progress.begin(message)
            return self._answers.app(message, context)
        except Exception:
            logger.exception("this site could not answer a %s", message.metadata.message_type)
            return self._fault(RefusalCode.FAILED, message)

    def _fault(self, fault: RefusalCode, message: Message) -> Message:
        self._answers.release_code(fault)
        return Message(Error(fault, REFUSAL_CODES[fault]), reply_to=message)


def read_runtime(home: SiteHome) -> Runtime:
    """Return where the node listens now.

    Raises:
        OSError: It has not started yet.
        ValueError: The file is not what a node writes.
    """
    found = json.loads((home.path / RUNTIME_FILE).read_text())
    return Runtime(int(found["port"]), bytes.fromhex(found["secret"]))


def installed_answers(home: SiteHome, progress: Progress) -> RequestHandler:
    """Return the ClientApp of this installation, behind the site's gate.

    Raises:
        SetupError: ``site.yaml``, its devices or the welcome cannot be used.
    """
    import monai.losses
    import monai.metrics  # noqa: F401 - here, not while a round waits

    from mamfed_client.disclosure.gate import open_gate
    from mamfed_client.models.model_store import folder_for
    from mamfed_client.node.client_app import make_client_app

    settings, gate = load_site_settings(home), open_gate(home)
    settings.hardware().choose()
    app = make_client_app(
        lambda _: load_site_settings(home).site(),
        **settings.hardware()._asdict(),
        on_step=progress.step,
        gate=gate,
        state_folder=home.state,
        keep_seconds=settings.checkpoint_seconds,
        norms=home.state / "norms",
        optimizer=home.state / "optimizer",
        models=lambda _, task: folder_for(home.models, task.run, task.plan),
    )
    return RequestHandler(app, gate.release_code)


def _client(port: int, interceptor: Any, *, retry: bool = False) -> RuntimeHttpClient:
    version = RuntimeVersionHttpInterceptor(component_name="mamfed-worker")
    return RuntimeHttpClient.from_server_address(
        server_address=f"127.0.0.1:{port}",
        insecure=True,
        root_certificates=None,
        interceptors=[version, interceptor],
        retry_invoker=_patient() if retry else None,
    )


def _patient() -> Any:
    retries = make_simple_http_retry_invoker()
    retries.max_time = PATIENCE_SECONDS
    return retries


def main() -> None:
    """Run the worker of the home given on the command line."""
    hold_lifeline()
    # Flower raises SIGINT where a task's lease has run out: what is trained is not wanted any more.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # A task is handed out while the arrays of its message still come in.
    run_clientapp.pull_and_inflate_object_from_tree = partial(  # type: ignore[attr-defined]
        pull_and_inflate_object_from_tree, **ARRIVAL
    )
    start_log()
    home = SiteHome(Path(sys.argv[1]).resolve())
    try:
        check_flower_parts()
        progress = Progress(home)
        Worker(home, installed_answers(home, progress), progress).run()
    except MamfedError as error:
        logger.error("%s", error)
        update_status(home, error=str(error))
        sys.exit(error.exit_code)
    except OSError as error:
        logger.error("%s", os_error_line(error))
        update_status(home, error=os_error_line(error))
        sys.exit(STARTS_OVER)
    except KeyboardInterrupt:
        logger.warning("a task's lease ran out")
    sys.exit(STARTS_OVER)


if __name__ == "__main__":
    main()
