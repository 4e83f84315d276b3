import os
import resource
import stat

import pytest
import torch

from mamfed_common.model.state_dict import state_sha256
from mamfed_server.aggregation import update_store as updates_module
from mamfed_server.aggregation.update_store import ALIGNMENT, UpdateFolder, sections_of
from mamfed_server.aggregation.weighted_mean import BLOCK


def made(seed: int) -> dict[str, torch.Tensor]:
    """Make weights of odd sizes and three dtypes, in no order."""
    draw = torch.Generator().manual_seed(seed)
    return {
        "up.weight": torch.randn(3, 5, 7, generator=draw),
        "steps": torch.tensor(seed),
        "down.weight": torch.randn(BLOCK + 11, generator=draw),
        "double": torch.randn(4, generator=draw, dtype=torch.float64),
        "gain": torch.randn((), generator=draw),
        "none": torch.empty(0, 3),
    }


@pytest.fixture
def folder(tmp_path):
    folder = UpdateFolder(tmp_path / "updates")
    folder.clear()
    return folder


def test_one_update_comes_back_bit_for_bit_and_in_the_order_of_the_network(folder):
    folder.keep("ada", made(1))
    mean = folder.average({"ada": 1.0}, made(0))
    assert list(mean) == list(made(0))
    assert state_sha256(mean) == state_sha256(made(1))
    assert all(tensor.is_contiguous() for tensor in mean.values())


def test_the_mean_is_of_the_asked_sites_only_and_of_each_value(folder):
    for seed, site in enumerate(["ada", "bea", "cleo"]):
        folder.keep(site, made(seed))
    mean = folder.average({"cleo": 0.75, "ada": 0.25}, made(0))
    for name, tensor in made(0).items():
        if tensor.is_floating_point():
            expected = (tensor.double() + 3 * made(2)[name].double()) / 4
            torch.testing.assert_close(mean[name].double(), expected, atol=1e-6, rtol=0)
    assert mean["steps"].item() == 2


def test_the_order_in_which_updates_came_changes_no_bit(folder):
    shares = {"ada": 0.1, "bea": 0.6, "cleo": 0.3}
    found = set()
    for order in (["ada", "bea", "cleo"], ["cleo", "ada", "bea"]):
        folder.clear()
        for site in order:
            folder.keep(site, made(len(site) + ord(site[0])))
        found.add(state_sha256(folder.average({site: shares[site] for site in order}, made(0))))
    assert len(found) == 1


def test_a_file_is_its_owners_only_and_holds_the_values_alone(folder, tmp_path):
    folder.keep("ada", {"b": torch.tensor([3.0]), "a": torch.tensor([1.0, 2.0])})
    (path,) = (tmp_path / "updates").iterdir()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.read_bytes() == torch.tensor([1.0, 2.0, 3.0]).numpy().tobytes()


def test_a_second_answer_of_a_site_replaces_the_first(folder):
    folder.keep("ada", made(1))
    folder.keep("ada", made(2))
    assert state_sha256(folder.average({"ada": 1}, made(0))) == state_sha256(made(2))


def test_each_dtype_begins_at_a_large_page():
    sections = sections_of(made(0))
    assert [section.dtype for section in sections] == [torch.float32, torch.float64, torch.int64]
    assert all(section.offset % ALIGNMENT == 0 for section in sections)
    assert sections[1].offset >= 4 * sections[0].length


def test_more_arrays_than_one_write_takes_and_writes_that_end_early(folder, monkeypatch):
    real = os.writev
    monkeypatch.setattr(os, "writev", lambda fd, parts: real(fd, [parts[0][:5], *parts[1:1]]))
    state = {f"w{i}": torch.full((3,), float(i)) for i in range(updates_module.MOST_BUFFERS + 9)}
    folder.keep("ada", state)
    assert state_sha256(folder.average({"ada": 1}, state)) == state_sha256(state)


def test_more_sites_than_files_may_be_open(folder):
    state = {"w": torch.ones(3)}
    shares = {f"site-{number}": 1 / 60 for number in range(60)}
    for site in shares:
        folder.keep(site, state)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken = len(os.listdir("/proc/self/fd"))
    resource.setrlimit(resource.RLIMIT_NOFILE, (taken + 20, hard))
    try:
        torch.testing.assert_close(folder.average(shares, state), state)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
