"""``mamfed-simulate compare``."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import typer

from mamfed_common.runtime import terminal
from mamfed_common.runtime.terminal import Format
from mamfed_simulations.cli.options import Output, print_json

Runs = Annotated[list[Path], typer.Argument(metavar="RUN...", help="Two or more run folders.")]
Out = Annotated[
    Path | None,
    typer.Option(help="Output folder for report.html, results.json, results.md and curves.png."),
]


def compare(
    runs: Runs,
    out: Out = None,
    output: Output = Format.TEXT,
) -> None:
    """Compare finished runs: results by site, curves, and differences between their plans.

    Warns where figures are not comparable because the runs tested different patients. Trains
    nothing.

    Example: mamfed-simulate compare runs/first runs/second --out runs/both
    """
    from mamfed_common.runtime.files import private_directory
    from mamfed_common.runtime.lock import LOCK, exclusive_lock
    from mamfed_common.runtime.output_checks import check_folder, check_outside
    from mamfed_simulations.comparison.side_by_side import (
        account_of,
        is_ours,
        read_runs,
        results_of,
    )
    from mamfed_simulations.reporting.interruption import command_line
    from mamfed_simulations.reporting.pages import for_terminal

    if out is not None:
        check_outside(out, runs)
        check_folder(out, is_ours, "runs side by side")
    loaded = read_runs(runs)
    if len(loaded) < 2:
        raise typer.BadParameter("RUN: expected two or more run folders")
    account = account_of(loaded, command_line())
    results = results_of(loaded, account.verdicts)
    console = terminal.console()
    with nullcontext() if out is None else exclusive_lock(private_directory(out) / LOCK, "compare"):
        for table in account.tables:
            console.print(for_terminal(table))
        terminal.print_lines([*account.verdicts, *account.all_notes])
        if out is not None:
            replaced = "; the earlier one was replaced" * (out / "results.json").exists()
            account.write(out, results)
            console.print(f"report: {out / 'report.html'}{replaced}")
    print_json(output, results)
