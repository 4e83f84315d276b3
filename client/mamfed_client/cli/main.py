"""``mamfed-client``: the command line of a hospital."""

from __future__ import annotations

from typing import Annotated

import typer

from mamfed_client.cli import (
    audit,
    dashboard,
    data,
    enrol,
    evaluate,
    job,
    models,
    node,
    notify,
    pacs,
    plan,
    predict,
)
from mamfed_common.runtime import terminal

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Take part in a mamfed federation: check and prepare your mammograms, join, decide what "
    "may leave, train when asked, and see what left.",
)
app.add_typer(data.app, name="data")
enrol.register(app)
node.register(app)
dashboard.register(app)
app.add_typer(plan.app, name="plan")
app.add_typer(audit.app, name="audit")
app.add_typer(models.app, name="models")
app.add_typer(notify.app, name="notify")
app.add_typer(pacs.app, name="pacs")
predict.register(app)
evaluate.register(app)
job.register(app)


@app.callback()
def common(version: Annotated[bool, terminal.VERSION_OPTION] = False) -> None:
    """Accept the options that precede a subcommand."""


def main() -> None:
    """Run ``mamfed-client``."""
    terminal.run(app, "client")
