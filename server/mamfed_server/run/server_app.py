"""A run of the coordinator as a Flower ServerApp, for Flower's own engines."""

from __future__ import annotations

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from mamfed_server.run.job import Job
from mamfed_server.run.run import run_job
from mamfed_server.run.transport import GridTransport


def make_server_app(job: Job) -> ServerApp:
    """Return a ServerApp that runs a job over Flower's Grid (Flower 1.41-1.42).

    Its main function raises what :func:`run_job` raises.
    """
    app = ServerApp()

    @app.main()
    def main(grid: Grid, context: Context) -> None:
        run_job(job, GridTransport(grid))

    return app
