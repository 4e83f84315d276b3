"""What a policy allows, and which plans it refuses and why."""

from datetime import datetime
from statistics import NormalDist

import numpy as np
import pytest
import torch
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import ValidationError

from mamfed_client.disclosure.plan_admission import (
    PlanStatus,
    PolicyRefusal,
    check_bounds,
    check_plan,
    plan_status,
)
from mamfed_client.disclosure.plan_store import Decision
from mamfed_client.disclosure.privacy import clip, gaussian, protect, read_secret, update_norm
from mamfed_client.site.policy import Bounds, Policy, missing_for_training
from mamfed_common.errors import SetupError, WeightsError
from mamfed_common.model.config import NetworkConfig
from mamfed_common.model.malignancy_net import build_network
from mamfed_common.model.state_dict import state_of
from mamfed_common.protocol.tasks import REFUSAL_CODES, RefusalCode
from mamfed_common.security.keys import openssh_text
from mamfed_common.security.signing import sign_plan

KEY = Ed25519PrivateKey.generate()
NOON = datetime(2026, 3, 1, 12)
OPEN = Policy.model_validate(
    {
        "plans": {"approval": "within-bounds"},
        "release": {"arrays": ["*"], "metrics": ["counts", "num_examples"]},
    }
)


def refusal(policy, plan, *, signature=None, keys=None, decisions=None, now=NOON):
    signature = sign_plan(KEY, plan) if signature is None else signature
    keys = [KEY.public_key()] if keys is None else keys
    try:
        check_plan(policy, plan, signature, keys, decisions or {}, now)
    except PolicyRefusal as refused:
        return refused.fault
    return None


def with_bounds(**bounds):
    return OPEN.model_copy(update={"bounds": Bounds(**bounds)})


def test_nothing_may_leave_unless_it_is_allowed(tiny_plan):
    policy = Policy()
    assert policy.release.withheld(["backbone.a", "b"]) == ["backbone.a", "b"]
    assert policy.release.metrics == ()
    assert refusal(policy, tiny_plan) is RefusalCode.PLAN_NOT_APPROVED
    missing = missing_for_training(policy, tiny_plan)
    assert len(missing) == 3
    assert "'counts'" in missing[0]
    assert "'num_examples'" in missing[1]
    assert "policy.release.arrays" in missing[2]
    assert missing_for_training(OPEN, tiny_plan) == []


def test_one_array_outside_the_patterns_is_named(tiny_plan):
    release = OPEN.release.model_copy(update={"arrays": ("backbone.*",)})
    (sentence,) = missing_for_training(OPEN.model_copy(update={"release": release}), tiny_plan)
    assert "'subtraction." in sentence


@pytest.mark.parametrize(
    "values",
    [
        {"unknown": 1},
        {"release": {"metrics": ["patient_name"]}},
        {"plans": {"allowed": ["abc"]}},
        {"plans": {"approval": "always"}},
        {"bounds": {"hours": "19:00"}},
        {"bounds": {"hours": "24:00-07:00"}},
        {"bounds": {"hours": "07:00-07:00"}},
        {"bounds": {"max_learning_rate": float("nan")}},
        {"privacy": {"noise_multiplier": 1}},
        {"privacy": {"clip_norm": 0}},
        {"coordinator_keys": ["ssh-ed25519 nonsense"]},
        {"min_training_cases": 0},
    ],
)
def test_a_policy_that_means_nothing_is_refused(values):
    with pytest.raises(ValidationError):
        Policy.model_validate(values)


def test_another_coordinator_key_is_read():
    text = openssh_text(KEY.public_key())
    assert Policy(coordinator_keys=(text,)).coordinator_keys == (text,)


def test_two_policies_have_two_names_and_the_same_policy_one():
    assert OPEN.sha256() == OPEN.model_copy().sha256() != Policy().sha256()


@pytest.mark.parametrize(
    ("clock", "is_open"),
    [
        ("18:59", False), ("19:00", True), ("23:59", True), ("00:00", True), ("06:59", True),
        ("07:00", False), ("12:00", False),
    ],
)  # fmt: skip
def test_hours_may_pass_midnight(clock, is_open):
    now = datetime.fromisoformat(f"2026-03-01T{clock}")
    assert Bounds(hours="19:00-07:00").open_at(now) is is_open
    # The same two times the other way round are open when those are closed.
    assert Bounds(hours="07:00-19:00").open_at(now) is not is_open


