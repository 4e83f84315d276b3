"""The first ``site.yaml``: every key with what it means, and nothing let out unasked."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from mamfed_client.site.policy import NEEDED, MetricName, Policy
from mamfed_common.runtime.documents import yaml_value


def first_settings(
    name: str, data: Sequence[tuple[str, Path]], *, allow_model: bool, allow_metrics: bool
) -> str:
    """Write a site's first settings.

    Args:
        name: What the federation calls the site.
        data: Name and folder of each data set.
        allow_model: Whether weights may leave, with the counts that an average needs.
        allow_metrics: Whether every result may leave.

    Returns:
        YAML with a comment for each key.
    """
    metrics = get_args(MetricName) if allow_metrics else NEEDED if allow_model else ()
    folders = [{"name": cohort, "folder": str(folder)} for cohort, folder in data]
    bounds = {key: yaml_value(value) for key, value in Policy().bounds.model_dump().items()}
    return TEXT.format(
        name=yaml_value(name),
        data="\n".join(f"  - {yaml_value(folder)}" for folder in folders),
        arrays=yaml_value(["*"] if allow_model else []),
        metrics=yaml_value(metrics),
        all_metrics="\n    #   ".join(get_args(MetricName)),
        **bounds,
    )


TEXT = """\
# mamfed-client: this site's settings. The policy takes effect at the next message, the rest when
# the site is started. Relative paths start at this file's folder.

# What the federation calls this site. It is in the certificate.
name: {name}

# The data sets that this site trains on, as mamfed-client data check reads them. A data set's name
# seeds the split of its patients into training, validation and test: never change it.
data:
{data}

# Where prepared images are kept; null: ~/.cache/mamfed.
cache: null

# Key file of prepared folders that are encrypted; null: none is.
key: null

# auto, cpu, cuda, cuda:0 ... or mps.
device: auto

# How many of these devices train together, each on its share of every batch: 1, 2 ... or auto, all
# GPUs.
devices: 1

# CPU threads of each training process; null: torch's choice.
threads: null

# true: train in less memory, and more slowly, with the same result. For a plan that does not fit.
activation_checkpointing: false

# How much of a round a kill or a power cut may cost, in seconds of training.
checkpoint_seconds: 60

# What may come in and what may leave. What is not allowed is denied.
policy:
  plans:
    # manual: each new plan waits for mamfed-client plan approve.
    # within-bounds: a signed plan within the bounds needs nobody.
    approval: manual
    # Plans approved in advance, by SHA-256 or its first 12 digits or more.
    allowed: []

  # OpenSSH Ed25519 keys that may sign plans, besides the one in welcome.json.
  coordinator_keys: []

  # What no plan may exceed, approved or not.
  bounds:
    # Side of the square grid that images are brought to, in pixels.
    max_image_size: {max_image_size}
    # Rounds of both stages together.
    max_rounds: {max_rounds}
    # Passes over this site's images in a round.
    max_local_epochs: {max_local_epochs}
    # Steps of a round, where a plan counts those.
    max_local_steps: {max_local_steps}
    max_learning_rate: {max_learning_rate}
    # Images a step.
    max_batch_size: {max_batch_size}
    # A plan may not average the updates of fewer sites than this.
    required_min_sites: {required_min_sites}
    # When this site answers, local time, e.g. "19:00-07:00"; null: always.
    hours: {hours}

  # What may leave. Empty lists let nothing leave.
  release:
    # Patterns of array names: ["*"] is the whole model.
    arrays: {arrays}
    # Any of these; without counts and num_examples a site cannot take part.
    #   {all_metrics}
    metrics: {metrics}

  # Images without which this site does not train in a stage.
  min_training_cases: 1

  # Images without which a result over them is withheld.
  min_cases_to_report: 1

  # Whether this site adapts a run's final model to its own patients. That model stays here, in
  # models/; how well it scores leaves only as release says.
  personal: true

  # Whether the pages of mamfed-client predict show patients' numbers. They stay here.
  pages_name_patients: false

  privacy:
    # The most that an update may differ from the round's start (L2 norm); null: no limit.
    clip_norm: null
    # Standard deviation of Gaussian noise on each value, in clip norms; 0: none.
    noise_multiplier: 0
"""
