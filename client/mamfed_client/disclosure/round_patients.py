"""How many patients a round must be about before its update may leave."""

from __future__ import annotations

from typing import NamedTuple


class PatientsOfRound(NamedTuple):
    """The patients whose images a round trains on.

    Attributes:
        drawn: Number of patients of whom the round uses an image.
        at_hand: Number of patients whose images it could use.
    """

    drawn: int
    at_hand: int

    def required(self, least: int) -> int:
        """Return the fewest patients that the round must draw.

        That is ``policy.min_patients_a_round``, or half of the site's patients where this is less:
        a site with few patients takes part, and no plan can single out one of them.
        """
        return min(least, (self.at_hand + 1) // 2)
