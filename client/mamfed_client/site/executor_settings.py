"""``executor`` in ``site.yaml``: where a site's rounds are computed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from mamfed_common.config import Config, printable

Printable = Annotated[str, Field(min_length=1, max_length=1000), AfterValidator(printable)]
Option = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,63}$")]
FOLDER = "{folder}"
"""What stands in ``command`` for the folder of a job."""


class ExecutorSettings(Config):
    """Where a site's rounds are computed: here, or as jobs of a scheduler.

    ``executor: local`` is short for ``executor: {kind: local}``.

    Attributes:
        kind: ``local``: in this site's own process. ``slurm``: each computation is a Slurm job.
            ``command``: each is started by a command of this site.
        shared_folder: Folder that this machine and the jobs see at the same path; 0700, and owned
            by the user that runs the site.
        command: ``command`` only: a command line with ``{folder}``, which runs
            ``mamfed-client job {folder}`` on the machine with the GPUs.
        program: ``slurm`` only: how a job starts mamfed-client; empty: this installation, at the
            same path.
        setup: ``slurm`` only: shell lines before that, such as ``module load cuda``.
        partition: Slurm's partition; None: its default.
        gpus: GPUs of a job; 0: none is asked for.
        cpus: CPU cores of a job.
        memory: Memory of a job, such as ``16G``.
        minutes: Longest time of a job. A job that is cut goes on from its last checkpoint when the
            coordinator asks again.
        parameters: Further options of sbatch, such as ``{account: radiology, qos: low}``.
        queue_minutes: Longest wait for a job to begin.
        silent_minutes: ``command`` only: a job without a sign of life for so long is lost.
    """

    kind: Literal["local", "slurm", "command"] = "local"
    shared_folder: Path | None = None
    command: tuple[Printable, ...] = ()
    program: tuple[Printable, ...] = ()
    setup: tuple[Printable, ...] = ()
    partition: str | None = Field(default=None, pattern=r"^[A-Za-z0-9_.,-]{1,200}$")
    gpus: int = Field(default=1, ge=0, le=64)
    cpus: int = Field(default=4, ge=1, le=1024)
    memory: str = Field(default="16G", pattern=r"^[1-9][0-9]{0,6}[MGT]$")
    minutes: int = Field(default=240, ge=1, le=60 * 24 * 30)
    parameters: dict[Option, Annotated[str, AfterValidator(printable)] | bool | int] = Field(
        default={}
    )
    queue_minutes: float = Field(default=240, gt=0, le=60 * 24 * 30)
    silent_minutes: float = Field(default=10, gt=0, le=60 * 24)

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, values: Any) -> Any:
        return {"kind": values} if isinstance(values, str) else values

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.kind != "local" and self.shared_folder is None:
            raise ValueError(
                f"shared_folder: expected a folder that the jobs of kind {self.kind!r} see as well"
            )
        if self.kind == "command" and not any(FOLDER in part for part in self.command):
            raise ValueError(
                f'command: expected a command line with "{FOLDER}", such as '
                f'["ssh", "gpu1", "mamfed-client", "job", "{FOLDER}"]'
            )
        return self
