"""The training plan: its settings, its file and the norms by group that it describes."""

from mamfed_common.domain import TRAINED_ON, Stage
from mamfed_common.plan.evaluation_plan import EvaluationPlan
from mamfed_common.plan.federation_plan import FederationPlan, Weighing, Wire
from mamfed_common.plan.plan_file import parse_plan, read_plan
from mamfed_common.plan.stage_plan import FinetuningPlan, StagePlan
from mamfed_common.plan.training_plan import (
    PersonalPlan,
    TrainingPlan,
    cases,
    validate_plan,
    with_threshold,
)

__all__ = [
    "TRAINED_ON",
    "EvaluationPlan",
    "FederationPlan",
    "FinetuningPlan",
    "PersonalPlan",
    "Stage",
    "StagePlan",
    "TrainingPlan",
    "Weighing",
    "Wire",
    "cases",
    "parse_plan",
    "read_plan",
    "validate_plan",
    "with_threshold",
]
