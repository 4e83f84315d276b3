import ast
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.conftest import blob_sample

import mamfed_common
from mamfed_common.errors import PlanError, SetupError, WeightsError
from mamfed_common.model.malignancy_net import build_network
from mamfed_common.model.state_dict import state_of, state_sha256
from mamfed_common.plan import Stage
from mamfed_common.runtime.seeds import derive_seed, generator
from mamfed_common.training.batches import Batches, RoundContext
from mamfed_common.training.device import choose_device, choose_devices
from mamfed_common.training.inference import evaluate, load_network, predict, score_samples
from mamfed_common.training.stages import fit, learning_rate_factor, train

CPU = torch.device("cpu")
TURN = RoundContext("site", 1)
pretrain, finetune = (partial(train, stage) for stage in Stage)


def initial(plan):
    return state_of(build_network(plan.network, 0))


@pytest.mark.parametrize("stage", Stage)
def test_the_same_seed_gives_the_same_bits(tiny_plan, stage):
    samples = [blob_sample(seed) for seed in range(3)]
    runs = [
        train(stage, initial(tiny_plan), samples, tiny_plan, TURN, device=CPU) for _ in range(2)
    ]
    assert state_sha256(runs[0].state) == state_sha256(runs[1].state)
    other = train(stage, initial(tiny_plan), samples, tiny_plan.changed(seed=1), TURN, device=CPU)
    assert state_sha256(other.state) != state_sha256(runs[0].state)


@pytest.mark.parametrize("other", [RoundContext("site", 2), RoundContext("another", 1)])
def test_another_round_or_site_draws_other_batches(tiny_plan, other):
    plan = tiny_plan.changed(
        pretraining={**tiny_plan.pretraining.model_dump(), "rounds": 2},
    )
    samples = [blob_sample(seed) for seed in range(3)]
    one = pretrain(initial(plan), samples, plan, TURN, device=CPU)
    two = pretrain(initial(plan), samples, plan, other, device=CPU)
    assert state_sha256(one.state) != state_sha256(two.state)


def test_nothing_global_is_drawn_from(tiny_plan):
    samples = [blob_sample(seed) for seed in range(2)]
    first = finetune(initial(tiny_plan), samples, tiny_plan, TURN, device=CPU)
    torch.manual_seed(5)
    np.random.seed(5)  # noqa: NPY002 - the global state is what must not matter
    second = finetune(initial(tiny_plan), samples, tiny_plan, TURN, device=CPU)
    assert state_sha256(first.state) == state_sha256(second.state)


def test_the_network_in_training_draws_nothing_from_torch(tiny_plan):
    """So a round cut short needs no random state to go on (``local_state``)."""
    network = load_network(initial(tiny_plan), tiny_plan, CPU).train()
    before = torch.get_rng_state()
    network(torch.zeros(2, 1, 32, 32)).sum().backward()
    assert torch.equal(torch.get_rng_state(), before)


def test_the_weights_given_are_not_written_to(tiny_plan):
    state = initial(tiny_plan)
    before = state_sha256(state)
    pretrain(state, [blob_sample(0)], tiny_plan, TURN, device=CPU)
    assert state_sha256(state) == before


def test_pretraining_leaves_the_subtraction_layer_alone(tiny_plan):
    state = initial(tiny_plan)
    result = pretrain(state, [blob_sample(0)], tiny_plan, TURN, device=CPU)
    assert torch.equal(result.state["subtraction.gain"], state["subtraction.gain"])
    assert not torch.equal(result.state["backbone.head.bias"], state["backbone.head.bias"])


def longer(plan, **stages):
    return plan.changed(**stages)


def test_pretraining_learns_to_reconstruct(tiny_plan):
    plan = longer(
        tiny_plan,
        pretraining={"rounds": 1, "local_epochs": 40, "batch_size": 2, "learning_rate": 8e-3},
    )
    samples = [blob_sample(seed, malignant=False) for seed in range(4)]
    short = pretrain(initial(plan), samples, tiny_plan, TURN, device=CPU)
    long = pretrain(initial(plan), samples, plan, TURN, device=CPU)
    assert long.loss < 0.5 * short.loss


def test_finetuning_learns_to_find_what_is_malignant(tiny_plan):
    plan = longer(
        tiny_plan,
        finetuning={"rounds": 1, "local_epochs": 60, "batch_size": 2, "learning_rate": 5e-3},
    )
    samples = [blob_sample(seed) for seed in range(4)]
    result = finetune(initial(plan), samples, plan, TURN, device=CPU)
    scores = evaluate(result.state, [blob_sample(99)], plan, device=CPU)
    assert scores[0].dice > 0.8
    assert scores[0].image == "image-99"


