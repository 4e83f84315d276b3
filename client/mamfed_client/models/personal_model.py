"""What a site makes of the final shared model for its own patients: its personal model.

The shared weights are trained for a few steps on the site's own stage-2 images and averaged with
what they were. The share is fixed by the plan: choosing it by a few validation patients does more
harm than good (docs/decisions/0033-personal-model.md). Nothing of it leaves but scores.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from mamfed_client.disclosure.gate import OpenGate
from mamfed_client.disclosure.plan_admission import PolicyRefusal
from mamfed_client.models.model_store import ModelFolder
from mamfed_client.preparation.site_data import SiteData
from mamfed_client.site.hardware import Hardware
from mamfed_client.training.devices import train_on
from mamfed_common.checkpoint import Checkpoint, CheckpointFacts, PersonalFacts, with_hashes
from mamfed_common.metrics.scores import summarise
from mamfed_common.metrics.threshold import nearest_threshold
from mamfed_common.model.state_dict import State
from mamfed_common.plan import Stage, TrainingPlan
from mamfed_common.protocol.tasks import RefusalCode
from mamfed_common.runtime.seeds import derive_seed
from mamfed_common.training.batches import RoundContext
from mamfed_common.training.inference import OnStep, evaluate
from mamfed_common.training.round_checkpoint import RoundCheckpointer


@dataclass(frozen=True)
class Adapter:
    """What adapts the shared model at a site.

    Attributes:
        data: The site's images.
        hardware: What it trains with.
        door: What lets training begin.
        checkpointer: Keeps the training on disk, as of a round; None: a kill costs all of it.
        on_step: Called after each step.
    """

    data: SiteData
    hardware: Hardware
    door: OpenGate
    checkpointer: RoundCheckpointer | None = None
    on_step: OnStep | None = None

    def personal(self, shared: Checkpoint, folder: ModelFolder | None) -> Checkpoint:
        """Return the personal model made of a shared one; one that is kept is not made again.

        Args:
            shared: The shared model, as this site is tested with it.
            folder: Where the model is kept; None: nowhere.

        Raises:
            Refused: The site has no malignant training image, or fewer than its policy asks for.
        """
        plan, own = shared.facts.plan, personal_facts(shared, self.data.name)
        if folder and (kept := folder.personal_like(own)):
            return kept
        adapted = self.adapt(shared.state, plan)
        threshold = own_threshold(adapted, self.data, plan, self.hardware)
        facts = own.model_copy(update={"threshold": threshold})
        made = with_hashes(Checkpoint(adapted, facts, shared.painter))
        if folder:
            folder.keep_personal(made)
        return made

    def adapt(self, state: State, plan: TrainingPlan) -> State:
        """Train shared weights on the site's own images and average the result with them.

        Raises:
            Refused: As :meth:`personal` says.
        """
        samples, benign = self.data.training(plan, Stage.FINETUNING)
        if not len(samples):
            raise PolicyRefusal(RefusalCode.NOTHING_TO_ADAPT_WITH)
        self.door.admit_cases(len(samples))
        result = train_on(
            self.hardware,
            Stage.FINETUNING,
            state,
            samples,
            adapting_plan(plan),
            RoundContext(self.data.name, 1),
            benign=benign,
            on_step=self.on_step,
            checkpointer=self.checkpointer,
        )
        return averaged(state, result.state, plan.personal.share)


def adapting_plan(plan: TrainingPlan) -> TrainingPlan:
    """Return the plan of the adapting: one round, all of stage 2, with draws of its own."""
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
    """Return what a personal model of a shared one will be but for its weights and threshold."""
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
    """Return the average of two sets of weights, ``share`` of it the adapted ones', in float64.

    Tensors that are not floating are the adapted ones'.
    """
    return {
        name: (shared[name].double() * (1 - share) + tensor.double() * share).to(tensor.dtype)
        if tensor.is_floating_point()
        else tensor
        for name, tensor in adapted.items()
    }


def own_threshold(
    state: State, data: SiteData, plan: TrainingPlan, hardware: Hardware
) -> float | None:
    """Choose a personal model's threshold by the site's own validation patients.

    Returns:
        0.5 unless the patients can tell otherwise
        (:func:`mamfed_common.metrics.threshold.nearest_threshold`); None, which is the plan's,
        where no image can tell anything.
    """
    samples = data.samples(["malignant"], "val")
    score = summarise(evaluate(state, samples, plan, device=hardware.choose()[0]))
    if score.dice_at is None or not score.images:
        return None
    return nearest_threshold(score.dice_at, score.images)