def test_a_plan_that_nobody_trusted_signed_is_refused(tiny_plan):
    other = Ed25519PrivateKey.generate()
    assert refusal(OPEN, tiny_plan) is None
    assert refusal(OPEN, tiny_plan, signature="") is RefusalCode.PLAN_NOT_SIGNED
    assert refusal(OPEN, tiny_plan, signature="no base64!") is RefusalCode.PLAN_NOT_SIGNED
    assert (
        refusal(OPEN, tiny_plan, signature=sign_plan(other, tiny_plan))
        is RefusalCode.PLAN_NOT_SIGNED
    )
    assert refusal(OPEN, tiny_plan, keys=[]) is RefusalCode.PLAN_NOT_SIGNED
    changed = tiny_plan.changed(seed=1)
    assert (
        refusal(OPEN, changed, signature=sign_plan(KEY, tiny_plan)) is RefusalCode.PLAN_NOT_SIGNED
    )


@pytest.mark.parametrize(
    ("bounds", "name", "found"),
    [
        ({"max_image_size": 31 + 1}, None, None),
        ({"max_rounds": 2}, "rounds", 3),
        ({"max_learning_rate": 9e-4}, "learning_rate", 1e-3),
        ({"max_batch_size": 1}, "batch_size", 2),
        ({"min_min_sites": 4}, "min_sites", 3),
    ],
)
def test_each_bound_is_held_against_the_plan(tiny_plan, bounds, name, found):
    policy = with_bounds(**bounds)
    broken = [check for check in check_bounds(policy, tiny_plan) if not check.fits]
    assert [(check.name, check.found) for check in broken] == ([(name, found)] if name else [])
    assert refusal(policy, tiny_plan) is (RefusalCode.PLAN_OUTSIDE_POLICY if name else None)


def test_image_size_and_local_epochs_are_bounds_too(tiny_plan):
    assert refusal(with_bounds(max_image_size=32), tiny_plan.changed(image_size=33)) == 103
    stage = tiny_plan.finetuning.model_copy(update={"local_epochs": 2})
    plan = tiny_plan.changed(finetuning=stage.model_dump())
    assert refusal(with_bounds(max_local_epochs=1), plan) is RefusalCode.PLAN_OUTSIDE_POLICY
    assert refusal(with_bounds(max_local_epochs=2), plan) is None
    counted = {**stage.model_dump(), "local_epochs": None, "local_steps": 50}
    plan = tiny_plan.changed(finetuning=counted)
    assert refusal(with_bounds(max_local_steps=49), plan) is RefusalCode.PLAN_OUTSIDE_POLICY
    assert refusal(with_bounds(max_local_steps=50), plan) is None


def test_a_stage_of_no_rounds_asks_for_nothing(tiny_plan):
    stage = tiny_plan.pretraining.model_copy(update={"rounds": 0, "learning_rate": 1.0})
    plan = tiny_plan.changed(pretraining=stage.model_dump())
    assert refusal(OPEN, plan) is None


def test_a_plan_waits_for_a_person_who_may_change_her_mind(tiny_plan):
    manual = OPEN.model_copy(update={"plans": Policy().plans})
    name = tiny_plan.sha256()
    assert refusal(manual, tiny_plan) is RefusalCode.PLAN_NOT_APPROVED
    assert refusal(manual, tiny_plan, decisions={"0" * 64: Decision.APPROVED}) == 102
    assert refusal(manual, tiny_plan, decisions={name: Decision.APPROVED}) is None
    assert refusal(OPEN, tiny_plan, decisions={name: Decision.REFUSED}) is RefusalCode.PLAN_REFUSED
    advance = manual.model_copy(
        update={"plans": manual.plans.model_copy(update={"allowed": (name[:12],)})}
    )
    assert refusal(advance, tiny_plan) is None
    assert plan_status(advance, tiny_plan, {name: Decision.REFUSED}) is PlanStatus.REFUSED


def test_approval_does_not_lift_a_bound(tiny_plan):
    approved = {tiny_plan.sha256(): Decision.APPROVED}
    assert refusal(with_bounds(max_rounds=2), tiny_plan, decisions=approved) == 103


def test_the_hour_counts_where_it_is_asked(tiny_plan):
    night = with_bounds(hours="19:00-07:00")
    assert refusal(night, tiny_plan) is RefusalCode.NOT_AT_THIS_HOUR
    assert refusal(night, tiny_plan, now=datetime(2026, 3, 1, 20)) is None
    assert refusal(night, tiny_plan, now=None) is None


def test_every_refusal_has_words_that_are_nobodys_secret(tiny_plan):
    for fault in RefusalCode:
        assert str(PolicyRefusal(fault)) == REFUSAL_CODES[fault]


@pytest.fixture
def update(tiny_plan):
    start = state_of(build_network(tiny_plan.network, 0))
    rng = torch.Generator().manual_seed(1)
    moved = {n: t + 0.1 * torch.randn(t.shape, generator=rng) for n, t in start.items()}
    return moved, start


