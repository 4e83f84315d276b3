"""The updates of the round under way, on disk: memory holds one model, whatever came first."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import load_file, save

from mamfed_common.files import private_directory
from mamfed_common.state import State
from mamfed_server.aggregation import RunningMean


class UpdateFolder:
    """Accepted updates of one round. A kill loses them, and the round is done again."""

    def __init__(self, path: Path) -> None:
        """Name the folder."""
        self._path = path

    def clear(self) -> None:
        """Make the folder, and remove what is in it."""
        private_directory(self._path)
        for update in self._path.iterdir():
            update.unlink()

    def keep(self, site: str, state: State) -> None:
        """Write a site's checked update (0600)."""
        descriptor = os.open(self._file(site), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as handle:
            handle.write(save(state))

    def average(self, num_examples: Mapping[str, int]) -> State:
        """Average the updates of some sites, in the order of their names.

        Args:
            num_examples: Each site's weight; at least one site.
        """
        mean = RunningMean()
        for site in sorted(num_examples):
            mean.add(load_file(self._file(site)), num_examples[site])
        return mean.result()

    def _file(self, site: str) -> Path:
        return self._path / f"{site}.safetensors"
