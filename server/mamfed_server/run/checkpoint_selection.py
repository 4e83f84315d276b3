"""The checkpoints of a run: the last two rounds, the end of stage 1, the best one, the final one.

The best round and its threshold are chosen as ``round_choice.py`` says. The best and the final one
of stage 2 hold the painter, the weights at the end of stage 1, beside their own
(``mamfed_common.checkpoint``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from mamfed_common.checkpoint import Checkpoint, CheckpointFacts
from mamfed_common.model.state_dict import State
from mamfed_common.plan import Stage, TrainingPlan
from mamfed_common.protocol.tasks import SiteDescription
from mamfed_server.run.resume import ResumePoint, load_last_good, position_of, round_positions
from mamfed_server.run.round_choice import RoundChoice
from mamfed_server.run_folder.folder import PRETRAINED, RunFolder
from mamfed_server.run_folder.round_record import RoundRecord


class Selection:
    """Writes checkpoints, and chooses the best round.

    Attributes:
        choice: The choice among the rounds so far.
    """

    def __init__(
        self,
        folder: RunFolder,
        plan: TrainingPlan,
        descriptions: Callable[[], Mapping[str, SiteDescription]],
    ) -> None:
        """Start with no round; ``descriptions`` tells what each site has now."""
        self._folder, self._plan, self._descriptions = folder, plan, descriptions
        self.choice = RoundChoice()
        self._painter: State | None = None

    def restore(self, resumed: ResumePoint) -> None:
        """Take up the choice of an earlier process, and write what its last round may lack."""
        self.choice = RoundChoice(self._folder.rounds())
        self._painter = resumed.painter
        if not resumed.done:
            return
        checkpoint, _ = load_last_good(self._folder)
        assert checkpoint is not None, "rounds are done only where there is a checkpoint"
        is_over = resumed.done == len(round_positions(self._plan))
        if resumed.best is None:  # damaged, or there was none yet
            chosen = self.choice.chosen
            if chosen is not None and position_of(chosen) != position_of(checkpoint.facts):
                self.choice.forget()
            if self.choice.chosen is not None or is_over:
                self._folder.save("best", self._with_painter(checkpoint))
        if not is_over:
            return
        self._folder.save("final", self._with_painter(checkpoint))

    def keep(self, state: State, record: RoundRecord) -> None:
        """Write a round: its line between the best checkpoint and the latest, see ``run.py``."""
        is_last, is_best = self._is_last(record), self.choice.add(record)
        checkpoint = self._checkpoint(state, record)
        if position_of(record) == (Stage.PRETRAINING, self._plan.pretraining.rounds):
            self._folder.save(PRETRAINED, checkpoint)
            self._painter = state
        if is_best or (is_last and self.choice.chosen is None):
            self._folder.save("best", self._with_painter(checkpoint))
        self._folder.append_round(record)
        self._folder.save_latest(checkpoint)
        if is_last:
            self._folder.save("final", self._with_painter(checkpoint))

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
            pooled_validation_dice=record.pooled_validation_dice,
            validation_images=record.validation_images,
            threshold=self.choice.threshold,
            splits={site: d.splits for site, d in self._descriptions().items() if d.splits},
        )
        return Checkpoint(state=state, facts=facts)

    def _is_last(self, round_: RoundRecord | CheckpointFacts) -> bool:
        return position_of(round_) == round_positions(self._plan)[-1]