def numpy_norm(state, start):
    deltas = [state[n].numpy().astype(float) - start[n].numpy().astype(float) for n in state]
    return np.linalg.norm(np.concatenate([delta.ravel() for delta in deltas]))


def test_without_a_clip_the_very_tensors_leave(update):
    state, start = update
    released = protect(state, start, Policy().privacy, b"")
    assert all(released[name] is state[name] for name in state)


@pytest.mark.parametrize("norm", [10.0, 1.0, 0.1, 1e-4, 1e-9])
def test_a_clipped_update_is_no_longer_than_the_clip(update, norm):
    state, start = update
    assert update_norm(state, start) == pytest.approx(numpy_norm(state, start))
    clipped = clip(state, start, norm)
    assert numpy_norm(clipped, start) <= norm
    if norm >= 0.1:  # float32 leaves that much of the direction
        assert numpy_norm(clipped, start) == pytest.approx(
            min(norm, numpy_norm(state, start)), 0.01
        )


def test_an_update_shorter_than_the_clip_keeps_its_bits(update):
    state, start = update
    clipped = clip(state, start, 1e6)
    assert all(clipped[name] is state[name] for name in state)


def test_integers_are_neither_clipped_nor_noised(update):
    state, start = update
    state["count"], start["count"] = torch.tensor(7), torch.tensor(0)
    privacy = Policy.model_validate({"privacy": {"clip_norm": 0.1, "noise_multiplier": 1}}).privacy
    assert protect(state, start, privacy, b"s")["count"] == 7


def test_an_update_that_is_not_finite_cannot_be_clipped(update):
    state, start = update
    state["subtraction.gain"] = torch.full_like(state["subtraction.gain"], float("nan"))
    with pytest.raises(WeightsError, match="NaN"):
        clip(state, start, 1)


def test_noise_is_normal_and_as_strong_as_said(update):
    start = {"a": torch.zeros(200, 300), "b": torch.zeros(40_001)}
    state = {"a": torch.ones(200, 300), "b": torch.zeros(40_001)}
    privacy = Policy.model_validate({"privacy": {"clip_norm": 2, "noise_multiplier": 1.5}}).privacy
    released = protect(state, start, privacy, b"secret")
    clipped = clip(state, start, 2)
    noise = np.concatenate([(released[n] - clipped[n]).numpy().ravel() for n in state])
    # Kolmogorov-Smirnov against Python's own normal distribution, at the level 1e-3.
    steps = np.arange(len(noise) + 1) / len(noise)
    cdf = np.array([NormalDist(0, 3).cdf(value) for value in np.sort(noise)])
    distance = max(np.abs(cdf - steps[1:]).max(), np.abs(cdf - steps[:-1]).max())
    assert distance < 1.95 / len(noise) ** 0.5
    assert abs(np.corrcoef(noise[:40_000], noise[60_000:100_000])[0, 1]) < 0.02
    assert noise.std() == pytest.approx(3, rel=0.02)


def test_the_same_update_gets_the_same_noise_and_nothing_else_does(update):
    state, start = update

    def released(state=state, start=start, secret=b"secret", **privacy):
        values = {"clip_norm": 1, "noise_multiplier": 1} | privacy
        privacy = Policy.model_validate({"privacy": values}).privacy
        return protect(state, start, privacy, secret)["subtraction.gain"]

    first = released()
    assert torch.equal(first, released())
    assert not torch.equal(first, released(secret=b"other"))
    # Nor is it the same noise in another strength: from two such, the update could be solved for.
    gain = clip(state, start, 1)["subtraction.gain"]
    assert not torch.allclose(2 * (first - gain), released(noise_multiplier=2) - gain)
    other = {**start, "subtraction.gain": start["subtraction.gain"] + 1e-3}
    assert not torch.equal(first - start["subtraction.gain"], released(start=other) - 1e-3)


def test_an_odd_number_of_draws_is_drawn():
    assert len(gaussian(3, b"seed")) == 3
    assert len(gaussian(0, b"seed")) == 0
    assert np.isfinite(gaussian(100_001, b"seed")).all()


def test_the_secret_is_made_once_for_its_owner_only(tmp_path):
    path = tmp_path / "keys" / "noise.key"
    secret = read_secret(path)
    assert len(secret) == 32
    assert read_secret(path) == secret
    assert path.stat().st_mode & 0o777 == 0o600
    path.write_bytes(b"short")
    with pytest.raises(SetupError, match="found 5 bytes"):
        read_secret(path)


def test_what_is_missing_is_told_without_the_memory_that_a_plan_asks_for(tiny_plan):
    vast = NetworkConfig(channels=(1 << 16, 1 << 16), first_skip_level=1, stem=1)
    plan = tiny_plan.model_copy(update={"network": vast})
    assert any("withholds" in line for line in missing_for_training(Policy(), plan))
