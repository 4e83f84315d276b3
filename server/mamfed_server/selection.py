"""The checkpoints of a run: the last two rounds, the end of stage 1, the best one, the final one.

The best round is the one with the highest mean over sites of their validation Dice; the threshold
of its checkpoint is chosen on the same patients. The best and the final one of stage 2 hold the
painter, the weights at the end of stage 1, beside their own (``mamfed_common.checkpoint``).
"""

from __future__ import annotations

from collections.abc import Mapping

from mamfed_common.checkpoint import Checkpoint, CheckpointFacts
from mamfed_common.metrics import THRESHOLDS, SiteScore
from mamfed_common.plan import Stage, TrainingPlan
from mamfed_common.state import State
from mamfed_server.resume import Resumed, load_last_good, position_of, positions
from mamfed_server.runs import PRETRAINED, RoundRecord, RunFolder

BY_DICE, BY_ORDER = "validation Dice", "last round"


class Selection:
    """Writes checkpoints, and chooses the best round by its mean validation Dice.

    Attributes:
        best_dice: That of the best round so far.
        chosen_by: Why the ``best`` checkpoint is the best.
        threshold: The threshold that the validation of the ``best`` checkpoint chose; None: the
            plan's.
    """

    def __init__(self, folder: RunFolder, plan: TrainingPlan) -> None:
        """Start with no round."""
        self._folder, self._plan = folder, plan
        self.best_dice: float | None = None
        self.chosen_by = BY_ORDER
        self.threshold: float | None = None
        self._painter: State | None = None

    def restore(self, resumed: Resumed) -> None:
        """Take up the choice of an earlier process, and write what its last round may lack."""
        if resumed.best and resumed.best.mean_validation_dice is not None:
            self.best_dice, self.chosen_by = resumed.best.mean_validation_dice, BY_DICE
        if resumed.best:
            self.threshold = resumed.best.threshold
        self._painter = resumed.painter
        if resumed.done < len(positions(self._plan)):
            return
        checkpoint, _ = load_last_good(self._folder)
        assert checkpoint is not None, "rounds are done only where there is a checkpoint"
        if resumed.best is None:
            self._save_best(checkpoint)
        self._folder.save("final", self._with_painter(checkpoint))

    def keep(self, state: State, record: RoundRecord) -> None:
        """Write a round: its line between the best checkpoint and the latest, see ``app.py``."""
        checkpoint = self._checkpoint(state, record)
        if position_of(record) == (Stage.PRETRAINING, self._plan.pretraining.rounds):
            self._folder.save(PRETRAINED, checkpoint)
            self._painter = state
        dice = record.mean_validation_dice
        is_last = self._is_last(record)
        is_best = dice is not None and (self.best_dice is None or dice > self.best_dice)
        if is_best or (is_last and self.best_dice is None):
            self._save_best(checkpoint)
        if is_best:
            self.best_dice, self.chosen_by = dice, BY_DICE
        self._folder.append_round(record)
        self._folder.save_latest(checkpoint)
        if is_last:
            self._folder.save("final", self._with_painter(checkpoint))

    def _save_best(self, checkpoint: Checkpoint) -> None:
        self._folder.save("best", self._with_painter(checkpoint))
        self.threshold = checkpoint.facts.threshold

    def _with_painter(self, checkpoint: Checkpoint) -> Checkpoint:
        """Put the painter beside weights of stage 2; those of stage 1 are the painter itself."""
        if checkpoint.facts.stage is Stage.PRETRAINING:
            return checkpoint
        return checkpoint._replace(painter=self._painter)

    def _checkpoint(self, state: State, record: RoundRecord) -> Checkpoint:
        facts = CheckpointFacts(
            plan=self._plan,
            plan_sha256=self._plan.sha256(),
            stage=record.stage,
            server_round=record.server_round,
            expected=record.expected,
            accepted=tuple(record.accepted),
            refused=record.refused,
            validation=record.validation,
            mean_validation_dice=record.mean_validation_dice,
            threshold=choose_threshold(record.validation),
        )
        return Checkpoint(state=state, facts=facts)

    def _is_last(self, round_: RoundRecord | CheckpointFacts) -> bool:
        return position_of(round_) == positions(self._plan)[-1]


def choose_threshold(validation: Mapping[str, SiteScore]) -> float | None:
    """Return the threshold with the highest mean over sites of their validation Dice.

    Args:
        validation: Each site's score of one round.

    Returns:
        One of ``metrics.THRESHOLDS``, of equal ones the nearest to 0.5; None where no site says
        what its Dice would be at them.
    """
    known = [score.dice_at for score in validation.values() if score.dice_at is not None]
    if not known:
        return None
    means = [sum(values) / len(known) for values in zip(*known, strict=True)]
    best = max(range(len(means)), key=lambda i: (means[i], -abs(THRESHOLDS[i] - 0.5)))
    return THRESHOLDS[best]
