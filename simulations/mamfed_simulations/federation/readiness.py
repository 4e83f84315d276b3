"""Check a command's requirements before any work, and describe what it will train."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from mamfed_common.errors import MamfedError, RunError, SetupError
from mamfed_common.plan import Stage
from mamfed_common.protocol.tasks import SiteDescription
from mamfed_common.runtime.lock import holder
from mamfed_common.runtime.wording import counted
from mamfed_common.training.device import choose_device
from mamfed_server.run.participants import check_stages
from mamfed_server.run.run_choice import earlier_run
from mamfed_server.run_folder.folder import RunFolder
from mamfed_simulations.federation.arms import Arm, describe_sites
from mamfed_simulations.federation.engine import Engine
from mamfed_simulations.federation.hardware import ArmHardware
from mamfed_simulations.federation.runner import check_ray


def check_machine(machine: ArmHardware) -> None:
    """Check that the device and the engine are available.

    Raises:
        MamfedError: The engine is not installed.
        PlanError: The device does not exist.
        SetupError: The engine has no usable folder for its sockets.
    """
    choose_device(machine.device)
    if machine.engine is Engine.RAY:
        check_ray()


def begin_line(out: Path, *, resume: bool) -> str:
    """Describe whether a run starts or resumes in ``out``, and what happens to an earlier one."""
    folder = RunFolder(out)
    if not resume:
        return earlier_run(folder)
    if not folder.holds_run():
        return f"--resume: {out} holds no run yet; starting one"
    if folder.is_finished():
        return f"--resume: the run in {out} is finished; only its report is rewritten"
    return f"--resume: the run in {out} resumes after {counted(len(folder.rounds()), 'round')}"


def check_nobody_works(lock: Path, out: Path, what: str) -> None:
    """Check that no other process holds the lock of a folder.

    Raises:
        SetupError: Another process holds it.
    """
    if owner := holder(lock):
        raise SetupError(
            f"{out}: {what} is already running here ({owner.words()}); choose another --out"
        )


def training_lines(arms: Sequence[Arm]) -> list[str]:
    """Describe the planned trainings: their number, total steps, and those that would fail."""
    described = [describe_sites(arm.sites, arm.job.plan) for arm in arms]
    steps = sum(_steps(arm, found) for arm, found in zip(arms, described, strict=True))
    done = sum(RunFolder(arm.job.folder).is_finished() for arm in arms if arm.job.resume)
    lines = [f"{counted(len(arms), 'training')} with {steps:,} steps in total, {done} already done"]
    return lines + [
        f"{arm.name} ({arm.job.folder}) would fail: {trouble}"
        for arm, found in zip(arms, described, strict=True)
        if (trouble := _trouble(arm, found))
    ]


def _steps(arm: Arm, descriptions: Mapping[str, SiteDescription]) -> int:
    """Count the optimizer steps of both stages over all sites, and those of personal models."""
    a_round, plan = arm.steps(descriptions), arm.job.plan
    adapting = sum(
        bool(d.images.get("malignant", {}).get("train", 0)) for d in descriptions.values()
    )
    personal = plan.personal.steps * adapting if plan.makes_personal_models else 0
    return personal + sum(plan.stage(stage).rounds * a_round[stage] for stage in Stage)


def _trouble(arm: Arm, descriptions: Mapping[str, SiteDescription]) -> MamfedError | None:
    try:
        check_stages(arm.job.plan, descriptions, arm.job.training_sites)
    except RunError as error:
        return error
    return None
