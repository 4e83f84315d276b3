"""The first ``site.yaml``: every key with a comment, and a policy that releases nothing unasked."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from mamfed_client.site.policy import NEEDED, MetricName, Policy
from mamfed_common.runtime.documents import yaml_value


def first_settings(
    name: str, data: Sequence[tuple[str, Path]], *, allow_model: bool, allow_metrics: bool
) -> str:
    """Return a site's first settings.

    Args:
        name: The site's name in the federation.
        data: Name and folder of each data set.
        allow_model: Whether weights may leave, with the counts that averaging needs.
        allow_metrics: Whether all results may leave.

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
# mamfed-client: this site's settings. Changes to the policy take effect at the next message, all
# others at the next start. Relative paths start at this file's folder.

# This site's name in the federation. It is part of the certificate.
name: {name}

# The data sets that this site trains on, as mamfed-client data check reads them. A data set's name
# seeds the split of its patients into training, validation and test: never change it.
data:
{data}

# Folder of prepared images; null: ~/.cache/mamfed.
cache: null

# Key file of encrypted prepared folders; null: none is encrypted.
key: null

# auto, cpu, cuda, cuda:0 ... or mps.
device: auto

# Number of these devices that share each batch: 1, 2 ... or auto (all GPUs).
devices: 1

# CPU threads of each training process; null: torch's default.
threads: null

# true: train in less memory but more slowly, with the same result. Use it if a plan does not fit.
activation_checkpointing: false

# Seconds of training between checkpoints: the most that a crash or a power cut loses.
checkpoint_seconds: 60

# Where rounds are computed. local: here. slurm or command: as jobs on other machines (docs/site.md,
# "GPUs behind a scheduler"), for example
#   {{kind: slurm, shared_folder: /shared/mamfed, partition: gpu, gpus: 1, cpus: 8, memory: 32G}}
executor: local

# Port of this machine (127.0.0.1) at which Prometheus reads metrics; null: none.
metrics_port: null

# Who is told while nobody looks: of a plan that waits for you, a server gone, a run ended, a
# certificate near its end, a disk nearly full. Try it with: mamfed-client notify test
notify:
  # webhook: {{url: https://chat.example.org/hook}}; url_file where the address is a secret.
  webhook: null
  # email: {{host: mail.example.org, sender: mamfed@example.org, to: [office@example.org]}}, with
  # user and password_file (mode 0600) where the mail server wants them.
  email: null
  # command: [/usr/local/bin/tell-office]; it reads the notice as JSON from stdin.
  command: null
  # How long the server is missing before you are told, in minutes.
  gone_minutes: 30
  # From how many days before the end of the certificate, and below how much free disk space.
  certificate_days: 30
  disk_free_gib: 5

# Which plans this site follows and what may leave. Anything not allowed is denied.
policy:
  plans:
    # manual: each new plan waits for mamfed-client plan approve.
    # within-bounds: a signed plan within the bounds needs no approval.
    approval: manual
    # Plans approved in advance, by SHA-256 or its first 12 digits or more.
    allowed: []

  # OpenSSH Ed25519 keys that may sign plans, besides the one in welcome.json.
  coordinator_keys: []

  # Limits that apply to every plan, approved or not.
  bounds:
    # Side of the square grid to which images are scaled, in pixels.
    max_image_size: {max_image_size}
    # Rounds of both stages together.
    max_rounds: {max_rounds}
    # Epochs per round on this site's images.
    max_local_epochs: {max_local_epochs}
    # Steps per round, for plans that set steps.
    max_local_steps: {max_local_steps}
    max_learning_rate: {max_learning_rate}
    # Images per step.
    max_batch_size: {max_batch_size}
    # Lowest min_sites that a plan may set: the server averages no fewer sites' updates than that.
    min_min_sites: {min_min_sites}
    # Parameters of the network, and estimated memory of a training step.
    max_parameters: {max_parameters}
    max_memory_gib: {max_memory_gib}
    # Fractions of the patients that a plan may hold out: at least this for validation (or none) and
    # for testing, and at most this for both together.
    min_held_out_part: {min_held_out_part}
    max_held_out: {max_held_out}
    # What this site answers in 365 days, over all plans: rounds, scores, and different splits of
    # its patients. Within a plan, each question is answered once.
    max_rounds_a_year: {max_rounds_a_year}
    max_scores_a_year: {max_scores_a_year}
    max_splits_a_year: {max_splits_a_year}
    # Hours when this site answers, local time, e.g. "19:00-07:00"; null: always.
    hours: {hours}

  # What may leave; with empty lists, nothing.
  release:
    # Patterns of array names: ["*"] is the whole model.
    arrays: {arrays}
    # Any of the values below. A site cannot take part without counts and num_examples.
    #   {all_metrics}
    metrics: {metrics}

  # Fewest images with which this site trains in a stage.
  min_training_cases: 1

  # Fewest patients whose images a round trains on, whatever the plan says; half of this site's
  # patients where this is less.
  min_patients_a_round: 10

  # Fewest images for which a result is released.
  min_cases_to_report: 1

  # Fewest patients for which a result or a count of validation or test patients is released, and
  # fewest by which the patients behind two results may differ. A smaller site trains all the same,
  # and its scores stay here.
  min_patients_to_report: 10

  # Whether this site adapts a run's final model to its own patients. That model stays here, in
  # models/; its scores leave only if release allows it.
  personal: true

  # Whether the pages of mamfed-client predict show patient numbers. The pages stay here.
  pages_name_patients: false

  privacy:
    # Largest L2 norm of an update's difference to the round's starting weights; null: no limit.
    clip_norm: null
    # Standard deviation of Gaussian noise on each value, as a multiple of clip_norm; 0: no noise.
    # These two bound what a site can do to the average; they guarantee nothing about a patient.
    noise_multiplier: 0
    # Differential privacy of each training patient (docs/site.md); null: none. For example
    #   {{noise_multiplier: 1.0, clip_norm: 1.0, patients_a_step: 16, max_epsilon: 8}}
    # Training stops before epsilon exceeds max_epsilon, over all plans.
    patients: null

# How mamfed-client pacs reaches this hospital's image archive (docs/site.md); null: not at all. For
# example
#   {{dicomweb: {{url: "https://pacs.example/dicom-web", user: mamfed, password_file: keys/pacs}},
#    dimse: {{host: pacs.example, port: 104, called: PACS, calling: MAMFED}}, hours: "20:00-06:00"}}
archive: null
"""
