"""Small masks and malignancy maps, written pixel by pixel."""

import numpy as np


def mask(*pixels: tuple[int, int], size: int = 6) -> np.ndarray:
    image = np.zeros((size, size), bool)
    for row, column in pixels:
        image[row, column] = True
    return image


def map_of(values: dict[tuple[int, int], float], size: int = 6) -> np.ndarray:
    image = np.zeros((size, size), np.float32)
    for (row, column), value in values.items():
        image[row, column] = value
    return image


def sure(*pixels: tuple[int, int], size: int = 6) -> np.ndarray:
    return mask(*pixels, size=size).astype(np.float32)
