"""What one phantom site sends under each protection, and how well it can be told whom it saw."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from scipy.stats import mannwhitneyu, norm
from tests.security.lib.inversion import Likeness, invert, likeness, ssim
from tests.security.lib.phantom_patients import intensities, small_plan
from torch import Tensor

from mamfed_client.disclosure.privacy import protect, update_norm
from mamfed_client.disclosure.privacy_ledger import Charge, epsilon
from mamfed_client.site.policy import Privacy
from mamfed_common.metrics.scores import summarise
from mamfed_common.model.malignancy_net import build_network
from mamfed_common.model.state_dict import State, state_of
from mamfed_common.plan import FinetuningPlan, Stage, StagePlan, TrainingPlan
from mamfed_common.training.batches import Batch, Batches, RoundContext
from mamfed_common.training.inference import evaluate, load_network
from mamfed_common.training.objective import StepLoss
from mamfed_common.training.private import Patient, PrivateRound, fit_privately
from mamfed_common.training.stages import train
from mamfed_common.transforms.sample import Sample

CPU = torch.device("cpu")
SITE = RoundContext("site", 1)
CLIP_NORM, DELTA = 1.0, 1e-5


class Site(NamedTuple):
    """A site's round.

    Attributes:
        start: The weights that it starts from.
        patients: Its patients, of one image each.
        steps: Its steps.
        batch: Images of a step, or expected patients.
        noise: Noise multiplier of DP-SGD.
    """

    start: State
    patients: Sequence[Sample]
    steps: int = 1
    batch: int = 1
    noise: float = 1.0

    def plan(self) -> TrainingPlan:
        """Return the plan of the round."""
        return plan_of(self.steps, self.batch)


def plan_of(steps: int, batch: int) -> TrainingPlan:
    """Return a plan whose only round of stage 2 has that many steps."""
    stage = FinetuningPlan(rounds=1, local_steps=steps, batch_size=batch, learning_rate=2e-3)
    return small_plan(finetuning=stage)


def public_model(others: Sequence[Sample], steps: int) -> State:
    """Return weights that other patients' images trained, as those of a run's middle."""
    first = StagePlan(rounds=1, local_steps=steps, batch_size=4, learning_rate=4e-3)
    plan = small_plan(pretraining=first)
    state = state_of(build_network(plan.network, 0))
    pretrained = train(Stage.PRETRAINING, state, others, plan, SITE, device=CPU).state
    return unprotected(Site(pretrained, others, steps, 4))


def unprotected(site: Site) -> State:
    """Return the weights of a site with the default policy."""
    plan = site.plan()
    return train(Stage.FINETUNING, site.start, site.patients, plan, SITE, device=CPU).state


def clipped_and_noised(site: Site) -> State:
    """Return them clipped to their own length, with noise that is just as long."""
    state = unprotected(site)
    length = update_norm(state, site.start)
    count = sum(tensor.numel() for tensor in state.values())
    rule = Privacy(clip_norm=length, noise_multiplier=1 / math.sqrt(count))
    return protect(state, site.start, rule, b"n" * 32)


def private(site: Site) -> State:
    """Return the weights of DP-SGD over the patients."""
    plan, count = site.plan(), len(site.patients)
    network = load_network(site.start, plan, CPU)
    patients = tuple(Patient((i,), ()) for i in range(count))
    rates = (min(1.0, site.batch / count),) * count
    settings = PrivateRound(patients, rates, CLIP_NORM, site.noise, b"p" * 32)
    batches = Batches(site.patients, plan, Stage.FINETUNING, SITE)
    return fit_privately(network, batches, settings, device=CPU).state


def epsilon_of(site: Site) -> float:
    """Return what :func:`private` spends."""
    rate = min(1.0, site.batch / len(site.patients))
    charge = Charge(noise_multiplier=site.noise, sample_rate=rate, steps=site.steps)
    return epsilon((charge,), DELTA)


def largest_area(site: Site) -> float:
    """Return the area under the curve that no attack on :func:`private` exceeds.

    Subsampled Gaussian steps come to one Gaussian mechanism of this mu in the limit of many (Dong,
    Roth and Su 2019, arXiv:1905.02383, corollary 5.4).
    """
    rate = min(1.0, site.batch / len(site.patients))
    mu = rate * math.sqrt(site.steps * math.expm1(site.noise**-2))
    return float(norm.cdf(mu / math.sqrt(2)))


Protection = Callable[[Site], State]


class Recovered(NamedTuple):
    """The best reconstruction, and how like the patient the mean of other patients is anyway."""

    found: Likeness
    mean_ssim: float
    mean_psnr: float

    @property
    def gain(self) -> float:
        """Return the structural similarity beyond that of the mean image."""
        return self.found.ssim - self.mean_ssim


def attack(site: Site, sent: State, pool: Sequence[Sample], mean: Tensor, steps: int) -> Recovered:
    """Invert an update; judge the result by the patient of the site that it is most like."""
    observed = [site.start[name] - sent[name] for name in site.start]
    gradient_of = _gradient_of(site.start, site.patients[0])
    found = invert(gradient_of, observed, mean, signs=True, steps=steps).image
    candidates = torch.from_numpy(intensities(pool))[:, None]
    results = []
    own = {one.name for one in site.patients}
    for truth in (i for i, one in enumerate(pool) if one.name in own):
        true = candidates[truth : truth + 1]
        baseline = likeness(mean, truth, candidates).psnr
        results.append(Recovered(likeness(found, truth, candidates), ssim(mean, true), baseline))
    return max(results, key=lambda result: result.gain)


def losses(state: State, samples: Sequence[Sample]) -> np.ndarray:
    """Return the loss of each patient."""
    plan = plan_of(1, 1)
    network = load_network(state, plan, CPU)
    loss = StepLoss(network, Batches(samples, plan, Stage.FINETUNING, SITE), CPU)
    with torch.no_grad():
        return np.array([float(loss(_batch(one, _tensor(one.image)))) for one in samples])


def membership(site: Site, sent: State, strangers: Sequence[Sample]) -> float:
    """Return how well training patients can be told from strangers: the area under the curve.

    The attacker takes the better of two scores: the loss, and how far the round lowered it.
    """
    inside, outside = losses(sent, site.patients), losses(sent, strangers)
    before = losses(site.start, site.patients), losses(site.start, strangers)
    lowered = area(before[0] - inside, before[1] - outside)
    return max(area(-inside, -outside), lowered)


def area(inside: np.ndarray, outside: np.ndarray) -> float:
    """Return the probability that a member's score is above a stranger's."""
    statistic = mannwhitneyu(inside, outside).statistic
    return float(statistic) / (len(inside) * len(outside))


def dice(state: State, samples: Sequence[Sample]) -> float:
    """Return the mean Dice of some patients at threshold 0.5."""
    value = summarise(evaluate(state, samples, plan_of(1, 1), device=CPU)).dice
    assert value is not None
    return value


def _gradient_of(state: State, sample: Sample) -> Callable[[Tensor], list[Tensor]]:
    """Return the differentiable gradient of an image whose mask is known."""
    plan = plan_of(1, 1)
    network = load_network(state, plan, CPU).train()
    loss = StepLoss(network, Batches([sample], plan, Stage.FINETUNING, SITE), CPU)
    parameters = dict(network.named_parameters())

    def gradient(image: Tensor) -> list[Tensor]:
        value = loss(_batch(sample, image))
        return list(torch.autograd.grad(value, [parameters[n] for n in state], create_graph=True))

    return gradient


def _batch(sample: Sample, image: Tensor) -> Batch:
    return Batch(image, _tensor(sample.mask), None, None, 1, 0)


def _tensor(plane: np.ndarray) -> Tensor:
    full = 1 if plane.dtype == bool else 65535
    return torch.from_numpy(plane.astype(np.float32) / full)[None, None]
