"""Options that several commands of ``mamfed-server`` share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mamfed_common.runtime.completion import file_name, folder_name, names_in
from mamfed_common.runtime.terminal import Format

Home = Annotated[
    Path,
    typer.Option(
        "--home", envvar="MAMFED_SERVER_HOME", help="The coordinator's home, created by init."
    ),
]
Output = Annotated[
    Format, typer.Option("--format", help="Output for people (text) or scripts (json).")
]
RUNS = names_in("runs/*/plan.yaml", folder_name)
"""Completes the names of runs."""
SITES = names_in("sites/[!.]*.json", file_name)
"""Completes the names of sites."""
