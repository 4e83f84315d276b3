"""The science and the contract that every role of mamfed shares.

The names below are the public Python API (``docs/python-api.md``); each is imported on first use.
"""

from mamfed_common.runtime.lazy import lazy_names

__version__ = "0.1.0"

_NAMES = {
    "Checkpoint": "mamfed_common.checkpoint",
    "CheckpointFacts": "mamfed_common.checkpoint",
    "MalignancyNetwork": "mamfed_common.model.malignancy_net",
    "MamfedError": "mamfed_common.errors",
    "RoundContext": "mamfed_common.training.batches",
    "Sample": "mamfed_common.transforms.sample",
    "SiteScore": "mamfed_common.metrics.site_score",
    "Stage": "mamfed_common.plan",
    "TrainingPlan": "mamfed_common.plan",
    "build_network": "mamfed_common.model.malignancy_net",
    "evaluate": "mamfed_common.training.inference",
    "expected_state": "mamfed_common.plan.norm_groups",
    "load_checkpoint": "mamfed_common.checkpoint",
    "load_network": "mamfed_common.training.inference",
    "parse_plan": "mamfed_common.plan",
    "predict": "mamfed_common.training.inference",
    "read_plan": "mamfed_common.plan",
    "save_checkpoint": "mamfed_common.checkpoint",
    "state_of": "mamfed_common.model.state_dict",
    "summarise": "mamfed_common.metrics.scores",
    "train": "mamfed_common.training.stages",
}
__all__ = ["__version__", *_NAMES]
__getattr__ = lazy_names(__name__, _NAMES)


def __dir__() -> list[str]:
    return [*globals(), *_NAMES]
