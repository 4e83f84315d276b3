"""TensorBoard event files in a run folder: ``tensorboard --logdir runs`` shows all runs."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

from mamfed_common.runtime.files import give_to_owner, private_directory
from mamfed_server.run_folder.folder import RunFolder
from mamfed_server.run_folder.round_record import RoundRecord
from mamfed_server.trackers.curves import numbered, points_of

FOLDER = "tensorboard"


class EventFiles:
    """Writes a run's event files, from its rounds."""

    def __init__(self, folder: Path) -> None:
        """Write the file anew from the rounds that the folder has: a resumed run repeats none.

        Raises:
            OSError: It cannot be written.
        """
        from tensorboardX import SummaryWriter

        target = private_directory(folder / FOLDER)
        for old in target.glob("events.out.tfevents.*"):
            old.unlink()
        self._writer: Any = SummaryWriter(str(target), write_to_disk=True)
        for new in target.glob("events.out.tfevents.*"):
            new.chmod(0o600)
            give_to_owner(new, target)
        self._rounds = 0
        for _, record in numbered(RunFolder(folder).rounds()):
            self._add(record)
        self._writer.flush()

    def add(self, record: RoundRecord) -> None:
        """Add the curves' points of a round."""
        self._add(record)
        self._writer.flush()

    def close(self) -> None:
        """Write what is left."""
        self._writer.close()

    def _add(self, record: RoundRecord) -> None:
        self._rounds += 1
        for tag, step, value in points_of(record, self._rounds):
            self._writer.add_scalar(tag, value, step, walltime=_ended(record))


def _ended(record: RoundRecord) -> float | None:
    try:
        return datetime.fromisoformat(record.started_at).timestamp() + record.seconds
    except ValueError:  # a round of an early version has no time
        return None
