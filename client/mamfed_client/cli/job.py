"""The command ``mamfed-client job``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Folder = Annotated[Path, typer.Argument(help="Folder of the job, made by the site's node.")]


def job(folder: Folder) -> None:
    """Compute one job of a site, on the machine with the GPUs; the site's executor runs this.

    Needed only in executor.command or executor.program of site.yaml. The job reads the prepared
    images, writes its answer to its folder, and needs neither the site's home nor its keys.
    """
    import logging
    import os

    from mamfed_client.cluster.job import run_job

    os.umask(0o077)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    run_job(folder)


def register(app: typer.Typer) -> None:
    """Add the command to ``mamfed-client``."""
    app.command()(job)
