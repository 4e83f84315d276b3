"""Provide samples as training reads them, memory-mapped: phantoms or a prepared folder."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import overload

import numpy as np

from mamfed_client.imaging.mammogram import Mammogram
from mamfed_client.imaging.preprocess import prepare
from mamfed_client.preparation.prepared_folder import SAMPLES
from mamfed_client.preparation.sample_store import SampleStore, StoredSample
from mamfed_common.transforms.sample import FULL_SCALE, Sample
from mamfed_simulations.phantoms.phantom import Population, draw_patient

SHAPE = (1800, 1440)
"""Rows and columns of a drawn phantom at 1536; in proportion at other sizes."""


class Cached(Sequence[Sample]):
    """Samples that are read from disk whenever one is looked at."""

    def __init__(self, entries: Sequence[StoredSample]) -> None:
        self.entries = entries

    def __len__(self) -> int:
        """Count them."""
        return len(self.entries)

    @overload
    def __getitem__(self, index: int) -> Sample: ...
    @overload
    def __getitem__(self, index: slice) -> Cached: ...
    def __getitem__(self, index: int | slice) -> Sample | Cached:
        """Read one, or stand for some."""
        if isinstance(index, slice):
            return Cached(self.entries[index])
        return self.entries[index].load(f"image {index}")


def cached_samples(
    folder: Path, data: Path | None, *, size: int, count: int, malignant: bool = True
) -> Cached:
    """Return samples of a prepared folder, or draw and prepare phantoms.

    Args:
        folder: Where phantoms are kept.
        data: A folder that ``mamfed-client data prepare`` made; None draws phantoms.
        size: Side of the phantoms' samples in pixels.
        count: How many samples at most.
        malignant: Whether phantoms have a finding.
    """
    if data is not None:
        paths = sorted((data / SAMPLES).rglob("*.safetensors"))
        return Cached([StoredSample(path) for path in paths[:: -(-len(paths) // count)]])
    store = SampleStore(folder / SAMPLES)
    rng = np.random.default_rng(count * 2 + malignant)
    entries: list[StoredSample] = []
    while len(entries) < count:
        for phantom in draw_patient(rng, _shape(size), Population(), malignant=malignant):
            grey = np.rint(phantom.attenuation * FULL_SCALE).astype(np.uint16)
            sample, way = prepare(Mammogram(grey), phantom.mask, size)
            name = hashlib.sha256(sample.image.tobytes()).hexdigest()
            entries.append(store.add(name, sample, way))
    return Cached(entries[:count])


def _shape(size: int) -> tuple[int, int]:
    rows, columns = (round(side * size / 1536) for side in SHAPE)
    return rows, columns
