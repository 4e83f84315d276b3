"""FedBN over real sites in one process: own norms, own scores, and the same bits after a kill."""

import pytest
import torch
from safetensors.torch import load_file

from mamfed_client.preparation.site_data import Site, load_site
from mamfed_common.checkpoint import load_checkpoint
from mamfed_common.domain import EVALUATED_ON
from mamfed_common.metrics.scores import summarise
from mamfed_common.metrics.site_score import SiteScore
from mamfed_common.model.state_dict import state_sha256
from mamfed_common.plan import with_threshold
from mamfed_common.plan.norm_groups import norm_names
from mamfed_common.training.inference import evaluate
from mamfed_server.run.run import Job
from mamfed_server.run_folder.folder import RunFolder
from mamfed_simulations.federation.runner import run_federation
from mamfed_simulations.phantoms.vendors import VENDORS

NAMES = tuple(sorted(VENDORS))[:2]


class Died(BaseException):
    """The process is gone."""


@pytest.fixture
def fedbn(tiny_plan):
    return tiny_plan.changed(
        pretraining={**tiny_plan.pretraining.model_dump(), "rounds": 2, "learning_rate": 0.02},
        finetuning={**tiny_plan.finetuning.model_dump(), "rounds": 2, "learning_rate": 0.02},
        federation={**tiny_plan.federation.model_dump(), "local_norms": True},
    )


@pytest.fixture
def train(folders, cache):
    """Return what runs a plan over the sites in a folder, from the start or on from where it is."""

    def run(plan, folder, *, sites=None, on_step=None, **job):
        job = Job(plan=plan, folder=folder, num_nodes=len(NAMES), resume=True, **job)
        run_federation(sites or sites_of(folders, cache), job, threads=1, on_step=on_step)
        return RunFolder(folder)

    return run


def sites_of(folders, cache):
    return [Site(name, ((name, folders[name]),), cache) for name in NAMES]


def result(folder):
    names = ("best", "final", "previous")
    weights = {n: state_sha256(load_checkpoint(folder.checkpoint_path(n)).state) for n in names}
    return weights, folder.read_summary()["arms"], [r.validation for r in folder.rounds()]


def norms_of(folder, site):
    """Return a site's files of norms by stage and round."""
    return {
        (path.parent.name, int(path.stem)): load_file(path)
        for path in (folder.path / "norms" / site).rglob("*.safetensors")
    }


def test_each_site_keeps_its_own_norms_after_each_round(tmp_path, fedbn, train):
    folder = train(fedbn, tmp_path / "run")
    first, second = (norms_of(folder, name) for name in NAMES)
    expected = {(stage, number) for stage in ("pretraining", "finetuning") for number in (1, 2)}
    assert first.keys() == second.keys() == expected
    for place in expected:
        assert first[place].keys() == second[place].keys() == set(norm_names(fedbn.network))
        assert state_sha256(first[place]) != state_sha256(second[place])


def test_from_the_second_round_on_it_is_not_fedavg(tmp_path, fedbn, tiny_plan, train):
    """In the first round no site has norms of its own yet."""
    fedavg = fedbn.changed(federation=tiny_plan.federation.model_dump())
    weights = []
    for name, plan in (("fedbn", fedbn), ("fedavg", fedavg)):
        seen = []
        path = tmp_path / name / "checkpoints" / "latest.safetensors"
        train(plan, tmp_path / name, on_round=lambda _, s=seen, p=path: s.append(read(p)))
        weights.append(seen)
    assert weights[0][0] == weights[1][0]
    assert weights[0][1] != weights[1][1]


def read(path):
    return state_sha256(load_checkpoint(path).state)


def test_the_average_has_everyones_norms(tmp_path, fedbn, train):
    """Sites of n and m images: the mean of what they kept, weighted n : m."""
    folder = train(fedbn, tmp_path / "run")
    accepted = folder.rounds()[-1].accepted
    final = load_checkpoint(folder.checkpoint_path("final")).state
    kept = {name: norms_of(folder, name)["finetuning", 2] for name in NAMES}
    for array in norm_names(fedbn.network):
        mean = sum(kept[name][array] * accepted[name].share for name in NAMES)
        torch.testing.assert_close(final[array], mean)


def test_a_site_is_measured_with_its_own_norms_of_the_best_round(
    tmp_path, fedbn, train, folders, cache
):
    folder = train(fedbn, tmp_path / "run")
    state, facts, painter = load_checkpoint(folder.checkpoint_path("best"))
    found = folder.read_summary()["arms"]["federated"]["sites"]
    for site in sites_of(folders, cache):
        own = norms_of(folder, site.name)[str(facts.stage), facts.server_round]
        samples = load_site(site, fedbn).samples(EVALUATED_ON, "test")
        plan = with_threshold(fedbn, facts.threshold)
        scores = evaluate(state | own, samples, plan, device=torch.device("cpu"), painter=painter)
        assert SiteScore.model_validate(found[site.name]) == summarise(scores)


@pytest.mark.parametrize("steps", [2, 5, 8, 10, 12])
def test_a_run_that_is_killed_in_a_round_ends_with_the_same_bits(tmp_path, fedbn, train, steps):
    whole = train(fedbn, tmp_path / "whole")
    taken = []

    def on_step():
        taken.append(1)
        if len(taken) == steps:
            raise Died

    with pytest.raises(Died):
        train(fedbn, tmp_path / "run", on_step=on_step)
    assert not (tmp_path / "run" / "summary.json").exists()
    assert result(train(fedbn, tmp_path / "run")) == result(whole)


def test_a_round_that_is_done_again_starts_from_the_norms_before_it(tmp_path, fedbn, train):
    """The latest checkpoint is damaged: sites have norms of a round that the server asks again."""
    whole = train(fedbn, tmp_path / "whole")

    def on_round(record):
        if (str(record.stage), record.server_round) == ("finetuning", 1):
            raise Died

    with pytest.raises(Died):
        train(fedbn, tmp_path / "run", on_round=on_round)
    latest = tmp_path / "run" / "checkpoints" / "latest.safetensors"
    latest.write_bytes(latest.read_bytes()[:-5] + b"12345")
    assert result(train(fedbn, tmp_path / "run")) == result(whole)
