"""The device that training runs on, and its number format."""

from __future__ import annotations

import logging
import os
import platform
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Literal

import torch

from mamfed_common.errors import PlanError, SetupError

logger = logging.getLogger(__name__)

Precision = Literal["auto", "float32", "bfloat16"]


def choose_device(name: str = "auto") -> torch.device:
    """Return the device called ``name``; ``auto`` prefers CUDA, then MPS, then the CPU.

    Raises:
        PlanError: The device is unknown, or this machine does not have it.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise PlanError(
            f"device {name!r} cannot be used ({reason}); choose auto, cpu, cuda or mps"
        ) from None
    return device


def choose_devices(name: str = "auto", count: int | Literal["auto"] = 1) -> list[torch.device]:
    """Return the devices that train one round together.

    Args:
        name: As for :func:`choose_device`. A GPU named by number is used alone.
        count: Number of devices; ``auto`` means all GPUs, or one device of any other type. On a CPU
            each device is a process on some of its cores.

    Raises:
        PlanError: The device is unknown, or this machine does not have it.
        SetupError: This machine has fewer devices than requested.
    """
    first = choose_device(name)
    if first.type == "cuda" and first.index is None:
        available = torch.cuda.device_count()
    else:
        available = (os.cpu_count() or 1) if first.type == "cpu" else 1
    if count == "auto":
        count = available if first.type == "cuda" else 1
    if count > available:
        raise SetupError(
            f"devices: {count} requested, but this machine has {available} {name!r} "
            f"device{'' if available == 1 else 's'}; request {available} or fewer, or auto"
        )
    if count == 1:
        return [first]
    if first.type == "cpu":
        return [first] * count
    return [torch.device(first.type, index) for index in range(count)]


def autocast(device: torch.device, precision: Precision) -> AbstractContextManager[object]:
    """Return the context in which the network runs: bfloat16 autocast, or plain float32.

    ``auto`` means bfloat16 on a CUDA device that supports it. A CPU uses float32 unless the plan
    requests bfloat16 and the CPU has units for it; a fallback to float32 is logged once. See
    ``docs/decisions/0004-precision.md``.
    """
    if instead := float32_instead(device, precision):
        _warn_once(instead)
        return nullcontext()
    if precision == "auto":
        has_bfloat16 = device.type == "cuda" and torch.cuda.is_bf16_supported()
        precision = "bfloat16" if has_bfloat16 else "float32"
    if precision == "float32":
        return nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16)


def float32_instead(device: torch.device, precision: Precision) -> str:
    """Return why a device uses float32 where the plan requests bfloat16; empty if it does not."""
    if precision != "bfloat16" or device.type != "cpu" or _cpu_has_bfloat16():
        return ""
    return (
        "precision: float32 is used instead of bfloat16: this CPU has no units for bfloat16 "
        "(AVX-512 BF16 or AMX), and would take about twenty times as long"
    )


def _cpu_has_bfloat16() -> bool:
    """Return whether the CPU multiplies bfloat16 in hardware.

    oneDNN's own test is true on every AVX-512 CPU, where it widens each number first. On other
    CPUs, such as Arm, it does test for the units.
    """
    if platform.machine() in ("x86_64", "AMD64"):
        return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


@cache
def _warn_once(text: str) -> None:
    logger.warning("%s", text)
