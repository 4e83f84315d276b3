"""Order statistics over updates, in blocks: by hand, and by numpy."""

import numpy as np
import pytest
import torch

from mamfed_server.aggregation import coordinate_wise
from mamfed_server.aggregation.coordinate_wise import block_length, trimmed_mean
from mamfed_server.aggregation.update_store import UpdateFolder


@pytest.fixture
def folder(tmp_path):
    folder = UpdateFolder(tmp_path / "updates")
    folder.clear()
    return folder


def keep(folder, **updates):
    for site, state in updates.items():
        folder.keep(site, state)
    return sorted(updates)


def test_the_extremes_of_each_value_are_dropped(folder):
    values = {"ada": [1.0, 9.0], "bea": [2.0, -50.0], "cleo": [90.0, 8.0], "dora": [4.0, 7.0]}
    states = {site: {"w": torch.tensor(v)} for site, v in values.items()}
    sites = keep(folder, **states)
    found = folder.reduce(sites, states["ada"], lambda values: trimmed_mean(values, 1))
    assert found["w"].tolist() == [3.0, 7.5]


@pytest.mark.parametrize("num_sites", [1, 2, 5])
def test_it_agrees_with_numpy_over_several_blocks(folder, monkeypatch, num_sites):
    monkeypatch.setattr(coordinate_wise, "STACK_BYTES", 0)  # the smallest blocks
    draw = torch.Generator().manual_seed(num_sites)
    states = {
        f"site-{number}": {
            "w": torch.randn(20_011, generator=draw),
            "d": torch.randn(3, 5, generator=draw, dtype=torch.float64),
            "count": torch.tensor(number),
        }
        for number in range(num_sites)
    }
    cut = (num_sites - 1) // 2
    found = folder.reduce(
        keep(folder, **states), states["site-0"], lambda values: trimmed_mean(values, cut)
    )
    assert list(found) == ["w", "d", "count"]
    for name in ("w", "d"):
        expected = np.median([state[name].numpy() for state in states.values()], axis=0)
        np.testing.assert_allclose(found[name].numpy(), expected, rtol=1e-6)
        assert found[name].dtype == states["site-0"][name].dtype
    assert found["count"].item() == num_sites - 1, "a counter takes the highest value"


@pytest.mark.parametrize("num_sites", [1, 3, 100, 5000])
def test_memory_is_bounded_whatever_the_number_of_sites(num_sites):
    length = block_length(num_sites, 4)
    assert length & (length - 1) == 0, "a power of two"
    assert length * 4 % coordinate_wise.SMALLEST_BLOCK_BYTES == 0
    assert num_sites * length * 4 <= max(
        coordinate_wise.STACK_BYTES, num_sites * coordinate_wise.SMALLEST_BLOCK_BYTES
    )
