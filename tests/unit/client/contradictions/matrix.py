"""What a case of the matrix is, and the table of docs/data.md that is made of all cases.

A module of cases offers ``CASES``; add it to ``SECTIONS`` and run

    python -m tests.unit.client.contradictions.matrix

which writes the table. ``test_matrix.py`` runs every case and holds the table against them.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from mamfed_client.imaging.rejections import Reason

SECTIONS = ("dicom_codecs", "dicom_tones", "pictures")
"""Modules of this package, in the table's order."""
PAGE = Path(__file__).parents[4] / "docs" / "data.md"
BEGIN, END = "<!-- contradictions: begin -->\n", "<!-- contradictions: end -->\n"

RIGHT = "right"


@dataclass(frozen=True)
class Case:
    """One file that contradicts itself, or none for comparison.

    Attributes:
        reader: What reads it, as the table names it.
        what: What it says, and what is true; the same for all readers that can have it.
        outcome: ``RIGHT``, or the reason for which it is refused.
        run: Reads it; returns the correlation with the truth, or raises the refusal.
    """

    reader: str
    what: str
    outcome: str | Reason
    run: Callable[[], float]

    @property
    def name(self) -> str:
        return f"{self.reader}: {self.what}"


def cases() -> list[Case]:
    modules = [importlib.import_module(f"{__package__}.{name}") for name in SECTIONS]
    return [case for module in modules for case in module.CASES]


def table(all_cases: Sequence[Case]) -> str:
    """One row a contradiction and outcome, with the readers that have it."""
    rows: dict[tuple[str, str], list[str]] = {}
    for case in all_cases:
        rows.setdefault((case.what, str(case.outcome)), []).append(case.reader)
    lines = ["| the file | readers | outcome |", "|---|---|---|"]
    for (what, outcome), readers in rows.items():
        said = outcome if outcome == RIGHT else f"refused: `{outcome}`"
        lines.append(f"| {what} | {', '.join(dict.fromkeys(readers))} | {said} |")
    return "\n".join([*lines, ""])


def page_with(text: str, new: str) -> str:
    before, _, rest = text.partition(BEGIN)
    return before + BEGIN + new + END + rest.partition(END)[2]


if __name__ == "__main__":
    PAGE.write_text(page_with(PAGE.read_text(), table(cases())))
