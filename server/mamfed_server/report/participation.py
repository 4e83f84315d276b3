"""Tables of sites by rounds that show who took part and who did not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum
from typing import NamedTuple

from mamfed_common.plan import Stage
from mamfed_server.run_folder.attendance import Attendance
from mamfed_server.run_folder.event_log import Event
from mamfed_server.run_folder.round_record import RoundRecord

HEAD_EVERY = 5
"""Interval of the rounds whose numbers head the table."""


class RoundMark(Enum):
    """A site's outcome in a round: its sign, its CSS class and its description."""

    ACCEPTED = ("●", "accepted", "update accepted")
    REFUSED = ("x", "refused", "answered, update refused")
    SILENT = ("○", "silent", "asked, no answer in time")
    NOT_ASKED = ("-", "absent", "not connected, so not asked")

    @property
    def sign(self) -> str:
        """The sign in the table."""
        return self.value[0]

    @property
    def style(self) -> str:
        """The CSS class."""
        return self.value[1]

    @property
    def words(self) -> str:
        """The description for the legend."""
        return self.value[2]


class SiteLine(NamedTuple):
    """A site's row: its mark in each round, and in how many rounds its update was accepted."""

    site: str
    marks: list[RoundMark]
    accepted: int
    rounds: int


class Participation(NamedTuple):
    """The table of one stage.

    Attributes:
        stage: The stage.
        number: 1 or 2.
        heads: Column heads: the round's number, or empty.
        lines: One row per site.
    """

    stage: Stage
    number: int
    heads: list[str]
    lines: list[SiteLine]


def participation(
    rounds: Sequence[RoundRecord], counted: Sequence[Attendance]
) -> list[Participation]:
    """Return a table for each stage that has a round.

    Args:
        rounds: The run's rounds.
        counted: The attendance of each site in each stage that it belongs to.
    """
    tables = []
    for number, stage in enumerate(Stage, start=1):
        own = [record for record in rounds if record.stage is stage]
        if own:
            lines = [_line(site, own) for site in counted if site.stage is stage]
            tables.append(
                Participation(stage, number, [_head(record, own) for record in own], lines)
            )
    return tables


def mark_of(record: RoundRecord, site: str) -> RoundMark:
    """Return a site's outcome in a round."""
    if site in record.accepted:
        return RoundMark.ACCEPTED
    if site not in record.expected:
        return RoundMark.NOT_ASKED
    return RoundMark.REFUSED if site in record.answered else RoundMark.SILENT


def never_asked(events: Sequence[Event], rounds: Sequence[RoundRecord]) -> dict[str, str]:
    """Return the approved sites that no round has asked, each with the last logged reason."""
    reasons: dict[str, str] = {}
    for event in events:
        missing: Mapping[str, str] = event.get("missing", {})
        reasons |= missing
        if event.get("event") == "described":
            reasons.pop(event["site"], None)
    asked = {site for record in rounds for site in record.expected}
    return {site: reasons[site] for site in sorted(reasons) if site not in asked}


def privacy_sentences(rounds: Sequence[RoundRecord]) -> list[str]:
    """Return what each site that trains with differential privacy has stated last."""
    last = {
        site: update.privacy
        for record in rounds
        for site, update in record.accepted.items()
        if update.privacy
    }
    return [
        f"{site} states that it trained with differential privacy of each of its patients: epsilon "
        f"{spent.epsilon:.4g} at delta {spent.delta:g}, over all its rounds of all plans so far. "
        "That covers the weights, not the counts and scores."
        for site, spent in sorted(last.items())
    ]


def _line(counted: Attendance, rounds: Sequence[RoundRecord]) -> SiteLine:
    marks = [mark_of(record, counted.site) for record in rounds]
    return SiteLine(counted.site, marks, counted.accepted, counted.rounds)


def _head(record: RoundRecord, rounds: Sequence[RoundRecord]) -> str:
    number = record.server_round
    written = number == 1 or number % HEAD_EVERY == 0 or len(rounds) <= HEAD_EVERY
    return str(number) if written else ""
