import numpy as np
import pytest
import torch
from tests.conftest import blob_sample

from mamfed_common.errors import DataError
from mamfed_common.plan import Stage, StagePlan
from mamfed_common.training.batches import (
    Batches,
    BatchShard,
    RoundContext,
    loader_threads,
    to_tensor,
)

TURN = RoundContext("site", 1)
SAMPLES = [blob_sample(seed) for seed in range(6)]
BENIGN = [blob_sample(seed, malignant=False) for seed in range(20, 23)]


@pytest.fixture
def plan(tiny_plan):
    """Six images, four a step: the last batch has two."""
    stage = StagePlan(rounds=1, local_epochs=1, batch_size=4, learning_rate=1e-3).model_dump()
    return tiny_plan.changed(pretraining=stage, finetuning=stage)


def interleaved(shares):
    """Put shares back to where they stood: rank 0's first, rank 1's first, rank 0's second..."""
    count = sum(len(share) for share in shares)
    return torch.stack([shares[i % len(shares)][i // len(shares)] for i in range(count)])


@pytest.mark.parametrize("stage", Stage)
@pytest.mark.parametrize("of", [2, 3])
def test_the_shares_of_a_batch_make_the_batch_of_one_process(plan, stage, of):
    whole = list(Batches(SAMPLES, plan, stage, TURN, BENIGN).epoch(0))
    ranks = [
        list(Batches(SAMPLES, plan, stage, TURN, BENIGN, BatchShard(rank, of)).epoch(0))
        for rank in range(of)
    ]
    assert [len(batch.inputs) for batch in whole] == [4, 2]
    for batch, shares in zip(whole, zip(*ranks, strict=True), strict=True):
        assert torch.equal(batch.inputs, interleaved([share.inputs for share in shares]))
        assert torch.equal(batch.targets, interleaved([share.targets for share in shares]))
        if stage is Stage.FINETUNING:
            assert torch.equal(batch.benign, interleaved([share.benign for share in shares]))
        assert {share[4:] for share in shares} == {batch[4:]}


def test_a_batch_says_how_many_images_all_shares_have(plan):
    batches = Batches(SAMPLES, plan, Stage.FINETUNING, TURN, BENIGN, BatchShard(1, 2))
    assert [(b.total_images, b.total_benign) for b in batches.epoch(0)] == [(4, 2), (2, 2)]
    (first, last) = Batches(SAMPLES, plan, Stage.PRETRAINING, TURN, BENIGN).epoch(0)
    assert [(b.total_images, b.total_benign) for b in (first, last)] == [(4, 0), (2, 0)]


def test_what_a_round_will_use_is_known_before_it_begins(plan):
    own, beside = Recording(SAMPLES), Recording(BENIGN)
    for local in (
        {"local_epochs": 1, "local_steps": None},
        {"local_epochs": None, "local_steps": 2},
    ):
        part = {**plan.finetuning.model_dump(), **local, "batch_size": 1}
        batches = Batches(own, plan.changed(finetuning=part), Stage.FINETUNING, TURN, beside)
        drawn = batches.drawn()
        assert own.read == beside.read == []
        list(batches.epoch(0))
        assert drawn == (set(own.read), set(beside.read))
        own.read.clear()
        beside.read.clear()


def test_a_share_of_a_small_batch_may_be_empty(plan):
    last = list(Batches(SAMPLES, plan, Stage.FINETUNING, TURN, BENIGN, BatchShard(2, 3)).epoch(0))[
        -1
    ]
    assert last.inputs.shape == last.targets.shape == last.benign.shape == (0, 1, 32, 32)
    assert (last.total_images, last.total_benign) == (2, 2)


class Recording(list):
    """Samples that remember which of them were read, in order."""

    def __init__(self, samples):
        super().__init__(samples)
        self.read = []

    def __getitem__(self, index):
        self.read.append(index)
        return super().__getitem__(index)


def test_a_share_reads_no_image_of_another(plan):
    samples = Recording(SAMPLES)
    for rank in (0, 1):
        batches = Batches(samples, plan, Stage.PRETRAINING, TURN, share=BatchShard(rank, 2))
        assert sum(len(batch.inputs) for batch in batches.epoch(0)) == 3
    assert sorted(samples.read) == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("stage", Stage)
def test_however_many_threads_make_them_batches_have_the_same_bits(plan, stage):
    batches = Batches(SAMPLES, plan, stage, TURN, BENIGN)
    ways = [list(batches.epoch(1, threads=threads)) for threads in (1, 2, 4)]
    for one, *others in zip(*ways, strict=True):
        for other in others:
            assert torch.equal(one.inputs, other.inputs)
            assert torch.equal(one.targets, other.targets)
            assert stage is Stage.PRETRAINING or torch.equal(one.benign, other.benign)


def test_a_sample_that_cannot_be_read_stops_the_epoch_with_its_own_error(plan):
    class Damaged(list):
        def __getitem__(self, index):
            if index == 0:
                raise DataError("sample 0 is damaged")
            return super().__getitem__(index)

    with pytest.raises(DataError, match="sample 0 is damaged"):
        list(Batches(Damaged(SAMPLES), plan, Stage.PRETRAINING, TURN).epoch(0, threads=2))


def in_steps(plan, steps, rounds=6, **more):
    """Return the plan with rounds of so many steps, four images each."""
    stage = {"rounds": rounds, "local_steps": steps, "batch_size": 4, "learning_rate": 1e-3, **more}
    return plan.changed(pretraining=stage, finetuning=stage, losses={"empty": 1})


def same(one, other):
    """Tell whether two batches have the same bits."""
    pairs = zip(one, other, strict=True)
    return all(torch.equal(a, b) if torch.is_tensor(a) else a == b for a, b in pairs)


@pytest.mark.parametrize("stage", Stage)
def test_images_run_on_from_round_to_round(plan, stage):
    """Three rounds of two steps have the batches of two rounds of three, or of one of six."""
    ways = [
        [
            batch
            for server_round in range(1, 6 // steps + 1)
            for batch in Batches(
                SAMPLES, in_steps(plan, steps), stage, RoundContext("site", server_round), BENIGN
            ).epoch(0)
        ]
        for steps in (2, 3, 6)
    ]
    assert [len(way) for way in ways] == [6, 6, 6]
    for one, *others in zip(*ways, strict=True):
        assert all(same(one, other) for other in others)


def test_every_batch_of_a_round_in_steps_is_full_and_each_image_comes_once_a_lap(plan):
    samples, benign = Recording(SAMPLES), Recording(BENIGN)
    steps = in_steps(plan, 6)
    batches = list(Batches(samples, steps, Stage.FINETUNING, TURN, benign).epoch(0))
    assert {(len(b.inputs), len(b.benign), b.total_images, b.total_benign) for b in batches} == {
        (4, 2, 4, 2)
    }
    laps = [tuple(samples.read[i : i + 6]) for i in range(0, 24, 6)]
    assert all(sorted(lap) == [0, 1, 2, 3, 4, 5] for lap in laps)
    assert len(set(laps)) == 4
    beside = [tuple(benign.read[i : i + 3]) for i in range(0, 12, 3)]
    assert all(sorted(lap) == [0, 1, 2] for lap in beside)
    assert len(set(beside)) > 1


def test_a_site_of_one_image_sees_it_moved_anew_each_time(plan):
    (batch,) = Batches(SAMPLES[:1], in_steps(plan, 1), Stage.FINETUNING, TURN).epoch(0)
    assert len(batch.inputs) == 4
    assert len({image.numpy().tobytes() for image in batch.inputs}) == 4


def test_sites_and_stages_have_orders_of_their_own_in_steps(plan):
    found = set()
    for stage in Stage:
        for site in ("site", "other"):
            samples = Recording(SAMPLES)
            list(Batches(samples, in_steps(plan, 6), stage, RoundContext(site, 1)).epoch(0))
            found.add(tuple(samples.read))
    assert len(found) == 4


def test_a_round_in_steps_goes_on_at_any_step(plan):
    batches = Batches(SAMPLES, in_steps(plan, 6), Stage.FINETUNING, RoundContext("site", 2), BENIGN)
    whole = list(batches.epoch(0))
    assert all(map(same, whole[4:], batches.epoch(0, first_step=4)))


def test_progress_runs_through_all_rounds_in_steps(plan):
    rounds = [
        Batches(SAMPLES, in_steps(plan, 4, 2), Stage.FINETUNING, RoundContext("s", r))
        for r in (1, 2)
    ]
    found = [batches.progress(0, step) for batches in rounds for step in range(4)]
    assert found == [step / 8 for step in range(8)]


@pytest.mark.parametrize("given", [{"local_epochs": 2}, {"local_steps": 4}])
def test_a_site_without_malignant_images_has_half_batches_of_those_beside(plan, given):
    stage = {"rounds": 1, "batch_size": 4, "learning_rate": 1e-3, "benign_only_sites": True}
    asked = plan.changed(finetuning={**stage, **given}, losses={"empty": 1})
    benign = Recording(BENIGN)
    batches = Batches([], asked, Stage.FINETUNING, TURN, benign)
    found = [batch for epoch in range(batches.epochs) for batch in batches.epoch(epoch)]
    assert len(found) == asked.steps(Stage.FINETUNING, batches.num_examples) == 4
    assert {(len(b.inputs), len(b.benign), b.total_images, b.weight) for b in found} == {
        (0, 2, 0, 2)
    }
    assert sum(b.weight for b in found) == batches.weight_per_epoch * batches.epochs
    assert set(benign.read) == {0, 1, 2}
    assert batches.num_examples == {"benign": 3}


def test_the_breast_of_a_benign_image_moves_with_it(plan):
    asked = plan.changed(losses={"empty": 1})
    for batch in Batches(SAMPLES, asked, Stage.FINETUNING, TURN, BENIGN).epoch(0):
        assert set(batch.benign_breast_mask.unique().tolist()) == {0.0, 1.0}
        assert not batch.benign[batch.benign_breast_mask == 0].any()
        assert (batch.benign[batch.benign_breast_mask == 1] > 0).float().mean() > 0.9
    (first, _) = Batches(SAMPLES, plan, Stage.FINETUNING, TURN, BENIGN).epoch(0)
    assert first.benign_breast_mask is None, "nobody looks at it"


def test_one_thread_makes_batches_beside_a_cpus_step_and_a_few_beside_a_gpus():
    torch.set_num_threads(2)
    assert loader_threads(torch.device("cpu")) == 1
    assert loader_threads(torch.device("cuda")) == 2


def test_greys_and_masks_become_floats_from_0_to_1():
    greys = np.array([[0, 13107], [65535, 32768]], np.uint16)
    mask = np.array([[True, False], [False, True]])
    tensor = to_tensor([greys[::-1], mask])
    assert tensor.shape == (2, 1, 2, 2)
    assert tensor.dtype == torch.float32
    expected = [[[1, 32768 / 65535], [0, 0.2]], [[1, 0], [0, 1]]]
    torch.testing.assert_close(tensor[:, 0], torch.tensor(expected))
