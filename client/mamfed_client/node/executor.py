"""``python -m mamfed_client.node.executor HOME``: the process that reads images and trains.

Flower would start a process for each message, from a code bundle received over the wire. This
process replaces it. It never unpacks a bundle: it runs the ClientApp that is installed here, and
answers any bundle other than mamfed's with a refusal code. It stays loaded, handles one message at
a time, and keeps the text of every failure in its log (Flower 1.41-1.42).
"""

from __future__ import annotations

import gc
import logging
import os
import signal
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic
from typing import Any, NamedTuple

import httpx
from flwr.app import Context, Error, Message

from mamfed_client.node.flower_compat import (
    AcquireTaskRequest,
    HeartbeatSender,
    ObjectPushError,
    RuntimeHttpClient,
    RuntimeTokenHttpInterceptor,
    RuntimeVersionHttpInterceptor,
    SubStatus,
    SuperExecAuthHttpInterceptor,
    TaskType,
    check_flower_parts,
    make_simple_http_retry_invoker,
    make_task_heartbeat_fn_http,
    pull_task_input,
    push_message,
    push_task_output,
    set_worker_arrival,
    start_log,
)
from mamfed_client.node.supernode import ARRIVAL, RUNTIME_FILE
from mamfed_client.site.settings import SiteHome, load_site_settings
from mamfed_client.site.status import STARTS_OVER, Task, update_status
from mamfed_common.errors import MamfedError, WeightsError
from mamfed_common.protocol.flower_bundle import bundle_sha256
from mamfed_common.protocol.messages import unpack_body
from mamfed_common.protocol.tasks import REFUSAL_CODES, RefusalCode, TrainTask
from mamfed_common.runtime.bounded import DOCUMENT_BYTES, read_values
from mamfed_common.runtime.files import os_error_line
from mamfed_common.runtime.lifeline import hold_lifeline
from mamfed_common.runtime.polling import pause_seconds

logger = logging.getLogger(__name__)

PATIENCE_SECONDS = 120.0
"""Seconds that a worker waits for a node that does not answer."""
LONGEST_PAUSE = 0.5
TELL_SECONDS = 2.0
ACQUIRE = "/flwr.proto.Runtime/AcquireTask"

ClientAppCall = Callable[[Message, Context], Message]


class RequestHandler(NamedTuple):
    """The handlers of messages.

    Attributes:
        app: The ClientApp of this installation.
        release_code: Records a code that leaves in place of an answer.
    """

    app: ClientAppCall
    release_code: Callable[[RefusalCode], RefusalCode]


class Runtime(NamedTuple):
    """The node's port, and the secret that its worker needs."""

    port: int
    secret: bytes


class Progress:
    """The worker's progress, written to the site's status every few seconds."""

    def __init__(self, home: SiteHome) -> None:
        """Write to the status of this home."""
        self._home = home
        self._task: Task | None = None
        self._told_at = 0.0

    def begin(self, message: Message) -> None:
        """Record the kind of request, before anything in it is trusted."""
        kind = message.metadata.message_type.partition(".")[0][:20]
        try:
            train = unpack_body(message.content, TrainTask)
        except WeightsError:
            self._tell(Task(kind=kind, began=datetime.now(UTC)))
        else:
            self._tell(
                Task(
                    kind=kind,
                    stage=train.stage,
                    server_round=train.server_round,
                    plan_sha256=train.plan.sha256(),
                    began=datetime.now(UTC),
                )
            )

    def step(self) -> None:
        """Count a training step."""
        if self._task is not None:
            self._task = self._task.model_copy(update={"steps": self._task.steps + 1})
            if monotonic() - self._told_at > TELL_SECONDS:
                self._tell(self._task)

    def job(self, words: str) -> None:
        """Record the state of the job that computes; empty: there is none."""
        if self._task is not None and words != self._task.job:
            self._tell(self._task.model_copy(update={"job": words}))

    def end(self) -> None:
        """Record that the request has been handled."""
        self._tell(None)

    def _tell(self, task: Task | None) -> None:
        self._task, self._told_at = task, monotonic()
        update_status(self._home, task=task, worker_pid=os.getpid())


