import json
import stat

import numpy as np
import pytest
from safetensors import safe_open

from mamfed_client.imaging.geometry import Transform
from mamfed_client.preparation.sample_store import SampleStore, default_cache_dir, digest
from mamfed_common.errors import DataError, OutputError
from mamfed_common.transforms.sample import Sample

NAME = digest("a" * 64, "", "L", 64, 1)
KEY = b"k" * 32


def draw_sample(seed=0, size=64):
    rng = np.random.default_rng(seed)
    breast_mask = rng.random((size, size)) < 0.5
    return Sample(
        rng.integers(0, 65536, (size, size), dtype=np.uint16),
        breast_mask,
        breast_mask & (rng.random((size, size)) < 0.1),
        "",
    )


TRANSFORM = Transform(
    rows=181, columns=131, top=1, bottom=100, left=0, right=90, flipped=True, size=64
)


@pytest.fixture(params=[None, KEY], ids=["in the clear", "encrypted"])
def store(tmp_path, request):
    return SampleStore(tmp_path / "samples", request.param)


def test_a_sample_comes_back_as_it_was_stored(store):
    sample = draw_sample()
    assert store.find(NAME) is None
    store.add(NAME, sample, TRANSFORM)
    found = store.find(NAME)
    loaded = found.load("a name")
    assert loaded.name == "a name"
    for got, expected in zip(loaded[:3], sample[:3], strict=True):
        assert got.dtype == expected.dtype
        np.testing.assert_array_equal(got, expected)
    assert found.transform() == TRANSFORM


def test_a_sample_is_for_its_owner_only(store):
    path = store.add(NAME, draw_sample(), TRANSFORM).path
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_a_sample_is_a_safetensors_file_that_equal_samples_share_to_the_byte(tmp_path):
    paths = [
        SampleStore(tmp_path / name).add(NAME, draw_sample(), TRANSFORM).path
        for name in ("one", "two")
    ]
    assert paths[0].read_bytes() == paths[1].read_bytes()
    with safe_open(paths[0], framework="numpy") as file:
        assert list(file.metadata()) == ["mamfed"]
        assert json.loads(file.metadata()["mamfed"])["transform"]["size"] == 64
        np.testing.assert_array_equal(file.get_tensor("image"), draw_sample().image)


def test_an_image_in_the_clear_is_mapped_not_copied(tmp_path):
    image = SampleStore(tmp_path).add(NAME, draw_sample(), TRANSFORM).load("").image
    base = image
    while base.base is not None and not isinstance(base, np.memmap):
        base = base.base
    assert isinstance(base, np.memmap)


def test_an_encrypted_sample_does_not_hold_the_image(tmp_path):
    path = SampleStore(tmp_path, KEY).add(NAME, draw_sample(), TRANSFORM).path
    content = path.read_bytes()
    assert draw_sample().image[0].tobytes() not in content
    assert b"transform" not in content


def test_the_same_sample_encrypted_twice_differs(tmp_path):
    first = SampleStore(tmp_path, KEY).add(NAME, draw_sample(), TRANSFORM).path.read_bytes()
    assert SampleStore(tmp_path, KEY).add(NAME, draw_sample(), TRANSFORM).path.read_bytes() != first


def test_another_key_or_another_name_opens_nothing(tmp_path):
    path = SampleStore(tmp_path, KEY).add(NAME, draw_sample(), TRANSFORM).path
    with pytest.raises(DataError, match="encrypted with another key"):
        SampleStore(tmp_path, b"x" * 32).find(NAME).load("")
    other = digest("b" * 64, "", "L", 64, 1)
    (tmp_path / other[:2]).mkdir()
    (tmp_path / other[:2] / f"{other}.aes").write_bytes(path.read_bytes())
    with pytest.raises(DataError, match="encrypted with another key"):
        SampleStore(tmp_path, KEY).find(other).load("")


def test_a_sample_that_is_cut_off_is_none(tmp_path):
    store = SampleStore(tmp_path)
    path = store.add(NAME, draw_sample(), TRANSFORM).path
    whole = path.read_bytes()
    for cut in (b"", whole[:5], whole[:100], whole[:-1], whole + b"\0"):
        path.write_bytes(cut)
        assert store.find(NAME) is None


def test_a_flipped_bit_is_seen_when_the_sample_is_read_and_the_sample_is_removed(tmp_path):
    store = SampleStore(tmp_path)
    path = store.add(NAME, draw_sample(), TRANSFORM).path
    content = bytearray(path.read_bytes())
    content[-1000] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match="damaged"):
        store.find(NAME).load("")
    assert store.find(NAME) is None


def test_only_what_is_used_is_kept(tmp_path):
    other = digest("b" * 64, "", "L", 64, 1)
    clear, encrypted = SampleStore(tmp_path), SampleStore(tmp_path, KEY)
    for name in (NAME, other):
        clear.add(name, draw_sample(), TRANSFORM)
    encrypted.add(NAME, draw_sample(), TRANSFORM)
    encrypted.keep_only({NAME})
    assert [path.name for path in tmp_path.glob("??/*")] == [f"{NAME}.aes"]


def test_everything_the_sample_depends_on_is_in_its_name(monkeypatch):
    names = [
        digest("a", "m", "L", 64, 1),
        digest("b", "m", "L", 64, 1),
        digest("a", "n", "L", 64, 1),
        digest("a", "m", "R", 64, 1),
        digest("a", "m", None, 64, 1),
        digest("a", "m", "L", 65, 1),
        digest("a", "m", "L", 64, 2),
    ]
    monkeypatch.setattr("mamfed_client.preparation.sample_store.PREPARE_VERSION", 999)
    names.append(digest("a", "m", "L", 64, 1))
    assert len(set(names)) == len(names)


def test_a_store_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        SampleStore(tmp_path / "file").add(NAME, draw_sample(), TRANSFORM)


def test_the_cache_lies_where_the_environment_says(monkeypatch, tmp_path):
    monkeypatch.setenv("MAMFED_CACHE", "/elsewhere")
    assert str(default_cache_dir()) == "/elsewhere"
    monkeypatch.delenv("MAMFED_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert str(default_cache_dir()) == "/xdg/mamfed"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/someone")
    assert str(default_cache_dir()) == "/home/someone/.cache/mamfed"
