"""The personal model: the final shared model, adapted to a site's own patients.

The shared weights are trained for a few steps on the site's own stage-2 images, and the result is
averaged with the shared weights. The plan fixes the share of the average: choosing it by a few
validation patients does more harm than good (docs/decisions/0033-personal-model.md). Only scores of
the personal model leave the site.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from mamfed_client.disclosure.gate import OpenGate
from mamfed_client.disclosure.plan_admission import PolicyRefusal
from mamfed_client.models.model_store import ModelFolder
from mamfed_client.preparation.site_data import SiteData
from mamfed_client.training.round_executor import RoundExecutor
from mamfed_common.checkpoint import Checkpoint, CheckpointFacts, PersonalFacts, with_hashes
from mamfed_common.metrics.scores import summarise
from mamfed_common.metrics.threshold import nearest_threshold
from mamfed_common.model.state_dict import State
from mamfed_common.plan import Stage, TrainingPlan
from mamfed_common.protocol.tasks import RefusalCode
from mamfed_common.runtime.seeds import derive_seed
from mamfed_common.training.batches import RoundContext
from mamfed_common.training.inference import OnStep
from mamfed_common.training.round_checkpoint import RoundCheckpointer


@dataclass(frozen=True)
class Adapter:
    """Adapts the shared model at a site.

    Attributes:
        data: The site's images.
        executor: What trains and scores.
        gate: The site's gate, which admits the training.
        checkpointer: Saves the training as in a round; None: a crash loses all of it.
        on_step: Called after each step.
    """

    data: SiteData
    executor: RoundExecutor
    gate: OpenGate
    checkpointer: RoundCheckpointer | None = None
    on_step: OnStep | None = None

    def personal(self, shared: Checkpoint, folder: ModelFolder | None) -> Checkpoint:
        """Return the personal model of a shared one, from the folder if it is already there.

        Args:
            shared: The shared model, as it is tested at this site.
            folder: Folder in which to store the personal model; None: it is not stored.

        Raises:
            PolicyRefusal: The site has no malignant training image, or fewer than its policy
                requires.
        """
        plan, expected = shared.facts.plan, personal_facts(shared, self.data.name)
        if folder and (stored := folder.personal_like(expected)):
            return stored
        adapted = self.adapt(shared.state, plan)
        threshold = own_threshold(adapted, self.data, plan, self.executor)
        facts = expected.model_copy(update={"threshold": threshold})
        personal = with_hashes(Checkpoint(adapted, facts, shared.painter))
        if folder:
            folder.keep_personal(personal)
        return personal

    def adapt(self, state: State, plan: TrainingPlan) -> State:
        """Train shared weights on the site's own images, and average the result with them.

        Raises:
            PolicyRefusal: As for :meth:`personal`.
        """
        samples, benign = self.data.training(plan, Stage.FINETUNING)
        if not len(samples):
            raise PolicyRefusal(RefusalCode.NOTHING_TO_ADAPT_WITH)
        self.gate.admit_cases(len(samples))
        result = self.executor.train(
            Stage.FINETUNING,
            state,
            samples,
            adaptation_plan(plan),
            RoundContext(self.data.name, 1),
            benign=benign,
            on_step=self.on_step,
            checkpointer=self.checkpointer,
        )
        return averaged(state, result.state, plan.personal.share)


def adaptation_plan(plan: TrainingPlan) -> TrainingPlan:
    """Return the plan of the adaptation: one round of stage 2, with its own random draws."""
    personal = plan.personal
    finetuning = plan.finetuning.model_copy(
        update={
            "rounds": 1,
            "local_epochs": None,
            "local_steps": personal.steps,
            "learning_rate": personal.learning_rate,
            "optimizer_state": "fresh",
        }
    )
    seed = derive_seed(plan.seed, "personal")
    return plan.model_copy(update={"finetuning": finetuning, "seed": seed})


def personal_facts(shared: Checkpoint, site: str) -> CheckpointFacts:
    """Return the facts of a shared model's personal model, without weights and threshold."""
    facts = with_hashes(shared).facts
    personal = facts.plan.personal
    adapted = PersonalFacts(
        site=site,
        steps=personal.steps,
        learning_rate=personal.learning_rate,
        share=personal.share,
        shared_sha256=facts.weights_sha256,
    )
    return facts.model_copy(update={"personal": adapted, "threshold": None, "weights_sha256": ""})


def averaged(shared: Mapping[str, Tensor], adapted: Mapping[str, Tensor], share: float) -> State:
    """Return the average of shared and adapted weights in float64, with ``share`` of the adapted.

    Tensors that are not floating-point are taken from the adapted weights.
    """
    return {
        name: (shared[name].double() * (1 - share) + tensor.double() * share).to(tensor.dtype)
        if tensor.is_floating_point()
        else tensor
        for name, tensor in adapted.items()
    }


def own_threshold(
    state: State, data: SiteData, plan: TrainingPlan, executor: RoundExecutor
) -> float | None:
    """Choose a personal model's threshold by the site's own validation patients.

    Returns:
        0.5 unless the patients give evidence for another one
        (:func:`mamfed_common.metrics.threshold.nearest_threshold`); None, which stands for the
        plan's, if no image can be scored.
    """
    samples = data.samples(["malignant"], "val")
    score = summarise(executor.evaluate(state, samples, plan))
    if score.dice_at is None or not score.images:
        return None
    return nearest_threshold(score.dice_at, score.images)