class Worker:
    """Handles one message after another from the node."""

    def __init__(self, home: SiteHome, handler: RequestHandler, progress: Progress) -> None:
        """Answer with the installed app, whatever bundle a message names."""
        self._home = home
        self._handler = handler
        self._progress = progress
        self._patience_seconds = PATIENCE_SECONDS

    def run(self) -> None:
        """Work until the node has not answered for too long."""
        heard_at, worked_at = monotonic(), float("-inf")
        while monotonic() - heard_at < self._patience_seconds:
            try:
                token = self._acquire()
                heard_at = monotonic()
                if token:
                    self._work(token)
                    if worked_at < 0:
                        gc.freeze()  # else each collection scans torch and Flower for 0.3 s
                    heard_at = worked_at = monotonic()
                    continue
            except (httpx.HTTPError, OSError, ValueError) as error:
                logger.warning("the node does not answer: %s", type(error).__name__)
            time.sleep(pause_seconds(monotonic() - worked_at, LONGEST_PAUSE))

    def _acquire(self) -> str:
        """Ask for a task; return its token, empty if there is none."""
        runtime = read_runtime(self._home)
        signed = SuperExecAuthHttpInterceptor(
            master_secret=runtime.secret, protected_methods=frozenset({ACQUIRE})
        )
        with _client(runtime.port, signed) as client:
            request = AcquireTaskRequest(supported_task_types=[TaskType.CLIENT_APP])
            return client.AcquireTask(request).token

    def _work(self, token: str) -> None:
        """Answer one message, sending heartbeats meanwhile, and leave no reference to it."""
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
        try:
            push_message(client, reply, context)
        except ObjectPushError:
            # Flower's client sends a part again when the answer to it was late; the node, which has
            # the part by then, does not take it. Now only what is missing is sent.
            logger.warning("the node did not take a part of the answer; it gets the answer again")
            push_message(client, reply, context)
        push_task_output(client, context, outcome, "")

    def _reply(self, message: Message, context: Context, bundle: str) -> Message:
        """Return the app's answer, or a refusal code without details."""
        if bundle != bundle_sha256():
            logger.error("refused a bundle that is not mamfed's: %s", bundle[:64])
            return self._refusal(RefusalCode.OTHER_VERSION, message)
        try:
            self._progress.begin(message)
            return self._handler.app(message, context)
        except Exception:
            logger.exception("this site could not answer a %s", message.metadata.message_type)
            return self._refusal(RefusalCode.FAILED, message)

    def _refusal(self, code: RefusalCode, message: Message) -> Message:
        self._handler.release_code(code)
        return Message(Error(code, REFUSAL_CODES[code]), reply_to=message)


def read_runtime(home: SiteHome) -> Runtime:
    """Read the node's current port and secret.

    Raises:
        OSError: The node has not started yet.
        ValueError: The file is damaged.
    """
    values = read_values(home.path / RUNTIME_FILE, DOCUMENT_BYTES)
    return Runtime(int(values["port"]), bytes.fromhex(values["secret"]))


def installed_handler(home: SiteHome, progress: Progress) -> RequestHandler:
    """Return the ClientApp of this installation, behind the site's gate.

    Raises:
        SetupError: ``site.yaml``, its devices or the welcome cannot be used.
    """
    import monai.losses
    import monai.metrics  # noqa: F401 - loaded now, so that no round waits for it

    from mamfed_client.cluster.job_executor import executor_of
    from mamfed_client.disclosure.gate import open_gate
    from mamfed_client.models.model_store import folder_for
    from mamfed_client.node.client_app import make_client_app
    from mamfed_client.site.data_account import note_data

    settings, gate = load_site_settings(home), open_gate(home)
    executor = executor_of(settings, progress.job)
    app = make_client_app(
        lambda _: load_site_settings(home).site(),
        **settings.hardware()._asdict(),
        on_step=progress.step,
        on_data=lambda data, plan: note_data(home, data, plan),
        gate=gate,
        state_folder=home.state,
        keep_seconds=settings.checkpoint_seconds,
        norms=home.state / "norms",
        optimizer=home.state / "optimizer",
        models=lambda _, task: folder_for(home.models, task.run, task.plan),
        executor=executor,
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
    # Flower raises SIGINT when a task's lease has expired and its result is no longer needed.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # A task is handed out while the arrays of its message are still arriving.
    set_worker_arrival(ARRIVAL)
    start_log()
    home = SiteHome(Path(sys.argv[1]).resolve())
    try:
        check_flower_parts()
        progress = Progress(home)
        Worker(home, installed_handler(home, progress), progress).run()
    except MamfedError as error:
        logger.error("%s", error)
        update_status(home, error=str(error))
        sys.exit(error.exit_code)
    except OSError as error:
        logger.error("%s", os_error_line(error))
        update_status(home, error=os_error_line(error))
        sys.exit(STARTS_OVER)
    except KeyboardInterrupt:
        logger.warning("a task's lease expired")
    except ObjectPushError:
        logger.error("the node does not take the answer, so the worker starts over")
    sys.exit(STARTS_OVER)


if __name__ == "__main__":
    main()
