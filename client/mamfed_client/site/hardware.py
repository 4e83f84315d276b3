"""The devices and threads that a site trains with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:  # reading settings must not load torch
    import torch


class Hardware(NamedTuple):
    """What a site trains with.

    Attributes:
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:0`` ... or ``mps``.
        devices: Number of such devices that share each batch; ``auto``: all GPUs.
        threads: CPU threads of each process; None: torch's default.
        activation_checkpointing: Whether to save memory at the cost of time.
    """

    device: str = "auto"
    devices: int | Literal["auto"] = 1
    threads: int | None = None
    activation_checkpointing: bool = False

    def choose(self) -> list[torch.device]:
        """Return the devices to train on.

        Raises:
            PlanError: This machine has no such device.
            SetupError: It has fewer of them than ``devices``.
        """
        from mamfed_common.training.device import choose_devices

        return choose_devices(self.device, self.devices)
