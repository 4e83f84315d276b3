"""On the three small cohorts of real mammograms, where this machine has them."""

from pathlib import Path

import numpy as np
import pytest

from mamfed_client.datasets import read_folder
from mamfed_client.imaging.preprocess import prepare
from mamfed_client.sandbox.decoder import Decoder

DATA = Path(__file__).parents[5] / "shared" / "data"
pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason="no real data on this machine")


@pytest.mark.parametrize("name", ["cesm", "mias", "cbis"])
def test_every_row_is_usable_and_a_breast_of_sane_size_is_found(name):
    manifest = read_folder(DATA / name)
    assert manifest.rejected == []
    assert len(manifest.rows) == {"cesm": 215, "mias": 205, "cbis": 160}[name]
    chosen = np.random.default_rng(0).choice(len(manifest.rows), 12, replace=False)
    with Decoder() as decoder:
        for row in (manifest.rows[index] for index in chosen):
            mammogram, _ = decoder.mammogram(row.image_path)
            marked = None
            if row.annotations:
                marked, _ = decoder.mask(row.annotations, *mammogram.grey.shape)
            sample, transform = prepare(mammogram, marked and marked.mask, 128)
            content = np.prod(transform.shape)
            assert 0.4 < sample.breast_mask.sum() / content < 0.99, row.image
            far = sample.breast_mask[:, transform.shape[1] - 2].sum()
            assert sample.breast_mask[:, 0].sum() >= far, row.image
            if marked is not None:
                assert sample.mask.any()
