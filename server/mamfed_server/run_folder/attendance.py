"""Who took part in how many rounds, of all who could have: whoever was absent counts too.

A round asks the sites that are there and have cases of its stage. A site that is approved and was
not there is missing from the result as much as one whose update was refused, so both are counted
against the rounds of the stage.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

from mamfed_common.plan import Stage
from mamfed_common.runtime.wording import counted
from mamfed_server.run_folder.folder import RoundRecord

NOT_THERE = "not asked: not approved yet, or without cases of this stage"
"""Why a site was not asked, where the round does not tell."""


class Attendance(NamedTuple):
    """One site in one stage.

    Attributes:
        site: The site.
        stage: The stage.
        rounds: Rounds of the stage so far.
        accepted: Those with an accepted update of the site.
        reasons: Why the others have none, and in how many rounds each.
    """

    site: str
    stage: Stage
    rounds: int
    accepted: int
    reasons: dict[str, int]

    @property
    def missed(self) -> int:
        """Rounds without an update of the site."""
        return self.rounds - self.accepted

    def words(self) -> str:
        """Say it in a clause: ``west: update in 1 of 4 rounds of finetuning (3 x offline)``."""
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
        members: By stage, the sites that have cases of it (``summary.json``'s ``stages``).
        described: Sites that have said what they have (its ``sites``): of an absent site that has
            not, nobody knows that it has no cases of a stage.
    """
    found = []
    for stage in Stage:
        own = [record for record in rounds if record.stage is stage]
        sites = {site for record in own for site in record.expected}
        sites |= {site for record in own for site in record.absent} - set(described)
        if own:
            sites |= set((members or {}).get(stage, ()))
        found += [_of_site(site, stage, own) for site in sorted(sites)]
    return found


def due(record: RoundRecord, lines: Sequence[Attendance]) -> int:
    """Return how many updates a round could have had."""
    return sum(line.stage is record.stage for line in lines)


def updates_in_words(lines: Sequence[Attendance]) -> str:
    """Say how many updates there are, of how many: absent sites' are counted."""
    possible = sum(line.rounds for line in lines)
    accepted = sum(line.accepted for line in lines)
    return f"{accepted:,} of {counted(possible, 'update')} accepted"


def reasons_in_words(reasons: Mapping[str, int]) -> str:
    """Say why rounds have no update, and how many each: ``3 x offline; 1 x late``."""
    return "; ".join(f"{count} x {reason}" for reason, count in reasons.items())


def _of_site(site: str, stage: Stage, rounds: Sequence[RoundRecord]) -> Attendance:
    reasons = Counter(_why(record, site) for record in rounds if site not in record.accepted)
    accepted = len(rounds) - sum(reasons.values())
    return Attendance(site, stage, len(rounds), accepted, dict(reasons))


def _why(record: RoundRecord, site: str) -> str:
    if site in record.expected:
        return record.refused.get(site, "no reason given")
    return record.absent.get(site, NOT_THERE)
