"""DP-SGD whose unit is a patient: what a step sums, whom it takes, and what its noise is."""

import math

import numpy as np
import pytest
import torch
from scipy import stats
from tests.conftest import blob_sample

from mamfed_common.model.malignancy_net import build_network
from mamfed_common.model.state_dict import state_of, state_sha256
from mamfed_common.plan import Stage
from mamfed_common.security.secret_noise import gaussian, uniform
from mamfed_common.training.batches import Batches, RoundContext
from mamfed_common.training.inference import load_network
from mamfed_common.training.objective import StepLoss
from mamfed_common.training.private import (
    Patient,
    PrivateRound,
    clipped_sum,
    fit_privately,
    patients_of,
)
from mamfed_common.training.round_checkpoint import RoundCheckpointer

CPU = torch.device("cpu")
SECRET = b"s" * 32
PATIENTS = (Patient((0, 1), ()), Patient((2,), (0,)), Patient((), (1,)))


def private(rate=1.0, clip=1.0, noise=0.0, secret=SECRET, patients=PATIENTS):
    return PrivateRound(patients, (rate,) * len(patients), clip, noise, secret)


def batches(plan, stage=Stage.FINETUNING):
    own = [blob_sample(seed) for seed in range(3)]
    beside = [blob_sample(seed, malignant=False) for seed in (7, 8)]
    return Batches(own, plan, stage, RoundContext("site", 1), beside)


def flat(tensors):
    return torch.cat([t.double().flatten() for t in tensors])


def loss_of(plan, stage=Stage.FINETUNING):
    network = build_network(plan.network, 0).train()
    return StepLoss(network, batches(plan, stage), CPU)


def test_all_images_of_a_patient_are_one_unit():
    assert patients_of(["a", "b", "a"], ["c", "b"]) == (
        Patient((0, 2), ()),
        Patient((1,), (1,)),
        Patient((), (0,)),
    )


def test_a_sum_is_that_of_each_patients_own_clipped_gradient(tiny_plan):
    loss, data, clip = loss_of(tiny_plan), batches(tiny_plan), 0.02
    every = flat(clipped_sum(loss, data, private(clip=clip), 0))
    expected = torch.zeros_like(every)
    for patient in range(len(PATIENTS)):
        loss.zero_grad()
        loss(private().batch(data, 0, patient)).backward()
        gradient = flat(
            [torch.zeros_like(p) if p.grad is None else p.grad for p in loss.trained.parameters()]
        )
        assert gradient.norm() > clip, "so that the clip matters"
        expected += gradient * clip / gradient.norm()
    torch.testing.assert_close(every, expected, rtol=1e-4, atol=1e-9)


@pytest.mark.parametrize("left_out", range(len(PATIENTS)))
def test_one_patient_moves_the_sum_by_the_clip_norm_at_most(tiny_plan, left_out):
    loss, data, clip = loss_of(tiny_plan), batches(tiny_plan), 0.02
    whole = private(clip=clip)
    rates = tuple(float(i != left_out) for i in range(len(PATIENTS)))
    without = whole._replace(rates=rates)
    moved = flat(clipped_sum(loss, data, whole, 0)) - flat(clipped_sum(loss, data, without, 0))
    assert moved.norm() <= clip
    assert moved.norm() > 0.99 * clip


def test_opacus_clips_each_example_as_this_does(tiny_plan):
    """Its own optimizer, given the gradients of single patients, sums to the same."""
    optimizers = pytest.importorskip("opacus.optimizers")
    loss, data, clip = loss_of(tiny_plan), batches(tiny_plan), 0.02
    ours = flat(clipped_sum(loss, data, private(clip=clip), 0))
    parameters = list(loss.trained.parameters())
    optimizer = optimizers.DPOptimizer(
        torch.optim.SGD(parameters, lr=1.0),
        noise_multiplier=0.0,
        max_grad_norm=clip,
        expected_batch_size=len(PATIENTS),
    )
    gradients = []
    for patient in range(len(PATIENTS)):
        one = torch.autograd.grad(
            loss(private().batch(data, 0, patient)), parameters, allow_unused=True
        )
        gradients.append(
            [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, one, strict=True)]
        )
    for parameter, samples in zip(parameters, zip(*gradients, strict=True), strict=True):
        parameter.grad_sample = torch.stack(samples)
    optimizer.clip_and_accumulate()
    theirs = flat([p.summed_grad for p in parameters])
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-7)


