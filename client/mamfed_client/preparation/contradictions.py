"""What the table says of an image, held against what the image's own file says.

The table wins, as it is what somebody has looked at; each contradiction is a doubt. A row that
names another side and another view than its file is about another image, and so is its label: it
is refused until somebody has reviewed it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from mamfed_client.imaging.doubts import Doubt, Doubtful, Doubts
from mamfed_client.imaging.rejections import FileRejected, Reason
from mamfed_client.preparation.row_result import RowResult

TABLE = "table"

_PLAIN_VIEW = re.compile(r"(?:(?:LEFT|RIGHT|L|R)[ _-]?)?(CC|MLO)")


def contradictions(outcome: RowResult) -> Doubts:
    """List where the table's side and view are others than the file's own."""
    return tuple(_contradictions(outcome))


def refusal_of(doubts: Doubts) -> FileRejected | None:
    """Refuse a row that contradicts its file in both."""
    if not {Doubt.SIDE_DISAGREES, Doubt.VIEW_DISAGREES} <= {doubt.doubt for doubt in doubts}:
        return None
    said = " and ".join(doubt.detail for doubt in doubts)
    return FileRejected(Reason.OTHER_IMAGE, f"{said}; mend the row, or say reviewed: yes")


def _contradictions(outcome: RowResult) -> Iterator[Doubtful]:
    side, theirs = outcome.laterality, outcome.file_laterality
    if outcome.laterality_source == TABLE and theirs and side != theirs:
        yield Doubtful(Doubt.SIDE_DISAGREES, f"{side} by the table, {theirs} by the file")
    view, written = _plain_view(outcome.view), _plain_view(outcome.file_view)
    if outcome.view_source == TABLE and view and written and view != written:
        yield Doubtful(Doubt.VIEW_DISAGREES, f"{view} by the table, {written} by the file")


def _plain_view(view: str | None) -> str:
    """Return CC or MLO, perhaps behind a side; empty for a view that has many names."""
    found = _PLAIN_VIEW.fullmatch(view or "")
    return found[1] if found else ""
