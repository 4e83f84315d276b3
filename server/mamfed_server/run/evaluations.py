"""The scores of one run: the validation after a round, and the test at the end."""

from __future__ import annotations

from collections.abc import Mapping

from mamfed_common.checkpoint import load_checkpoint
from mamfed_common.domain import PARTS, Part
from mamfed_common.metrics.site_score import SiteScore
from mamfed_common.model.state_dict import State
from mamfed_common.plan import Stage
from mamfed_common.protocol.tasks import REFUSAL_CODES, EvaluateTask, RefusalCode
from mamfed_common.runtime.wording import counted
from mamfed_server.run.deadlines import evaluation_deadlines, personal_deadlines
from mamfed_server.run.evaluation_round import Scores, evaluate_sites
from mamfed_server.run.job import Job
from mamfed_server.run.participants import NOTHING_TO_ADAPT_WITH, may_adapt
from mamfed_server.run.requests import SitePoller
from mamfed_server.run.roster import Roster
from mamfed_server.run_folder.event_log import EventLog
from mamfed_server.run_folder.folder import RunFolder
from mamfed_server.run_folder.round_record import RoundRecord
from mamfed_server.strategy.protocol import Strategy

KEPT = REFUSAL_CODES[RefusalCode.TOO_FEW_PATIENTS]
"""The reason of a site that has too few patients for its scores to leave."""


class Evaluations:
    """Has the sites score weights.

    Attributes:
        test_scores: Scores on the test patients, by site; empty before the test.
        personal: Scores of the personal models, and for each site without one the reason.
    """

    def __init__(
        self,
        job: Job,
        folder: RunFolder,
        strategy: Strategy,
        poller: SitePoller,
        log: EventLog,
    ) -> None:
        """Score the weights of a job.

        Args:
            job: The job.
            folder: The run's folder.
            strategy: Combines the sites' validation scores.
            poller: Reaches the sites.
            log: Receives sites without a score.
        """
        self._job, self._plan, self._folder = job, job.plan, folder
        self._strategy, self._poller, self._log = strategy, poller, log
        self.test_scores: dict[str, SiteScore] = {}
        self._kept: dict[Part, set[str]] = {part: set() for part in PARTS}
        self.personal = Scores({}, {}, {})

    def validate(self, roster: Roster, state: State, record: RoundRecord) -> RoundRecord:
        """Score a round's weights on the validation patients; return the record with the scores."""
        task = self._score_task("val", record.stage, record.server_round)
        result = self._evaluate(roster, state, task, f"validation of round {record.server_round}")
        mean_dice, pooled = self._strategy.aggregate_evaluate(
            record.stage, record.server_round, result.scores
        )
        return record.model_copy(
            update={
                "validation": result.scores,
                "mean_validation_dice": mean_dice,
                "pooled_validation_dice": pooled and pooled.dice,
                "validation_images": pooled and pooled.images,
                "validation_durations": result.durations,
            }
        )

    def test(self, roster: Roster) -> None:
        """Score the chosen weights on the test patients of every site."""
        if self._plan.finetuning.rounds == 0:
            return
        roster.refresh()
        self._log.write("test")
        state, facts, painter = load_checkpoint(self._folder.checkpoint_path("best"))
        task = self._score_task("test", facts.stage, facts.server_round, facts.threshold)
        task = task.model_copy(update={"painter": painter is not None})
        self.test_scores = self._evaluate(roster, state, task, "test", painter).scores
        if self._plan.makes_personal_models:
            self._test_personal(
                roster, state, task.model_copy(update={"model": "personal"}), painter
            )
        self._hand_over(roster, state, task, painter)

    def _hand_over(
        self, roster: Roster, state: State, task: EvaluateTask, painter: State | None
    ) -> None:
        """Send the chosen weights to the sites that were not asked for a score."""
        nodes = roster.without_test_images()
        nodes = {site: node for site, node in nodes.items() if site not in self.personal.scores}
        deadlines = evaluation_deadlines(self._plan, self._folder.rounds(), nodes)
        descriptions = roster.descriptions
        result = evaluate_sites(self._poller, state, task, nodes, descriptions, deadlines, painter)
        for site, reason in result.failures.items():
            self._log.write(
                "warning", warning=f"the final model may not have come to {site}: {reason}"
            )

    def _test_personal(
        self, roster: Roster, state: State, task: EvaluateTask, painter: State | None
    ) -> None:
        """Have every site adapt the chosen weights to its own patients and score the result.

        Sites without a test image adapt too, because the model is theirs to use.
        """
        descriptions = roster.descriptions
        candidates = {**roster.evaluators("test"), **roster.trainers(Stage.FINETUNING)}
        nodes = {
            site: candidates[site] for site in sorted(candidates) if may_adapt(descriptions[site])
        }
        self._log.write("personal models", sites=list(nodes))
        deadlines = personal_deadlines(self._plan, self._folder.rounds(), descriptions, nodes)
        result = evaluate_sites(self._poller, state, task, nodes, descriptions, deadlines, painter)
        for site, reason in result.failures.items():
            self._log.write("not scored", site=site, warning=f"personal model: {site}: {reason}")
        not_adapted = dict.fromkeys(
            sorted(descriptions.keys() - nodes.keys()), NOTHING_TO_ADAPT_WITH
        )
        self.personal = result._replace(failures=result.failures | not_adapted)

    def _score_task(
        self, part: Part, stage: Stage, server_round: int, threshold: float | None = None
    ) -> EvaluateTask:
        return EvaluateTask(
            plan=self._plan,
            signature=self._job.signature,
            part=part,
            stage=stage,
            server_round=server_round,
            run=self._job.run,
            threshold=threshold,
        )

    def _evaluate(
        self,
        roster: Roster,
        state: State,
        task: EvaluateTask,
        what: str,
        painter: State | None = None,
    ) -> Scores:
        nodes = roster.evaluators(task.part)
        deadlines = evaluation_deadlines(self._plan, self._folder.rounds(), nodes)
        result = evaluate_sites(
            self._poller, state, task, nodes, roster.descriptions, deadlines, painter
        )
        self._note(task.part, what, result.failures, len(nodes))
        return result

    def _note(self, part: Part, what: str, failures: Mapping[str, str], asked: int) -> None:
        """Log the sites without a score; those that keep theirs, once for each part."""
        kept = {site for site, reason in failures.items() if reason == KEPT}
        new = kept - self._kept[part]
        self._kept[part] |= kept
        for site, reason in failures.items():
            if site in new or site not in kept:
                self._log.write("not scored", site=site, warning=f"{what}: {site}: {reason}")
        if new:
            self._log.write(
                "warning",
                warning=f"{what}: {len(kept)} of {counted(asked, 'site')} keep their scores, "
                f"because too few patients are behind them: {', '.join(sorted(kept))}; their "
                "updates count as before",
            )