def test_nothing_outside_the_breast_is_ever_malignant(tiny_plan):
    sample = blob_sample(0)._replace(breast_mask=np.zeros((32, 32), bool))
    network = load_network(initial(tiny_plan), tiny_plan, CPU)
    assert predict(network, [sample], tiny_plan, CPU)[0].malignancy.max() == 0


def test_steps_are_reported_one_by_one(tiny_plan):
    steps = []
    samples = [blob_sample(seed) for seed in range(5)]
    pretrain(
        initial(tiny_plan), samples, tiny_plan, TURN, device=CPU, on_step=lambda: steps.append(1)
    )
    assert len(steps) == 3


def test_bfloat16_runs_and_stays_close_to_float32(tiny_plan):
    half = tiny_plan.changed(precision="bfloat16")
    samples = [blob_sample(seed) for seed in range(2)]
    full = finetune(initial(tiny_plan), samples, tiny_plan, TURN, device=CPU)
    low = finetune(initial(tiny_plan), samples, half, TURN, device=CPU)
    assert low.loss == pytest.approx(full.loss, rel=0.05)
    assert low.state["backbone.head.weight"].dtype == torch.float32


def test_weights_of_another_network_are_refused(tiny_plan):
    state = initial(tiny_plan)
    state["backbone.head.bias"] = torch.zeros(3)
    with pytest.raises(WeightsError, match=r"backbone\.head\.bias"):
        pretrain(state, [blob_sample(0)], tiny_plan, TURN, device=CPU)


def test_the_loss_is_that_of_the_last_epoch_alone(tiny_plan):
    stages = {"batch_size": 2, "learning_rate": 1e-12, "rounds": 1}
    losses = []
    for epochs in (1, 3):
        plan = longer(tiny_plan, pretraining={**stages, "local_epochs": epochs})
        samples = [blob_sample(seed) for seed in range(3)]
        losses.append(pretrain(initial(plan), samples, plan, TURN, device=CPU).loss)
    assert losses[1] < 2 * losses[0]  # three epochs added up would be three times as much


def test_the_learning_rate_warms_up_peaks_and_falls():
    factors = [learning_rate_factor(progress) for progress in (0, 0.05, 0.1, 0.55, 1)]
    assert factors == pytest.approx([0.01, 0.5, 1, 0.5, 0.001])


def test_the_first_step_of_a_stage_is_as_small_as_the_warm_up_says(tiny_plan):
    """AdamW's first step moves each weight by about the learning rate: here 1 % of the peak."""
    state = initial(tiny_plan)
    trained = pretrain(state, [blob_sample(0)], tiny_plan, TURN, device=CPU).state
    furthest = max(float((trained[name] - state[name]).abs().max()) for name in state)
    peak = tiny_plan.pretraining.learning_rate
    assert furthest == pytest.approx(0.01 * peak, rel=0.05)


class Recording(list):
    """Samples that note which of them is read."""

    def __init__(self, samples):
        super().__init__(samples)
        self.read = []

    def __getitem__(self, index):
        self.read.append(index)
        return super().__getitem__(index)


BENIGN = [blob_sample(seed, malignant=False) for seed in range(50, 53)]


def test_benign_images_beside_malignant_ones_keep_being_reconstructed(tiny_plan):
    stage = {"rounds": 1, "local_epochs": 40, "batch_size": 2, "learning_rate": 5e-3}
    plan = longer(tiny_plan, finetuning=stage)
    errors = []
    for weight in (0.0, 2.0):
        asked = plan.changed(losses={"benign": weight})
        start, samples = initial(plan), [blob_sample(seed) for seed in range(4)]
        state = finetune(start, samples, asked, TURN, device=CPU, benign=BENIGN).state
        network = load_network(state, plan, CPU)
        sample = blob_sample(60, malignant=False)
        drawn = predict(network, [sample], plan, CPU)[0].reconstruction
        errors.append(float(np.square(drawn - sample.image / 65535).mean()))
    assert errors[1] < 0.5 * errors[0]


def test_benign_images_change_nothing_where_the_plan_gives_them_no_weight(tiny_plan):
    plan = tiny_plan.changed(losses={"benign": 0.0})
    states = [
        finetune(initial(plan), [blob_sample(0)], plan, TURN, device=CPU, benign=benign).state
        for benign in ([], BENIGN)
    ]
    assert state_sha256(states[0]) == state_sha256(states[1])


def test_the_direct_head_has_no_reconstruction_to_keep(tiny_plan):
    network = {**tiny_plan.network.model_dump(), "head": "direct"}
    plan = tiny_plan.changed(network=network)
    states = [
        finetune(initial(plan), [blob_sample(0)], plan, TURN, device=CPU, benign=benign).state
        for benign in ([], BENIGN)
    ]
    assert state_sha256(states[0]) == state_sha256(states[1])


