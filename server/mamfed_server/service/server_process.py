"""The coordinator's server process: SuperLink, listener and round loop, for one run.

``python -m mamfed_server.service.server_process HOME RUN`` is started, watched and started again by
``mamfed-server start``; it goes on where the run folder says. Everything that it needs to know is
in the home and in the run folder.
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

import torch
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_ssh_public_key,
)

from mamfed_common.errors import LinkError, MamfedError, OutputError
from mamfed_common.model.state_dict import State
from mamfed_common.plan import TrainingPlan, read_plan
from mamfed_common.plan.norm_groups import expected_state
from mamfed_common.runtime import terminal
from mamfed_common.runtime.files import os_error_line
from mamfed_common.runtime.process_supervisor import hold_lifeline
from mamfed_common.security.signing import sign_plan

terminal.set_environment()

from mamfed_server.admission.certificate_authority import load_plan_key  # noqa: E402
from mamfed_server.admission.registry import Registry, SiteEntry  # noqa: E402
from mamfed_server.fleet.duplicate_sites import DuplicateSites, warning  # noqa: E402
from mamfed_server.fleet.listener import TlsListener  # noqa: E402
from mamfed_server.fleet.request_guard import Limits, RequestGuard  # noqa: E402
from mamfed_server.fleet.superlink import LinkTransport, SuperLink  # noqa: E402
from mamfed_server.run.closing_message import ClosingMessage  # noqa: E402
from mamfed_server.run.job import Job  # noqa: E402
from mamfed_server.run.run import run_job  # noqa: E402 - Flower must be told first
from mamfed_server.run.state import RunState  # noqa: E402
from mamfed_server.run_folder.event_log import EventLog  # noqa: E402
from mamfed_server.run_folder.folder import PLAN  # noqa: E402
from mamfed_server.service.status_file import StatusFile  # noqa: E402
from mamfed_server.settings import ServerHome, ServerSettings, load_settings  # noqa: E402

logger = logging.getLogger(__name__)

BOARD_SECONDS = 5.0
ANSWER_OVERHEAD = 64 * 2**20
"""Bytes of an answer beyond twice the weights: the body, and Flower's headers of each part."""


def serve(home: ServerHome, run: str, stopping: threading.Event) -> None:
    """Serve one run until it ends.

    Args:
        home: The coordinator's home.
        run: Name of the run, whose folder holds its plan.
        stopping: Set it to stop; the run can go on later.

    Raises:
        MamfedError: The run failed, was stopped, or could not be served.
    """
    settings, registry = load_settings(home), Registry(home)
    plan = read_plan(home.runs / run / PLAN)
    limits = _limits(settings, plan)
    link = SuperLink()
    board = StatusFile(home.path, run=run, plan_sha256=plan.sha256(), flower_run=link.run_id)
    log = EventLog(board.event)  # a second writer of the run's: each line is one write
    log.open(home.runs / run)
    twins = DuplicateSites(
        lambda site: log.write("two processes", site=site, warning=warning(site))
    )

    def contact(site: str, instance: bytes, address: str) -> None:
        board.contact(site)
        twins.seen(site, instance, address)

    news = ClosingMessage(run)
    front = TlsListener(
        RequestGuard(link, registry, limits, contact, news),
        settings.bind,
        settings.port,
        ca=home.ca,
        certificate=home.server_certificate,
        key=home.server_key,
        limits=limits,
    )
    board.set(state="listening", address=f"{settings.bind}:{front.start()}")
    logger.info("listening on %s:%s", settings.bind, settings.port)
    ticker = threading.Thread(target=_tick, args=(board, front, twins, stopping), daemon=True)
    ticker.start()
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
        on_event=board.event,
    )
    try:
        summary = run_job(job, LinkTransport(link, limits.answer_bytes))
        board.set(state=summary["status"])
        news.end(RunState(summary["status"]))
    except MamfedError as error:
        how = RunState.STOPPED if error.exit_code == 0 else RunState.FAILED
        board.set(state=how, reason=str(error))
        news.end(how)
        raise
    finally:
        link.close()
        front.stop()


def main() -> None:
    """Run ``python -m mamfed_server.service.server_process HOME RUN``."""
    hold_lifeline()
    gc.freeze()  # the guard collects often: let it not look at what torch and Flower have loaded
    # Checks and sums over a hundred arrays are short; a second thread costs more than it gives, and
    # beside another process, such as a site on the same machine, twenty times as much.
    torch.set_num_threads(1)
    os.umask(0o077)
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr
    )
    flower = logging.getLogger("flwr")
    flower.setLevel(logging.INFO)  # else four lines a second for each site that waits
    flower.handlers.clear()
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    try:
        serve(ServerHome(Path(sys.argv[1])), sys.argv[2], stopping)
    except MamfedError as error:
        logger.error("%s", " ".join(str(error).split()))
        sys.exit(error.exit_code)
    except OSError as error:  # a full disk: it is tried again, room may come
        logger.error("%s", os_error_line(error))
        sys.exit(OutputError.exit_code)


def _nodes(link: SuperLink, entries: Mapping[str, SiteEntry]) -> dict[str, int]:
    """Return the node of each site that may take part, registering those that are new."""
    return {
        name: link.node_of(_pem(entry.node_public_key))
        for name, entry in sorted(entries.items())
        if entry.status == "active"
    }


@cache  # of each site, some ten times a second while a round waits to begin
def _pem(node_public_key: str) -> bytes:
    key = load_ssh_public_key(node_public_key.encode())
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def _limits(settings: ServerSettings, plan: TrainingPlan) -> Limits:
    return Limits(
        body_bytes=settings.max_body_mib * 2**20,
        body_seconds=settings.body_seconds,
        connections_per_address=settings.connections_per_address,
        answer_bytes=2 * _size(expected_state(plan)) + ANSWER_OVERHEAD,
    )


def _size(state: State) -> int:
    return sum(tensor.nbytes for tensor in state.values())


def _tick(
    board: StatusFile, front: TlsListener, twins: DuplicateSites, stopping: threading.Event
) -> None:
    """Keep the status fresh, and take a renewed server certificate."""
    while not stopping.wait(BOARD_SECONDS):
        board.set(twins=twins.now())
        try:
            if front.reload():
                logger.info("took the new server certificate")
        except (LinkError, OSError) as error:
            logger.error("%s", error)


if __name__ == "__main__":
    main()
