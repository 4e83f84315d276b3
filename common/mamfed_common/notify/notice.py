"""What a person is told: one notice, told once for as long as it holds."""

from __future__ import annotations

from typing import Any, NamedTuple

from mamfed_common import __version__

LONGEST = 1000
"""Most characters of a notice's text: a page, not a log."""


class Notice(NamedTuple):
    """Something that a person should know. It names no patient and holds no secret.

    Attributes:
        event: Its kind, such as ``site gone``.
        key: What makes it another notice than the last one: it is told once for each key.
        subject: One line.
        text: What was found and what to do, one or more lines.
    """

    event: str
    key: str
    subject: str
    text: str

    def document(self, source: str) -> dict[str, Any]:
        """Return the notice as JSON values; chat services show the value of ``text``."""
        return {
            "event": self.event,
            "source": source,
            "subject": one_line(self.subject),
            "text": f"{source}: {one_line(self.subject)}\n{self.text[:LONGEST]}",
            "sender": f"mamfed {__version__}",
        }


def one_line(text: str) -> str:
    """Return a text as one printable line of at most 200 characters."""
    line = " ".join(text.split())
    return "".join(c if c.isprintable() else "?" for c in line)[:200]


def trial(source: str) -> Notice:
    """Return the notice that ``notify test`` sends."""
    return Notice(
        "test", "test", "this is a test", f"{source} can reach you here. Nothing has happened."
    )
