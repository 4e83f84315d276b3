"""Attendance: in how many rounds of a stage each eligible site took part.

A round asks the sites that are connected and have cases of its stage. An approved site that was
absent is missing from the result just like one whose update was refused, so both count as missed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

from mamfed_common.plan import Stage
from mamfed_common.runtime.wording import counted
from mamfed_server.run_folder.round_record import RoundRecord

NOT_THERE = "not asked: not approved yet, or without cases of this stage"
"""Reason for an unasked site if the round record gives none."""


class Attendance(NamedTuple):
    """One site's attendance in one stage.

    Attributes:
        site: The site.
        stage: The stage.
        rounds: Rounds of the stage so far.
        accepted: The rounds in which its update was accepted.
        reasons: For the other rounds, how many have no update for each reason.
    """

    site: str
    stage: Stage
    rounds: int
    accepted: int
    reasons: dict[str, int]

    @property
    def missed(self) -> int:
        """Rounds without an accepted update of the site."""
        return self.rounds - self.accepted

    def words(self) -> str:
        """Return it in words: ``west: update in 1 of 4 rounds of finetuning (3 x offline)``."""
        why = reasons_in_words(self.reasons)
        rounds = f"{counted(self.rounds, 'round')} of {self.stage}"
        return f"{self.site}: update in {self.accepted} of {rounds}" + (f" ({why})" if why else "")


def attendance(
    rounds: Sequence[RoundRecord],
    members: Mapping[Any, Collection[str]] | None = None,
    described: Collection[str] = (),
) -> list[Attendance]:
    """Count each stage's rounds for every site that belongs to it, stage by stage.

    Args:
        rounds: The run's rounds.
        members: The sites with cases of each stage (``stages`` in ``summary.json``).
        described: Sites that have described their data (``sites`` in ``summary.json``). An absent
            site that has not may have cases of the stage, and so counts.
    """
    result = []
    for stage in Stage:
        own = [record for record in rounds if record.stage is stage]
        sites = {site for record in own for site in record.expected}
        sites |= {site for record in own for site in record.absent} - set(described)
        if own:
            sites |= set((members or {}).get(stage, ()))
        result += [_attendance_of(site, stage, own) for site in sorted(sites)]
    return result


def due(record: RoundRecord, lines: Sequence[Attendance]) -> int:
    """Return how many sites could have sent an update in a round."""
    return sum(line.stage is record.stage for line in lines)


def updates_in_words(lines: Sequence[Attendance]) -> str:
    """Return how many of all possible updates were accepted, counting those of absent sites."""
    possible = sum(line.rounds for line in lines)
    accepted = sum(line.accepted for line in lines)
    return f"{accepted:,} of {counted(possible, 'update')} accepted"


def reasons_in_words(reasons: Mapping[str, int]) -> str:
    """Return reasons with their counts: ``3 x offline; 1 x late``."""
    return "; ".join(f"{count} x {reason}" for reason, count in reasons.items())


def _attendance_of(site: str, stage: Stage, rounds: Sequence[RoundRecord]) -> Attendance:
    reasons = Counter(_why(record, site) for record in rounds if site not in record.accepted)
    accepted = len(rounds) - sum(reasons.values())
    return Attendance(site, stage, len(rounds), accepted, dict(reasons))


def _why(record: RoundRecord, site: str) -> str:
    if site in record.expected:
        return record.refused.get(site, "no reason given")
    return record.absent.get(site, NOT_THERE)
