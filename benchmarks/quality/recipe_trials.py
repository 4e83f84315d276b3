"""The trials of ``recipe.py``, by name: the rows of decision 0003."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from mamfed_common.model.config import NetworkConfig
from mamfed_common.transforms.config import AugmentationConfig

NETWORKS = {
    "stem 2": NetworkConfig(),
    "stem 1": NetworkConfig(channels=(16, 32, 64, 128, 256, 256, 256), stem=1),
    "stem 4": NetworkConfig(channels=(64, 128, 256, 256, 256), stem=4),
    "stem 2, wide": NetworkConfig(channels=(48, 96, 192, 256, 256, 256)),
    "stem 2, narrow": NetworkConfig(channels=(16, 32, 64, 128, 256, 256)),
    "all skips": NetworkConfig(first_skip_level=0),
}
MOVING = AugmentationConfig()
STRONG = AugmentationConfig(max_rotation_degrees=25, max_log_scale=0.25)
STILL = AugmentationConfig(max_rotation_degrees=0, max_log_scale=0, gamma=0)


@dataclass(frozen=True)
class Trial:
    """One training; the defaults are the plan's recipe except for the benign term."""

    head: Literal["subtraction", "direct"] = "subtraction"
    network: str = "stem 2"
    pretraining_epochs: int = 20
    pretraining_loss: Literal["mse", "l1", "ssim", "breast"] = "mse"
    epochs: int = 20
    learning_rate: float = 1e-3
    batch_size: int = 4
    gain: float = 10.0
    offset: float = 0.1
    rectifier: Literal["none", "relu", "softplus", "abs"] = "none"
    smoothing: int = 5
    cross_entropy: float = 0.3
    focal: float = 0.0
    benign: Literal["none", "reconstruct", "empty mask"] = "none"
    benign_weight: float = 0.5
    averaging: float = 0.0
    warm_up: float = 0.1
    augmentation: AugmentationConfig = MOVING
    seed: int = 0


OLD = Trial(gain=1 / 0.03, smoothing=0, learning_rate=3e-3)
NINE = Trial(gain=1 / 0.03, smoothing=9)
DIRECT = Trial(head="direct")
TRIALS = {
    "direct, from scratch": replace(DIRECT, pretraining_epochs=0),
    "direct, from scratch, 3e-3": replace(DIRECT, pretraining_epochs=0, learning_rate=3e-3),
    "direct": DIRECT,
    "direct, 3e-3": replace(DIRECT, learning_rate=3e-3),
    "direct, 5e-4": replace(DIRECT, learning_rate=5e-4),
    "direct, averaged": replace(DIRECT, averaging=0.98),
    "old": OLD,
    "old, from scratch": replace(OLD, pretraining_epochs=0),
    "old, 1e-3": replace(OLD, learning_rate=1e-3),
    "old, benign 10": replace(OLD, benign="reconstruct", benign_weight=10),
    "old, empty masks": replace(OLD, benign="empty mask", benign_weight=1),
    "old, stem 4": replace(OLD, network="stem 4"),
    "old, stem 1": replace(OLD, network="stem 1"),
    "old, 1e-3, all skips": replace(OLD, learning_rate=1e-3, network="all skips"),
    "gain 33, 5 px": replace(NINE, smoothing=5),
    "gain 33, 9 px": NINE,
    "gain 33, 17 px": replace(NINE, smoothing=17),
    "gain 33, 9 px, from scratch": replace(NINE, pretraining_epochs=0),
    "gain 33, 9 px, 2e-3": replace(NINE, learning_rate=2e-3),
    "gain 33, 9 px, benign 2": replace(NINE, benign="reconstruct", benign_weight=2),
    "gain 33, 9 px, averaged": replace(NINE, averaging=0.98),
    "gain 33, 9 px, stronger moves": replace(NINE, augmentation=STRONG),
    "gain 10, no smoothing": Trial(smoothing=0),
    "gain 5, no smoothing": Trial(smoothing=0, gain=5, offset=0.2),
    "gain 10, 9 px": Trial(smoothing=9),
    "gain 10, 9 px, averaged": Trial(smoothing=9, averaging=0.98),
    "gain 5, 9 px, averaged": Trial(smoothing=9, gain=5, offset=0.2, averaging=0.98),
    "base": Trial(),
    "benign 2": Trial(benign="reconstruct", benign_weight=2),
    "benign 2, from scratch": Trial(benign="reconstruct", benign_weight=2, pretraining_epochs=0),
    "benign 0.5": Trial(benign="reconstruct"),
    "benign 0.5, 2e-3": Trial(benign="reconstruct", learning_rate=2e-3),
    "benign 0.2": Trial(benign="reconstruct", benign_weight=0.2),
    "batch 2": Trial(batch_size=2),
    "cross-entropy 1": Trial(cross_entropy=1),
    "focal": Trial(focal=2),
    "stage 1: SSIM": Trial(pretraining_loss="ssim"),
    "stage 1: L1": Trial(pretraining_loss="l1"),
    "stage 1: breast only": Trial(pretraining_loss="breast"),
    "stage 1: 40 epochs": Trial(pretraining_epochs=40),
    "rectified": Trial(rectifier="relu"),
    "softplus": Trial(rectifier="softplus"),
    "absolute difference": Trial(rectifier="abs"),
    "no warm-up": Trial(warm_up=0.001),
    "no augmentation": Trial(augmentation=STILL),
    "stem 4": Trial(network="stem 4"),
    "stem 1": Trial(network="stem 1"),
    "wide": Trial(network="stem 2, wide"),
    "narrow": Trial(network="stem 2, narrow"),
}
