"""Run one federation on one machine: the real round loop and ClientApp, in process or on Ray.

The in-process engine answers each message when its reply is pulled, so only one site's work is in
memory at a time. Ray is Flower's own simulation engine. Both give identical results.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from flwr.app import Context
from flwr.clientapp import ClientApp

from mamfed_client.node.client_app import ModelsOf, make_client_app
from mamfed_client.preparation.site_data import Site
from mamfed_common.errors import SetupError
from mamfed_common.protocol.tasks import EvaluateTask
from mamfed_common.runtime.optional_packages import check_installed
from mamfed_common.runtime.places import temporary_folder
from mamfed_common.training.inference import OnStep
from mamfed_server.run.run import Job, run_job
from mamfed_server.run.server_app import make_server_app
from mamfed_simulations.federation.engine import Engine
from mamfed_simulations.federation.in_process import InProcessTransport

LONGEST_TMPDIR = 36
"""A socket path may have 107 characters (``sun_path``, Linux), of which Ray 2 uses up to 70."""


def run_federation(
    sites: Sequence[Site],
    job: Job,
    *,
    engine: Engine = Engine.PROCESS,
    device: str = "auto",
    threads: int,
    activation_checkpointing: bool = False,
    on_step: OnStep | None = None,
) -> None:
    """Run one job over simulated sites and leave the results in the job's folder.

    Args:
        sites: The sites, in any order.
        job: The server's job.
        engine: Where sites run. On Ray, sites run in other processes and do not report steps.
        device: Device on which sites train.
        threads: CPU threads per site; the same number gives identical results.
        activation_checkpointing: Whether to use less memory and more time in training.
        on_step: Called after each training step, with the in-process engine only.

    Raises:
        RunError: The run failed.
        MamfedError: The engine is not installed.
    """
    ordered = tuple(sorted(sites, key=lambda site: site.name))

    def site_of(context: Context) -> Site:
        return ordered[int(context.node_config["partition-id"])]

    client_app = make_client_app(
        site_of,
        device=device,
        threads=threads,
        activation_checkpointing=activation_checkpointing,
        on_step=None if engine is Engine.RAY else on_step,
        norms=job.folder.absolute() / "norms",
        optimizer=job.folder.absolute() / "optimizer",
        models=models_of(job.folder.absolute()) if job.plan.makes_personal_models else None,
    )
    if engine is Engine.RAY:
        run_on_ray(client_app, job, threads)
        return
    run_job(job, InProcessTransport(client_app, len(ordered)))


def models_of(folder: Path) -> ModelsOf:
    """Return a function that maps a site to its model folder, ``models/SITE/`` in ``folder``."""

    def path_of(site: Site, task: EvaluateTask) -> Path:
        return folder / "models" / site.name

    return path_of


def check_ray() -> Path:
    """Return a writable temporary folder whose path is short enough for Ray's sockets.

    Raises:
        MamfedError: Ray is not installed.
        SetupError: There is no such folder.
    """
    check_installed("ray", "ray")
    preferred = Path(os.environ.get("RAY_TMPDIR") or temporary_folder())
    for folder in (preferred, Path("/tmp")):
        if len(str(folder)) <= LONGEST_TMPDIR and os.access(folder, os.W_OK | os.X_OK):
            return folder
    if len(str(preferred)) <= LONGEST_TMPDIR:
        raise SetupError(f"{preferred}: not a writable folder; set RAY_TMPDIR to one that is")
    raise SetupError(
        f"TMPDIR has {len(str(preferred))} characters, Ray's sockets leave room for "
        f"{LONGEST_TMPDIR}; set RAY_TMPDIR to a shorter folder"
    )


def run_on_ray(client_app: ClientApp, job: Job, threads: int) -> None:
    """Run a job over ``job.num_nodes`` sites on Ray, with ``threads`` CPU threads per site.

    Raises:
        RunError: The run failed.
        MamfedError: Ray is not installed.
    """
    os.environ["RAY_TMPDIR"] = str(check_ray())
    from flwr.simulation import run_simulation

    cores = os.cpu_count() or 1
    run_simulation(
        make_server_app(job),
        client_app,
        num_supernodes=job.num_nodes,
        backend_config={
            "client_resources": {"num_cpus": min(threads, cores), "num_gpus": 0.0},
            "init_args": {"num_cpus": cores, "include_dashboard": False},
        },
    )
