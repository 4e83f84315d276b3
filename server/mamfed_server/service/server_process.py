"""The coordinator's server process: SuperLink, listener and round loop, for one run.

``mamfed-server start`` runs ``python -m mamfed_server.service.server_process HOME RUN``, watches it
and restarts it after a crash. The process reads everything it needs from the home and the run
folder, and resumes the run where the folder says.
"""

from __future__ import annotations

import gc
import logging
import os
import signal
import sys
import threading
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_ssh_public_key,
)

from mamfed_common.errors import LinkError, MamfedError, OutputError
from mamfed_common.plan import TrainingPlan, read_plan
from mamfed_common.plan.weights_size import weights_bytes
from mamfed_common.runtime import terminal
from mamfed_common.runtime.files import os_error_line
from mamfed_common.runtime.lifeline import hold_lifeline
from mamfed_common.security.signing import sign_plan

terminal.set_environment()

from mamfed_server.admission.certificate_authority import load_plan_key  # noqa: E402
from mamfed_server.admission.registry import Registry, SiteEntry  # noqa: E402
from mamfed_server.fleet.countersigning import rewritten  # noqa: E402
from mamfed_server.fleet.duplicate_sites import DuplicateSites, warning  # noqa: E402
from mamfed_server.fleet.link_transport import LinkTransport  # noqa: E402
from mamfed_server.fleet.listener import TlsListener  # noqa: E402
from mamfed_server.fleet.request_guard import Limits  # noqa: E402
from mamfed_server.fleet.superlink import SuperLink  # noqa: E402
from mamfed_server.run.closing_message import ClosingMessage  # noqa: E402
from mamfed_server.run.job import Job  # noqa: E402
from mamfed_server.run.run import run_job  # noqa: E402 - set_environment must come before Flower
from mamfed_server.run.state import RunState  # noqa: E402
from mamfed_server.run_folder.event_log import EventLog  # noqa: E402
from mamfed_server.run_folder.folder import PLAN  # noqa: E402
from mamfed_server.run_folder.room import RETRY_SECONDS  # noqa: E402
from mamfed_server.service.door import build_door  # noqa: E402
from mamfed_server.service.server_log import log_to_stderr  # noqa: E402
from mamfed_server.service.status_file import StatusFile  # noqa: E402
from mamfed_server.settings import ServerHome, ServerSettings, load_settings  # noqa: E402

logger = logging.getLogger(__name__)

REFRESH_SECONDS = 5.0
ANSWER_OVERHEAD = 64 * 2**20
"""Bytes allowed in an answer beyond twice the weights, for its body and Flower's part headers."""


def serve(home: ServerHome, run: str, stopping: threading.Event) -> None:
    """Serve one run until it ends.

    Args:
        home: The coordinator's home.
        run: Name of the run; its folder holds the plan.
        stopping: Set it to stop the run, which can be resumed later.

    Raises:
        MamfedError: The run failed, was stopped, or could not be served.
    """
    settings, registry = load_settings(home), Registry(home)
    plan = read_plan(home.runs / run / PLAN)
    status = StatusFile(home.path, run=run, plan_sha256=plan.sha256())
    log = EventLog(status.event)  # the run writes to the same file: each line is one write
    log.open(home.runs / run)
    duplicates = DuplicateSites(
        lambda site: log.write("two processes", site=site, warning=warning(site))
    )

    def on_contact(site: str, instance: bytes, address: str) -> None:
        status.contact(site)
        duplicates.seen(site, instance, address)

    closing = ClosingMessage(run)
    door = build_door(
        home,
        settings,
        registry,
        _limits(settings, plan),
        on_contact=on_contact,
        on_rewritten=lambda site: log.write(
            "audit log rewritten", site=site, warning=rewritten(site)
        ),
        closing=closing,
    )
    link, listener = door
    status.set(flower_run=link.run_id)
    status.set(state="listening", address=f"{settings.bind}:{listener.start()}")
    logger.info("listening on %s:%s", settings.bind, settings.port)
    threading.Thread(
        target=_refresh, args=(status, listener, duplicates, stopping), daemon=True
    ).start()
    job = Job(
        plan=plan,
        folder=home.runs / run,
        names=lambda: _nodes(link, registry.entries()),
        min_sites=plan.federation.min_sites,
        signature=sign_plan(load_plan_key(home), plan),
        resume=True,
        run=run,
        flower_run=link.run_id,
        stopping=stopping.is_set,
        before_weights=_import_torch,
        on_event=status.event,
        patience_seconds=settings.patience_hours * 3600,
        room_seconds=RETRY_SECONDS,
    )
    try:
        _run(job, LinkTransport(link), status, closing)
    finally:
        door.close()


def _run(job: Job, transport: LinkTransport, status: StatusFile, closing: ClosingMessage) -> None:
    """Run a job; record in the status file and tell the sites how it ended."""
    try:
        summary = run_job(job, transport)
        status.set(state=summary["status"])
        closing.end(RunState(summary["status"]))
    except MamfedError as error:
        state = RunState.STOPPED if error.exit_code == 0 else RunState.FAILED
        status.set(state=state, reason=str(error))
        closing.end(state)
        raise


def main() -> None:
    """Run ``python -m mamfed_server.service.server_process HOME RUN``."""
    hold_lifeline()
    gc.freeze()  # the guard collects often; skip Flower's objects
    os.umask(0o077)
    log_to_stderr()
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    try:
        serve(ServerHome(Path(sys.argv[1])), sys.argv[2], stopping)
    except MamfedError as error:
        logger.error("%s", " ".join(str(error).split()))
        sys.exit(error.exit_code)
    except OSError as error:  # such as a full disk at the start: the supervisor retries
        logger.error("%s", os_error_line(error))
        sys.exit(OutputError.exit_code)


def _nodes(link: SuperLink, entries: Mapping[str, SiteEntry]) -> dict[str, int]:
    """Return the Flower node of each active site; new sites are registered."""
    return {
        name: link.node_of(_pem(entry.node_public_key))
        for name, entry in sorted(entries.items())
        if entry.status == "active"
    }


@cache  # called about ten times a second per site while a round waits to begin
def _pem(node_public_key: str) -> bytes:
    key = load_ssh_public_key(node_public_key.encode())
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def _limits(settings: ServerSettings, plan: TrainingPlan) -> Limits:
    return Limits(
        body_bytes=settings.max_body_mib * 2**20,
        body_seconds=settings.body_seconds,
        connections_per_address=settings.connections_per_address,
        answer_bytes=2 * weights_bytes(plan) + ANSWER_OVERHEAD,
    )


def _import_torch() -> None:
    """Import torch, which a coordinator that waits for its sites does without."""
    import torch

    # Checks and sums of a hundred arrays are short: a second thread costs more than it saves, and
    # twenty times as much next to another process, such as a site on the same machine.
    torch.set_num_threads(1)
    gc.freeze()  # those of torch, too


def _refresh(
    status: StatusFile,
    listener: TlsListener,
    duplicates: DuplicateSites,
    stopping: threading.Event,
) -> None:
    """Refresh the status file regularly, and load a renewed server certificate."""
    while not stopping.wait(REFRESH_SECONDS):
        status.set(twins=duplicates.now())
        try:
            if listener.reload():
                logger.info("loaded the new server certificate")
        except (LinkError, OSError) as error:
            logger.error("%s", error)


if __name__ == "__main__":
    main()
