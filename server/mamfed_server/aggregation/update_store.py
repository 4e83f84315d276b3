"""The updates of the current round on disk, so that memory holds one model only.

A file contains the values of one dtype after another, in the order of the arrays' names, and
nothing else: names and shapes are those of the round's starting weights, against which each update
was checked. The values come first and are written at once, so that Linux keeps them in large pages
and maps a block as a whole (with pages of 4 KiB, half of the averaging time goes into page faults).
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from mamfed_common.model.state_dict import State
from mamfed_common.runtime.files import private_directory
from mamfed_server.aggregation.coordinate_wise import BlockReducer, reduce_blocks
from mamfed_server.aggregation.weighted_mean import Array, Reader, average

if TYPE_CHECKING:
    import torch
    from torch import Tensor

ALIGNMENT = 1 << 21
"""The values of each dtype begin at a multiple of a large page, and so of a small one."""
MOST_BUFFERS = 1024
"""Linux's IOV_MAX."""


class DtypeSection(NamedTuple):
    """The values of one dtype in an update's file.

    Attributes:
        names: The arrays' names, in order.
        dtype: The dtype of all of them.
        length: The number of values.
        offset: The position of the first value, in bytes.
    """

    names: tuple[str, ...]
    dtype: torch.dtype
    length: int
    offset: int


class UpdateFolder:
    """The accepted updates of one round. A crash loses them, and the round is repeated."""

    def __init__(self, path: Path) -> None:
        """Use ``path``; :meth:`clear` creates it."""
        self._path = path

    def clear(self) -> None:
        """Create the folder, or empty it."""
        private_directory(self._path)
        for update in self._path.iterdir():
            update.unlink()

    def keep(self, site: str, state: State) -> None:
        """Write a site's checked update (mode 0600)."""
        descriptor = os.open(self._file(site), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            for section in sections_of(state):
                os.lseek(descriptor, section.offset, os.SEEK_SET)
                _write(descriptor, [_bytes_of(state[name]) for name in section.names])
        finally:
            os.close(descriptor)

    def average(self, shares: Mapping[str, float], like: State) -> State:
        """Return the weighted mean of some sites' updates, added in the order of their names.

        Args:
            shares: Each site's share of the mean; at least one site.
            like: Weights with the updates' names, shapes and dtypes.
        """
        sites = sorted(shares)
        weights = [shares[site] for site in sites]
        return self._combine(sites, like, lambda mean, updates: average(mean, updates, weights))

    def reduce(self, sites: Sequence[str], like: State, reduce: BlockReducer) -> State:
        """Combine some sites' updates value by value.

        Args:
            sites: At least one site.
            like: Weights with the updates' names, shapes and dtypes.
            reduce: Combines the values of a block, see :mod:`coordinate_wise`.
        """
        return self._combine(
            sites, like, lambda result, updates: reduce_blocks(result, updates, reduce)
        )

    def _combine(
        self, sites: Sequence[str], like: State, fill: Callable[[Array, Sequence[Reader]], None]
    ) -> State:
        """Have ``fill`` compute the values of each dtype from those of the sites."""
        import torch

        combined = State()
        for section in sections_of(like):
            # NumPy asks for large pages, torch does not: 29,000 page faults less for 120 MB.
            values = np.empty(section.length, _numpy_dtype(section))
            fill(values, [partial(_values, self._file(site), section) for site in sites])
            sizes = [like[name].numel() for name in section.names]
            arrays = torch.split(torch.from_numpy(values), sizes)
            combined |= zip(section.names, arrays, strict=True)
        return {name: combined[name].view(tensor.shape) for name, tensor in like.items()}

    def _file(self, site: str) -> Path:
        return self._path / f"{site}.update"


def sections_of(state: Mapping[str, Tensor]) -> list[DtypeSection]:
    """Return the layout of a file of weights with these names, shapes and dtypes."""
    sections, end = [], 0
    ordered = sorted(state, key=lambda name: (str(state[name].dtype), name))
    for _, group in groupby(ordered, key=lambda name: state[name].dtype):
        names = tuple(group)
        dtype, length = state[names[0]].dtype, sum(state[name].numel() for name in names)
        offset = -(-end // ALIGNMENT) * ALIGNMENT
        sections.append(DtypeSection(names, dtype, length, offset))
        end = offset + length * dtype.itemsize
    return sections


def _numpy_dtype(section: DtypeSection) -> np.dtype[np.generic]:
    import torch

    return torch.empty(0, dtype=section.dtype).numpy().dtype


def _bytes_of(tensor: Tensor) -> memoryview:
    import torch

    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data


def _write(descriptor: int, buffers: Sequence[memoryview]) -> None:
    """Write buffers one after the other in as few system calls as possible."""
    pending = [buffer for buffer in buffers if len(buffer)]
    while pending:
        written = os.writev(descriptor, pending[:MOST_BUFFERS])
        while pending and written >= len(pending[0]):
            written -= len(pending.pop(0))
        if written:
            pending[0] = pending[0][written:]


@contextmanager
def _values(path: Path, section: DtypeSection, start: int, stop: int) -> Iterator[Array]:
    """Map values ``[start, stop)`` of a section; ``start`` is a multiple of a page.

    The file is opened for each block, because open files are limited, often to 1,024.
    """
    size = section.dtype.itemsize
    length, offset = (stop - start) * size, section.offset + start * size
    descriptor = os.open(path, os.O_RDONLY)
    try:
        mapped = mmap.mmap(descriptor, length, mmap.MAP_PRIVATE, mmap.PROT_READ, offset=offset)
    finally:
        os.close(descriptor)
    with mapped:
        yield np.frombuffer(mapped, dtype=_numpy_dtype(section))
