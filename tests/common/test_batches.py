import numpy as np
import pytest
import torch
from tests.conftest import blob_sample

from mamfed_common.batches import Batches, Share, Turn, makers, to_tensor
from mamfed_common.errors import DataError
from mamfed_common.plan import Stage, StagePlan

TURN = Turn("site", 1)
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
        list(Batches(SAMPLES, plan, stage, TURN, BENIGN, Share(rank, of)).epoch(0))
        for rank in range(of)
    ]
    assert [len(batch.inputs) for batch in whole] == [4, 2]
    for batch, shares in zip(whole, zip(*ranks, strict=True), strict=True):
        assert torch.equal(batch.inputs, interleaved([share.inputs for share in shares]))
        assert torch.equal(batch.targets, interleaved([share.targets for share in shares]))
        if stage is Stage.FINETUNING:
            assert torch.equal(batch.benign, interleaved([share.benign for share in shares]))
        assert {share[3:] for share in shares} == {batch[3:]}


def test_a_batch_says_how_many_images_all_shares_have(plan):
    batches = Batches(SAMPLES, plan, Stage.FINETUNING, TURN, BENIGN, Share(1, 2))
    assert [(b.of_images, b.of_benign) for b in batches.epoch(0)] == [(4, 2), (2, 2)]
    (first, last) = Batches(SAMPLES, plan, Stage.PRETRAINING, TURN, BENIGN).epoch(0)
    assert [(b.of_images, b.of_benign) for b in (first, last)] == [(4, 0), (2, 0)]


def test_a_share_of_a_small_batch_may_be_empty(plan):
    last = list(Batches(SAMPLES, plan, Stage.FINETUNING, TURN, BENIGN, Share(2, 3)).epoch(0))[-1]
    assert last.inputs.shape == last.targets.shape == last.benign.shape == (0, 1, 32, 32)
    assert (last.of_images, last.of_benign) == (2, 2)


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
        batches = Batches(samples, plan, Stage.PRETRAINING, TURN, share=Share(rank, 2))
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


def test_one_thread_makes_batches_beside_a_cpus_step_and_a_few_beside_a_gpus():
    torch.set_num_threads(2)
    assert makers(torch.device("cpu")) == 1
    assert makers(torch.device("cuda")) == 2


def test_greys_and_masks_become_floats_from_0_to_1():
    greys = np.array([[0, 13107], [65535, 32768]], np.uint16)
    mask = np.array([[True, False], [False, True]])
    tensor = to_tensor([greys[::-1], mask])
    assert tensor.shape == (2, 1, 2, 2)
    assert tensor.dtype == torch.float32
    expected = [[[1, 32768 / 65535], [0, 0.2]], [[1, 0], [0, 1]]]
    torch.testing.assert_close(tensor[:, 0], torch.tensor(expected))