def direct(plan):
    return plan.changed(network={**plan.network.model_dump(), "head": "direct"})


@pytest.mark.parametrize("head_of", [direct, lambda plan: plan], ids=["direct", "subtraction"])
def test_an_empty_target_makes_the_network_quiet_on_benign_images(tiny_plan, head_of):
    stage = {"rounds": 1, "local_steps": 40, "learning_rate": 5e-3, "benign_only_sites": True}
    means = []
    for losses in ({"benign": 0.5}, {"benign": 0.5, "empty": 1.0}):
        plan = head_of(longer(tiny_plan, finetuning=stage)).changed(losses=losses)
        samples = [blob_sample(seed) for seed in range(4)]
        state = finetune(initial(plan), samples, plan, TURN, device=CPU, benign=BENIGN).state
        network = load_network(state, plan, CPU)
        sample = blob_sample(60, malignant=False)
        means.append(float(predict(network, [sample], plan, CPU)[0].malignancy.mean()))
    assert means[1] < 0.85 * means[0]


@pytest.mark.parametrize(
    "losses", [{}, {"empty": 1.0}, {"benign": 0, "empty": 1.0}], ids=["redrawn", "both", "empty"]
)
def test_a_site_without_malignant_images_learns_from_benign_ones_alone(tiny_plan, losses):
    stage = {"rounds": 1, "local_steps": 30, "learning_rate": 5e-3, "benign_only_sites": True}
    plan = longer(tiny_plan, finetuning=stage).changed(losses=losses)
    start, taken = initial(plan), []
    result = finetune(
        start, [], plan, TURN, device=CPU, benign=BENIGN, on_step=lambda: taken.append(1)
    )
    assert len(taken) == 30
    assert result.num_examples == {"benign": 3}
    once = plan.changed(finetuning={**stage, "local_steps": 1, "learning_rate": 1e-12})
    first = finetune(start, [], once, TURN, device=CPU, benign=BENIGN).loss
    assert result.loss < 0.9 * first


