"""``notify test``: send one notice by each channel, and say what happened."""

from __future__ import annotations

import json
from pathlib import Path

import typer

from mamfed_common.errors import LinkError, MamfedError, SetupError
from mamfed_common.notify.channels import send
from mamfed_common.notify.notice import trial
from mamfed_common.notify.settings import Notify
from mamfed_common.runtime.terminal import Format


def try_all(notify: Notify, source: str, home: Path, file: str, output: Format) -> None:
    """Send a test notice by each channel and print one line for each.

    Args:
        notify: The settings.
        source: Who sends it.
        home: Folder at which relative paths of the settings start.
        file: Name of the settings file, for the message.
        output: How to print what happened.

    Raises:
        SetupError: No channel is set.
        LinkError: A channel did not deliver.
    """
    if not notify.is_on:
        raise SetupError(
            f"{home / file}: notify sets no channel, so nobody would be told; set notify.webhook, "
            "notify.email or notify.command"
        )
    rows = [_try(notify, channel, source, home) for channel in notify.channels()]
    if output is Format.JSON:
        typer.echo(json.dumps(rows, indent=2))
    else:
        for row in rows:
            typer.echo(f"{row['channel']}: {'sent' if row['sent'] else 'failed'}, {row['words']}")
    if failed := [str(row["channel"]) for row in rows if not row["sent"]]:
        raise LinkError(f"not delivered by {', '.join(failed)}; the reason is above")


def _try(notify: Notify, channel: str, source: str, home: Path) -> dict[str, str | bool]:
    try:
        words = send(notify, channel, trial(source), source, home)
    except MamfedError as error:
        return {"channel": channel, "sent": False, "words": str(error)}
    return {"channel": channel, "sent": True, "words": words}
