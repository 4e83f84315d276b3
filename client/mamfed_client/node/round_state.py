"""What a round at a site starts from, what it sends, and the name that identifies it."""

from __future__ import annotations

from pathlib import Path

from flwr.app import RecordDict

from mamfed_client.disclosure.evaluation_question import site_sha256
from mamfed_client.disclosure.round_patients import PatientsOfRound
from mamfed_client.preparation.cohort import StoredSamples
from mamfed_client.preparation.site_data import Site, load_site
from mamfed_client.training.fedbn import LocalNorms
from mamfed_common import __version__
from mamfed_common.checkpoint import Checkpoint, CheckpointFacts
from mamfed_common.model.state_dict import State, state_sha256
from mamfed_common.plan.norm_groups import expected_state, group_of, merge_trained, select_group
from mamfed_common.protocol.messages import unpack_painter, unpack_weights
from mamfed_common.protocol.tasks import EvaluateTask, SiteDescription, TrainTask
from mamfed_common.runtime.fingerprint import Fingerprint
from mamfed_common.training.batches import Batches
from mamfed_common.training.optimizer_state import OptimizerStateStore


def local_norms_of(folder: Path, site: Site, task: TrainTask | EvaluateTask) -> LocalNorms | None:
    """Return where the site keeps its own norms; None: the plan averages all norms."""
    if not task.plan.federation.local_norms:
        return None
    return LocalNorms(folder / site.name, task.plan, task.run)


def optimizer_state_of(folder: Path, site: Site, task: TrainTask) -> OptimizerStateStore | None:
    """Return where the site keeps AdamW's moments; None: they start fresh."""
    if task.plan.stage(task.stage).optimizer_state == "fresh":
        return None
    site_folder = folder / site.name
    return OptimizerStateStore(site_folder, task.plan, task.run, task.stage, task.server_round)


def patients_drawn(
    samples: StoredSamples, benign: StoredSamples, batches: Batches
) -> PatientsOfRound:
    """Return the number of patients whose images a round is about, and of those it could use.

    Companion images come on top; they count where the site has no others.
    """
    images, companions = batches.drawn()
    used, drawn = (samples, images) if images else (benign, companions)
    patients = [image.case.row.patient_id for image in used.images]
    return PatientsOfRound(len({patients[i] for i in drawn}), len(set(patients)))


def state_to_train(
    global_state: State, local_norms: LocalNorms | None, site: Site, task: TrainTask
) -> State:
    """Return the global weights with the norms of the site or its group."""
    state = select_group(global_state, group_of(task.plan, site.name))
    return local_norms.to_train_from(state, task.stage, task.server_round) if local_norms else state


def state_to_send(trained: State, global_state: State, site: Site, task: TrainTask) -> State:
    """Return the trained weights, with the norms of a group in their place."""
    return merge_trained(trained, global_state, group_of(task.plan, site.name))


def model_to_score(
    received: Checkpoint, local_norms: LocalNorms | None, site: Site, task: EvaluateTask
) -> Checkpoint:
    """Return the received model with the norms of the site or its group."""
    model = received.for_group(group_of(task.plan, site.name))
    if local_norms is None:
        return model
    state = local_norms.to_score(model.state, task.stage, task.server_round)
    return model._replace(state=state)


def round_name(task: TrainTask | EvaluateTask, initial_state: State, site: Site) -> str:
    """Return a hash of everything that decides a round's result: other saved rounds are ignored."""
    return Fingerprint.of(
        mamfed_version=__version__,
        plan_sha256=task.plan.sha256(),
        stage=task.stage,
        server_round=task.server_round,
        start=state_sha256(initial_state),
        site=site.name,
        data=site_sha256(load_site(site, task.plan)),
    ).sha256


def received_model(
    content: RecordDict, task: EvaluateTask, description: SiteDescription
) -> Checkpoint:
    """Return the model in a message, with this site's splits, which the server need not send."""
    expected = expected_state(task.plan)
    facts = CheckpointFacts(
        plan=task.plan,
        plan_sha256=task.plan.sha256(),
        stage=task.stage,
        server_round=task.server_round,
        threshold=task.threshold,
        splits={description.site: description.splits},
    )
    painter = unpack_painter(content, task, expected)
    return Checkpoint(unpack_weights(content, task, expected), facts, painter)