def test_a_gradient_that_is_not_finite_is_left_out(tiny_plan, monkeypatch):
    loss, data = loss_of(tiny_plan), batches(tiny_plan)
    forward = StepLoss.forward
    monkeypatch.setattr(
        StepLoss,
        "forward",
        lambda self, batch: forward(self, batch) * (math.nan if len(batch.inputs) == 2 else 1),
    )
    assert torch.isfinite(flat(clipped_sum(loss, data, private(), 0))).all()


def test_stage_1_leaves_the_head_alone(tiny_plan):
    state = state_of(build_network(tiny_plan.network, 0))
    network = load_network(state, tiny_plan, CPU)
    data = batches(tiny_plan, Stage.PRETRAINING)
    own = (Patient((0, 1), ()), Patient((2,), ()))
    result = fit_privately(network, data, private(noise=1.0, patients=own), device=CPU)
    assert torch.equal(result.state["subtraction.gain"], state["subtraction.gain"])
    assert not torch.equal(result.state["backbone.head.bias"], state["backbone.head.bias"])
    assert math.isnan(result.loss)


def test_each_patient_is_taken_with_the_stated_probability():
    many = tuple(Patient((i,), ()) for i in range(50))
    rounds = private(rate=0.1, patients=many)
    taken = [rounds.chosen(step) for step in range(2000)]
    counts = np.bincount([i for step in taken for i in step], minlength=50)
    assert stats.chisquare(counts).pvalue > 1e-3
    assert sum(map(len, taken)) / 2000 == pytest.approx(5, rel=0.03)
    assert any(not step for step in taken), "Poisson: a step may be empty"
    assert rounds.chosen(3) != private(rate=0.1, patients=many, secret=b"t" * 32).chosen(3)


def test_noise_is_normal_has_the_stated_width_and_never_repeats():
    noise = private(clip=0.5, noise=2.0)
    drawn = noise.noise(0, 0, torch.zeros(200, 500)).double().flatten().numpy()
    assert drawn.std() == pytest.approx(1.0, rel=0.01)
    assert stats.kstest(drawn, "norm").pvalue > 1e-3
    for step, number in ((1, 0), (0, 1)):
        other = noise.noise(step, number, torch.zeros(200, 500)).double().flatten().numpy()
        assert abs(np.corrcoef(drawn, other)[0, 1]) < 0.02


def test_a_secret_of_any_length_counts():
    assert not np.array_equal(gaussian(9, b"a" * 32), gaussian(9, b"a" * 31 + b"b"))
    assert 0 <= uniform(1000, b"").min() <= uniform(1000, b"").max() < 1


def test_a_round_cut_short_ends_with_the_same_bits(tiny_plan, tmp_path):
    plan = tiny_plan.changed(
        finetuning={**tiny_plan.finetuning.model_dump(), "local_epochs": None, "local_steps": 4}
    )
    start, settings = state_of(build_network(plan.network, 0)), private(rate=0.5, noise=1.0)

    class CutError(Exception):
        pass

    def train(folder, stop_after=None):
        network, steps = load_network(start, plan, CPU), []

        def on_step():
            steps.append(1)
            if len(steps) == stop_after:
                raise CutError

        keeper = RoundCheckpointer(tmp_path / folder, "a round", 0)
        result = fit_privately(
            network, batches(plan), settings, device=CPU, checkpointer=keeper, on_step=on_step
        )
        return result, len(steps)

    whole, count = train("whole")
    assert count == 4
    with pytest.raises(CutError):
        train("cut", stop_after=2)
    again, count = train("cut")
    assert count == 2
    assert state_sha256(again.state) == state_sha256(whole.state)
