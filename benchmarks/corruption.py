"""One corruption at 1536 x 1536: ours beside the plain NumPy way, in one process.

The peer bends intensities with ``np.power`` and paints with masks of the whole image.
Usage: python benchmarks/corruption.py [--size 1536] [--repeats 20]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np

from mamfed_common.corruption import CorruptionConfig, corrupt

EVERYTHING = CorruptionConfig(clean=0, gamma=1, paint=1, outpaint=0, fills=("noise",))


def plain(image: np.ndarray, field: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Gamma and five ellipses on a float image, each by a mask of the whole image."""
    result = np.power(image, float(np.exp(rng.uniform(-0.7, 0.7))))
    rows, columns = np.mgrid[: image.shape[0], : image.shape[1]]
    for _ in range(5):
        centre, half = rng.uniform(0, 1, 2) * image.shape, rng.uniform(1 / 12, 1 / 6, 2)
        distance = ((rows - centre[0]) / half[0]) ** 2 + ((columns - centre[1]) / half[1]) ** 2
        inside = distance < image.shape[0] ** 2
        result = np.where(inside & field, rng.uniform(size=image.shape), result)
    return result


def milliseconds(function: Callable[[], object], repeats: int) -> float:
    function()
    started = time.perf_counter()
    for _ in range(repeats):
        function()
    return (time.perf_counter() - started) / repeats * 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=1536)
    parser.add_argument("--repeats", type=int, default=20)
    arguments = parser.parse_args()
    rng = np.random.default_rng(0)
    image = rng.integers(0, 65536, (arguments.size, arguments.size), np.uint16)
    field = np.ones(image.shape, bool)
    ours = milliseconds(lambda: corrupt(image, field, EVERYTHING, rng), arguments.repeats)
    floats = image / np.float32(65535)
    peer = milliseconds(lambda: plain(floats, field, rng), max(1, arguments.repeats // 10))
    print(f"gamma and up to five in-painted shapes, {arguments.size} x {arguments.size}")
    print(f"ours {ours:.1f} ms, plain NumPy {peer:.1f} ms: {peer / ours:.1f} x")


if __name__ == "__main__":
    main()
