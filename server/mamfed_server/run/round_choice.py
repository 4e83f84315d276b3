"""Which round, and which threshold: only as far as validation can tell.

A few validation images cannot rank rounds: the highest of many noisy values is the luckiest. So a
later round and a threshold nearer to 0.5 win unless they are worse by more than one standard error
(the one-standard-error rule, Breiman et al. 1984; Hastie et al., ESL 7.10). With no validation at
all that leaves the last round and 0.5. Why and at what cost:
``docs/decisions/0030-choosing.md``.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean

from mamfed_common.metrics.site_score import THRESHOLDS, SiteScore
from mamfed_common.metrics.threshold import nearest_threshold, standard_error
from mamfed_common.plan import Stage
from mamfed_server.aggregation.pooled_scores import images_behind, pool
from mamfed_server.run_folder.round_record import RoundRecord

SMOOTHED_ROUNDS = 3
"""Over so many rounds, the last validated ones, validation Dice is averaged."""

Validation = Mapping[str, SiteScore]


def choose_threshold(validations: Sequence[Validation]) -> float | None:
    """Choose the probability from which a pixel is marked.

    Args:
        validations: Each site's score of the last rounds, the last one last.

    Returns:
        Of ``metrics.THRESHOLDS`` the nearest to 0.5 whose Dice, pooled by images and averaged over
        the rounds, is within one standard error of the best; None where no site says what its Dice
        would be at them.
    """
    known = [found for v in validations[-SMOOTHED_ROUNDS:] if (found := _pool_thresholds(v))]
    if not known:
        return None
    means = [fmean(values) for values in zip(*(dice for dice, _ in known), strict=True)]
    return nearest_threshold(means, known[-1][1])


class RoundChoice:
    """The choice among the rounds of stage 2 so far; it needs each of them once, in their order.

    Attributes:
        chosen: The round chosen so far; None before one was validated.
        threshold: What the rounds up to the last one choose; None: the plan's.
        chosen_threshold: What those up to the chosen one did.
        smoothed: Of each validated round its number and its smoothed validation Dice.
    """

    def __init__(self, records: Iterable[RoundRecord] = ()) -> None:
        """Start with the rounds that have been."""
        self.chosen: RoundRecord | None = None
        self.threshold: float | None = None
        self.chosen_threshold: float | None = None
        self.smoothed: list[tuple[int, float]] = []
        self._recent: list[RoundRecord] = []
        self._last: RoundRecord | None = None
        self._peak = -math.inf
        for record in records:
            self.add(record)

    def add(self, record: RoundRecord) -> bool:
        """Take the next round; return whether it is the one to choose so far."""
        if record.stage is not Stage.FINETUNING:
            return False
        self._last = record
        pooled = pool(record.validation)
        if pooled is None:
            return False
        self._recent = [*self._recent, record][-SMOOTHED_ROUNDS:]
        smoothed = fmean(p.dice for r in self._recent if (p := pool(r.validation)))
        self.smoothed.append((record.server_round, smoothed))
        self.threshold = choose_threshold([r.validation for r in self._recent])
        self._peak = max(self._peak, smoothed)
        error = standard_error(pooled.images)
        # A mean of three rounds does not show at once that the last of them has fallen apart.
        if smoothed < self._peak - error or pooled.dice < self._peak - 2 * error:
            return False
        self.chosen, self.chosen_threshold = record, self.threshold
        return True

    def forget(self) -> None:
        """Choose anew from the next round on: the weights of the chosen one are lost."""
        self.chosen = self.chosen_threshold = None
        self._recent = []
        self._peak = -math.inf

    def why(self) -> str:
        """Say in words which round is chosen, and why."""
        if self.chosen is None or self._last is None:
            lost = "the checkpoint of the chosen one was damaged"
            return f"the last round: {lost if self.smoothed else 'no validation Dice was measured'}"
        pooled = pool(self.chosen.validation)
        assert pooled is not None, "only validated rounds are chosen"
        images = f"{pooled.images} validation image{'' if pooled.images == 1 else 's'}"
        if self.chosen is not self._last:
            return (
                f"round {self.chosen.server_round}: later ones are worse by more than the standard "
                f"error of {images}, {standard_error(pooled.images):.2f}"
            )
        at_peak = dict(self.smoothed)[self.chosen.server_round] == self._peak
        if at_peak:
            return f"the last round: none has a higher smoothed Dice on {images}"
        return f"the last round: {images} cannot tell it from the best"


def chosen_round(rounds: Sequence[RoundRecord], *, ended_well: bool = True) -> RoundRecord | None:
    """Return the round behind the chosen checkpoint; None where there is none.

    Where no round was validated it is the last: but the last of a run that failed, or goes on, may
    have given no weights.
    """
    chosen = RoundChoice(rounds).chosen
    if chosen is not None:
        return chosen
    return rounds[-1] if rounds and ended_well else None


def _pool_thresholds(validation: Validation) -> tuple[tuple[float, ...], int] | None:
    """Return Dice at each threshold, pooled over the sites that tell, and the images behind."""
    known = [
        (s.dice_at, images_behind(s)) for s in validation.values() if s.dice_at and images_behind(s)
    ]
    total = sum(images for _, images in known)
    if not total:
        return None
    dice = (
        sum(values[index] * images for values, images in known) / total
        for index in range(len(THRESHOLDS))
    )
    return tuple(dice), total