def test_the_loss_of_a_round_in_steps_is_the_mean_over_all_of_them(tiny_plan):
    """With steps too small to move anything: two rounds of two steps, or one of four."""

    def loss(steps, server_round):
        stage = {"rounds": 4 // steps, "local_steps": steps, "learning_rate": 1e-12}
        plan, samples = longer(tiny_plan, finetuning=stage), [blob_sample(s) for s in range(3)]
        round_context = RoundContext("site", server_round)
        return finetune(initial(plan), samples, plan, round_context, device=CPU).loss

    losses = [loss(2, 1), loss(2, 2), loss(4, 1)]
    assert (losses[0] + losses[1]) / 2 == pytest.approx(losses[2], rel=1e-6)
    assert losses[0] != losses[1]


def test_half_as_many_benign_images_each_in_its_turn(tiny_plan):
    benign = Recording(BENIGN)
    plan = longer(tiny_plan, finetuning={"rounds": 1, "batch_size": 4, "learning_rate": 1e-3})
    samples = [blob_sample(seed) for seed in range(12)]
    batches = Batches(samples, plan, Stage.FINETUNING, TURN, benign)
    assert [len(batch.benign) for batch in batches.epoch(0)] == [2, 2, 2]
    assert sorted(benign.read) == [0, 0, 1, 1, 2, 2]
    (last,) = list(batches.epoch(0, first_step=2))
    torch.testing.assert_close(last.benign, list(batches.epoch(0))[2].benign)
    pretraining = Batches(samples, plan, Stage.PRETRAINING, TURN, benign)
    assert next(pretraining.epoch(0)).benign is None


def test_every_round_and_epoch_has_an_order_of_its_own(tiny_plan):
    samples = Recording(blob_sample(seed) for seed in range(12))
    orders = set()
    for server_round in (1, 2):
        batches = Batches(samples, tiny_plan, Stage.PRETRAINING, RoundContext("site", server_round))
        for epoch in (0, 1):
            samples.read.clear()
            sizes = [len(batch.inputs) for batch in batches.epoch(epoch)]
            assert sizes == [2] * 6
            assert sorted(samples.read) == list(range(12))
            orders.add(tuple(samples.read))
    assert len(orders) == 4


def test_each_epoch_is_told_when_it_is_over(tiny_plan):
    plan = longer(tiny_plan, finetuning={"rounds": 1, "local_epochs": 3, "learning_rate": 1e-3})
    network = load_network(initial(plan), plan, CPU)
    batches = Batches([blob_sample(0)], plan, Stage.FINETUNING, TURN)
    told, scores = [], []

    def on_epoch(epoch):
        told.append((epoch, state_sha256(state_of(network))))
        scores.extend(score_samples(network, [blob_sample(1)], plan, device=CPU))

    fit(network, batches, device=CPU, on_epoch=on_epoch)
    assert [epoch for epoch, _ in told] == [0, 1, 2]
    assert len({weights for _, weights in told}) == 3
    assert network.training
    assert [score.image for score in scores] == ["image-1"] * 3
    quiet = load_network(initial(plan), plan, CPU)
    fit(quiet, batches, device=CPU)
    assert state_sha256(state_of(quiet)) == told[-1][1], "looking at it must not change it"


def test_fedprox_keeps_weights_near_those_the_round_started_from(tiny_plan):
    def moved(proximal_mu):
        plan = longer(
            tiny_plan, finetuning={"rounds": 1, "local_epochs": 8, "learning_rate": 1e-2}
        ).changed(federation={"proximal_mu": proximal_mu})
        start = initial(plan)
        trained = finetune(start, [blob_sample(0)], plan, TURN, device=CPU).state
        return sum(float((trained[n] - start[n]).square().sum()) for n in start) ** 0.5

    free, held, tight = (moved(mu) for mu in (0.0, 1.0, 100.0))
    assert tight < held < free


def test_fedprox_holds_stage_1_too_where_the_head_has_no_gradient(tiny_plan):
    def moved(proximal_mu):
        plan = longer(
            tiny_plan, pretraining={"rounds": 1, "local_epochs": 8, "learning_rate": 1e-2}
        ).changed(federation={"proximal_mu": proximal_mu})
        start = initial(plan)
        trained = pretrain(start, [blob_sample(0)], plan, TURN, device=CPU).state
        return sum(float((trained[n] - start[n]).square().sum()) for n in start) ** 0.5

    assert moved(100.0) < moved(0.0)


def test_the_first_step_of_fedprox_is_that_of_fedavg(tiny_plan):
    """At its starting weights the pull has no gradient."""
    held = tiny_plan.changed(federation={"proximal_mu": 10.0})
    states = [
        finetune(initial(p), [blob_sample(0)], p, TURN, device=CPU).state for p in (tiny_plan, held)
    ]
    assert state_sha256(states[0]) == state_sha256(states[1])


def test_gradients_are_clipped(tiny_plan, monkeypatch):
    norms = []
    clip = torch.nn.utils.clip_grad_norm_

    def spy(parameters, limit):
        norm = clip(parameters, limit)
        norms.append((float(norm), limit))
        return norm

    monkeypatch.setattr("torch.nn.utils.clip_grad_norm_", spy)
    finetune(initial(tiny_plan), [blob_sample(0)], tiny_plan, TURN, device=CPU)
    assert [limit for _, limit in norms] == [1.0]


def test_an_unknown_device_is_one_clear_line():
    with pytest.raises(PlanError, match="'tpu9'"):
        choose_device("tpu9")


def test_devices_that_are_not_there_are_one_clear_line(monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    assert choose_devices("cpu") == choose_devices("cpu", "auto") == [CPU]
    assert choose_devices("cpu", 2) == [CPU, CPU]
    with pytest.raises(
        SetupError, match=r"devices: 3 requested, but this machine has 2 'cpu' devices"
    ):
        choose_devices("cpu", 3)


@pytest.mark.parametrize("stage", Stage)
def test_activations_are_computed_again_where_asked_with_the_same_bits(tiny_plan, stage):
    results, saved = [], []

    def note(tensor):
        saved[-1] += tensor.numel()
        return tensor

    for lighter in (False, True):
        saved.append(0)
        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            result = train(
                stage,
                initial(tiny_plan),
                [blob_sample(seed) for seed in range(3)],
                tiny_plan,
                TURN,
                device=CPU,
                benign=BENIGN,
                activation_checkpointing=lighter,
            )
        results.append((state_sha256(result.state), result.loss))
    assert results[0] == results[1]
    assert saved[1] < 0.6 * saved[0]


def test_named_seeds_differ_by_name_and_not_by_process():
    assert derive_seed(0, "order", "a", 1) == 3856891093769781751
    assert derive_seed(0, "ab", "c") != derive_seed(0, "a", "bc")
    assert generator(1, "x").integers(1000) == generator(1, "x").integers(1000)


FLOWER_MODULES = ("messages.py", "flower_bundle.py", "flower_compat.py")


def test_the_science_never_imports_flower():
    """Only the wire and the bundle may; import-linter holds the same for indirect imports."""
    for path in Path(mamfed_common.__file__).parent.rglob("*.py"):
        tree = ast.parse(path.read_text())
        names = [
            name
            for node in ast.walk(tree)
            if isinstance(node, ast.Import | ast.ImportFrom)
            for name in [getattr(node, "module", None) or "", *(a.name for a in node.names)]
        ]
        may = path.parent.name == "protocol" and path.name in FLOWER_MODULES
        assert may or not any(name.startswith("flwr") for name in names)
