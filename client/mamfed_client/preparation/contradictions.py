"""Compare what the table says about an image with what the image's own file says.

The table takes precedence because a person has looked at it; each contradiction becomes a doubt. A
row whose side and view both differ from its file describes another image, and so does its label:
the row is rejected until somebody has reviewed it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from mamfed_client.imaging.doubts import Doubt, Doubtful, Doubts
from mamfed_client.imaging.rejections import FileRejected, Reason
from mamfed_client.preparation.row_result import RowResult

TABLE = "table"

_PLAIN_VIEW = re.compile(r"(?:(?:LEFT|RIGHT|L|R)[ _-]?)?(CC|MLO)")


def contradictions(result: RowResult) -> Doubts:
    """List the contradictions between table and file in side and view."""
    return tuple(_contradictions(result))


def rejection_for(doubts: Doubts) -> FileRejected | None:
    """Return the rejection of a row that contradicts its file in both side and view."""
    if not {Doubt.SIDE_DISAGREES, Doubt.VIEW_DISAGREES} <= {doubt.doubt for doubt in doubts}:
        return None
    details = " and ".join(doubt.detail for doubt in doubts)
    return FileRejected(Reason.OTHER_IMAGE, f"{details}; correct the row, or set reviewed: yes")


def _contradictions(result: RowResult) -> Iterator[Doubtful]:
    side, file_side = result.laterality, result.file_laterality
    if result.laterality_source == TABLE and file_side and side != file_side:
        yield Doubtful(Doubt.SIDE_DISAGREES, f"{side} in the table, {file_side} in the file")
    view, file_view = _plain_view(result.view), _plain_view(result.file_view)
    if result.view_source == TABLE and view and file_view and view != file_view:
        yield Doubtful(Doubt.VIEW_DISAGREES, f"{view} in the table, {file_view} in the file")


def _plain_view(view: str | None) -> str:
    """Return CC or MLO without a leading side; empty for any other view."""
    match = _PLAIN_VIEW.fullmatch(view or "")
    return match[1] if match else ""
