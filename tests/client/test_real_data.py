"""On the three small cohorts of real mammograms, where this machine has them."""

from pathlib import Path

import numpy as np
import pytest

from mamfed_client.manifest import read_manifest
from mamfed_client.preprocess import prepare
from mamfed_client.reading import read_lesions, read_mammogram

DATA = Path(__file__).parents[3] / "shared" / "data"
pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason="no real data on this machine")


@pytest.mark.parametrize("name", ["cesm", "mias", "cbis"])
def test_every_row_is_usable_and_a_breast_of_sane_size_is_found(name):
    manifest = read_manifest(DATA / name, name)
    assert manifest.rejected == []
    assert len(manifest.rows) == {"cesm": 215, "mias": 205, "cbis": 160}[name]
    chosen = np.random.default_rng(0).choice(len(manifest.rows), 12, replace=False)
    for row in (manifest.rows[index] for index in chosen):
        mammogram = read_mammogram(row.image_path)
        mask = read_lesions(row.mask_path, mammogram) if row.mask_path else None
        sample, transform = prepare(mammogram, mask, 128)
        content = np.prod(transform.shape)
        assert 0.4 < sample.field.sum() / content < 0.99, row.image
        assert sample.field[:, 0].sum() >= sample.field[:, transform.shape[1] - 2].sum(), row.image
        if mask is not None:
            assert sample.mask.any()
