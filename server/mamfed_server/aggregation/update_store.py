"""The updates of the round under way, on disk: memory holds one model, whatever came first.

A file holds all values of one dtype after another, in the order of the arrays' names, and nothing
else: names and shapes are those of the round's starting weights, which each update was checked
against. It begins with the values and is written at once, so that Linux keeps it in large pages,
which a block's map then takes over whole (half of the average's time otherwise goes into pages of
4 KiB).
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from mamfed_common.model.state_dict import State
from mamfed_common.runtime.files import private_directory
from mamfed_server.aggregation.weighted_mean import Array, average

ALIGNMENT = 1 << 21
"""Where the values of another dtype begin: whole large pages, and so whole small ones."""
MOST_BUFFERS = 1024
"""Linux's IOV_MAX."""


class DtypeSection(NamedTuple):
    """The values of one dtype in an update's file.

    Attributes:
        names: Of the arrays, in order.
        dtype: Of them all.
        length: How many values they have.
        offset: Where they begin, in bytes.
    """

    names: tuple[str, ...]
    dtype: torch.dtype
    length: int
    offset: int


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
        try:
            for section in sections_of(state):
                os.lseek(descriptor, section.offset, os.SEEK_SET)
                _write(descriptor, [_bytes_of(state[name]) for name in section.names])
        finally:
            os.close(descriptor)

    def average(self, shares: Mapping[str, float], like: State) -> State:
        """Average the updates of some sites, in the order of their names.

        Args:
            shares: Each site's share of the mean; at least one site.
            like: Weights of the updates' names, shapes and dtypes.
        """
        sites, mean = sorted(shares), State()
        for section in sections_of(like):
            # NumPy asks for large pages, torch does not: 29,000 page faults less for 120 MB.
            values = np.empty(section.length, _numpy_dtype(section))
            updates = [partial(_values, self._file(site), section) for site in sites]
            average(values, updates, [shares[site] for site in sites])
            sizes = [like[name].numel() for name in section.names]
            mean |= zip(section.names, torch.split(torch.from_numpy(values), sizes), strict=True)
        return {name: mean[name].view(tensor.shape) for name, tensor in like.items()}

    def _file(self, site: str) -> Path:
        return self._path / f"{site}.update"


def sections_of(state: Mapping[str, Tensor]) -> list[DtypeSection]:
    """Return how weights of these names, shapes and dtypes lie in a file."""
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
    return torch.empty(0, dtype=section.dtype).numpy().dtype


def _bytes_of(tensor: Tensor) -> memoryview:
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data


def _write(descriptor: int, buffers: Sequence[memoryview]) -> None:
    """Write buffers one after the other, with as few calls as the system allows."""
    left = [buffer for buffer in buffers if len(buffer)]
    while left:
        written = os.writev(descriptor, left[:MOST_BUFFERS])
        while left and written >= len(left[0]):
            written -= len(left.pop(0))
        if written:
            left[0] = left[0][written:]


@contextmanager
def _values(path: Path, section: DtypeSection, start: int, stop: int) -> Iterator[Array]:
    """Map values ``[start, stop)`` of a section; ``start`` is a multiple of a block.

    The file is opened for each block: open ones are limited, often to 1,024.
    """
    size = section.dtype.itemsize
    length, offset = (stop - start) * size, section.offset + start * size
    descriptor = os.open(path, os.O_RDONLY)
    try:
        found = mmap.mmap(descriptor, length, mmap.MAP_PRIVATE, mmap.PROT_READ, offset=offset)
    finally:
        os.close(descriptor)
    with found:
        yield np.frombuffer(found, dtype=_numpy_dtype(section))
