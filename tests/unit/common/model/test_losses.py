import pytest
import torch
from torch import nn

from mamfed_common.errors import PlanError
from mamfed_common.model import losses
from mamfed_common.model.config import LossConfig
from mamfed_common.model.losses import check_loss, empty_loss, segmentation_loss


def test_the_segmentation_loss_is_dice_and_weighted_cross_entropy():
    logits = torch.tensor([[[[2.0, -1.0], [0.5, -3.0]]]])
    target = torch.tensor([[[[1.0, 0.0], [1.0, 0.0]]]])
    p = logits.sigmoid()
    expected_dice = 1 - (2 * (p * target).sum() + 1) / (p.sum() + target.sum() + 1)
    bce = -(target * p.log() + (1 - target) * (1 - p).log()).mean()
    expected = expected_dice + LossConfig().cross_entropy * bce
    torch.testing.assert_close(segmentation_loss(LossConfig())(logits, target), expected)


def test_an_empty_mask_has_a_finite_loss_that_falls_with_the_prediction():
    target = torch.zeros(1, 1, 4, 4)
    loss = segmentation_loss(LossConfig())
    low, high = loss(torch.full_like(target, -5), target), loss(torch.full_like(target, 5), target)
    assert torch.isfinite(low)
    assert low < high


def test_an_empty_target_counts_inside_the_breast_and_each_breast_alike():
    logits = torch.tensor([[[[2.0, -1.0], [0.5, 9.0]]], [[[1.0, 9.0], [9.0, 9.0]]]])
    breast_mask = torch.tensor([[[[1.0, 1.0], [1.0, 0.0]]], [[[1.0, 0.0], [0.0, 0.0]]]])
    first = -(1 - torch.tensor([2.0, -1.0, 0.5]).sigmoid()).log().mean()
    second = -(1 - torch.tensor(1.0).sigmoid()).log()
    torch.testing.assert_close(empty_loss(logits, breast_mask), (first + second) / 2)


def test_an_image_without_any_breast_costs_nothing():
    nothing = empty_loss(torch.ones(1, 1, 2, 2), torch.zeros(1, 1, 2, 2))
    assert nothing == 0


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: nn.MSELoss(), "failed on a small batch: TypeError"),
        (lambda config: lambda logits, masks: None, "returned NoneType, expected a scalar"),
        (lambda config: nn.MSELoss(reduction="none"), r"returned \(2, 1, 16, 16\), expected a sca"),
        (lambda config: lambda logits, masks: (logits / 0).sum(), "returned nan for a small batch"),
        (
            lambda config: lambda logits, masks: masks.sum(),
            "expected a finite number that has a gr",
        ),
    ],
)
def test_an_installed_loss_that_cannot_train_is_named(monkeypatch, build, words):
    monkeypatch.setattr(losses, "loss_of", lambda name: build)
    with pytest.raises(PlanError, match=f"loss 'mine' {words}" if "ret" in words else words):
        check_loss(LossConfig(segmentation="mine"))


def test_a_sound_loss_passes_the_trial(monkeypatch):
    monkeypatch.setattr(losses, "loss_of", lambda name: lambda config: nn.BCEWithLogitsLoss())
    check_loss(LossConfig(segmentation="mine"))
    monkeypatch.undo()
    check_loss(LossConfig())
