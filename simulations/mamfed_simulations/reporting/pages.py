"""One account of an experiment in three forms: terminal tables, Markdown and an HTML page."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import rich.table

from mamfed_common import __version__
from mamfed_common.metrics.bootstrap import Interval
from mamfed_common.metrics.small_numbers import MARK, MARK_MEANS, few_patients
from mamfed_common.plan import TrainingPlan
from mamfed_common.runtime.files import write_atomic


@dataclass(frozen=True)
class Table:
    """A table of strings; the first column names the rows.

    Attributes:
        title: Title above the table.
        heads: Column names.
        rows: One string per column.
    """

    title: str
    heads: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Picture:
    """A picture on the page.

    Attributes:
        file: Name of its PNG file.
        title: Heading above it.
        alt: Alternative text.
        caption: Caption below it.
        png: PNG bytes.
    """

    file: str
    title: str
    alt: str
    caption: str
    png: bytes


@dataclass(frozen=True)
class Account:
    """The content of an experiment's report.

    Attributes:
        title: Heading.
        command: The command line.
        plans: The plan under an empty name, or the plan of each run by name.
        tables: Result tables.
        notes: Remarks on the results, with counts.
        pictures: Figures.
        verdicts: Conclusions in words, shown before the tables.
    """

    title: str
    command: str
    plans: Mapping[str, TrainingPlan]
    tables: Sequence[Table]
    notes: Sequence[str]
    pictures: Sequence[Picture]
    verdicts: Sequence[str] = ()

    @property
    def all_notes(self) -> list[str]:
        """The notes, preceded by the legend of the interval mark if any cell has one."""
        cells = (cell for table in self.tables for row in table.rows for cell in row)
        marked = any(cell.endswith(f"]{MARK}") or f"]{MARK} " in cell for cell in cells)
        return [f"{MARK_MEANS}."] * marked + list(self.notes)

    def write(self, folder: Path, results: Mapping[str, Any]) -> None:
        """Write ``results.json``, ``results.md``, ``report.html`` and the pictures."""
        for picture in self.pictures:
            write_atomic(folder / picture.file, picture.png)
        write_atomic(folder / "results.json", json.dumps(results, indent=2))
        write_atomic(folder / "results.md", self.markdown())
        write_atomic(folder / "report.html", self.html())

    def markdown(self) -> str:
        """Return title, command, verdicts, tables and notes as Markdown."""
        parts = [f"# {self.title}", f"`{self.command}`", _listed(self.verdicts)]
        parts += [*map(_markdown, self.tables), _listed(self.all_notes)]
        return "\n\n".join(part for part in parts if part) + "\n"

    def html(self) -> str:
        """Return a self-contained HTML page."""
        environment = jinja2.Environment(
            loader=jinja2.ChoiceLoader(
                [
                    jinja2.PackageLoader("mamfed_simulations.reporting"),
                    jinja2.PackageLoader("mamfed_server.report"),
                ]
            ),
            autoescape=True,
            trim_blocks=True,
            lstrip_blocks=True,
            undefined=jinja2.StrictUndefined,
        )
        environment.filters["base64"] = lambda png: base64.b64encode(png).decode()
        page = environment.get_template("account.html.j2")
        return page.render(account=self, version=__version__)


def for_terminal(table: Table) -> rich.table.Table:
    """Return the table in Rich's form, for a terminal."""
    rich_table = rich.table.Table(title=table.title)
    for index, head in enumerate(table.heads):
        rich_table.add_column(head, justify="right" if index else "left")
    for row in table.rows:
        rich_table.add_row(*row)
    return rich_table


def interval_text(interval: Interval, *, signed: bool = False) -> str:
    """Format as ``0.512 [0.430, 0.590]``: no bounds for one patient, a mark for few patients."""
    form = "+.3f" if signed else ".3f"
    if interval.low is None or interval.high is None:
        return f"{interval.value:{form}} [n/a]"
    mark = MARK * few_patients(interval.patients)
    return f"{interval.value:{form}} [{interval.low:{form}}, {interval.high:{form}}]{mark}"


def interval_values(interval: Interval) -> dict[str, Any]:
    """Return an interval for JSON, rounded to four decimals."""
    figures = {k: getattr(interval, k) for k in ("value", "low", "high")}
    rounded = {k: None if v is None else round(v, 4) for k, v in figures.items()}
    counts = {"patients": interval.patients, "images": interval.images}
    return {**rounded, **counts, "few_patients": few_patients(interval.patients)}


def _listed(lines: Sequence[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _markdown(table: Table) -> str:
    lines = [table.heads, ["---"] * len(table.heads), *table.rows]
    return f"**{table.title}**\n\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines)
