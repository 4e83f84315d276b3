import json
import stat

import numpy as np
import pytest
from safetensors import safe_open

from mamfed_client.cache import Entry, Source, cached, default_cache_dir
from mamfed_client.rejections import Reason, Refusal
from mamfed_common.errors import DataError, OutputError


@pytest.fixture
def source(tmp_path, drawing):
    breast, lesion = drawing.breast()[0], drawing.lesion()
    drawing.png(tmp_path / "Secret_Name.png", np.where(lesion, 0.95, breast), bits=16)
    drawing.png(tmp_path / "mask.png", lesion.astype(float))
    return Source(tmp_path / "Secret_Name.png", tmp_path / "mask.png", "L", 64)


def test_a_sample_comes_back_as_it_was_prepared(source, tmp_path):
    entry = cached(source, tmp_path / "cache")
    sample = entry.load("a name")
    assert sample.name == "a name"
    assert sample.image.dtype == np.uint16
    assert sample.field.dtype == sample.mask.dtype == bool
    assert sample.image.shape == (64, 64)
    assert sample.mask.any()
    assert (sample.field | ~sample.mask).all()
    assert entry.transform.size == 64


def test_a_second_look_prepares_nothing(source, tmp_path, monkeypatch):
    first = cached(source, tmp_path / "cache")
    monkeypatch.setattr("mamfed_client.cache.prepare", None)
    assert cached(source, tmp_path / "cache") == first


def test_the_file_tells_no_names_and_is_readable_by_its_owner_only(source, tmp_path):
    path = cached(source, tmp_path / "cache").path
    assert "ecret" not in path.name
    assert b"ecret" not in path.read_bytes()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    with safe_open(path, framework="numpy") as file:
        assert list(file.metadata()) == ["mamfed"]
        assert json.loads(file.metadata()["mamfed"])["transform"]["size"] == 64


def test_equal_content_is_one_entry_whatever_the_file_is_called(source, tmp_path):
    other = tmp_path / "other.png"
    other.write_bytes(source.image_path.read_bytes())
    again = Source(other, source.mask_path, "L", 64)
    assert cached(again, tmp_path / "cache").path == cached(source, tmp_path / "cache").path


def test_everything_the_sample_depends_on_is_in_its_name(source, tmp_path, drawing, monkeypatch):
    image, mask = source.image_path, source.mask_path
    digests = [
        source.digest(),
        Source(image, mask, "L", 65).digest(),
        Source(image, mask, "R", 64).digest(),
        Source(image, None, "L", 64).digest(),
        Source(mask, mask, "L", 64).digest(),
    ]
    drawing.png(mask, np.ones((181, 131)))
    digests.append(source.digest())
    monkeypatch.setattr("mamfed_client.cache.PREPARE_VERSION", 999)
    digests.append(source.digest())
    assert len(set(digests)) == len(digests)


def cut(content):
    return content[:-10]


def flip_a_bit(content):
    return content[:-1000] + bytes([content[-1000] ^ 1]) + content[-999:]


def rename_the_transform(content):
    return content.replace(b"flipped", b"flopped")


@pytest.mark.parametrize(
    "damage", [cut, flip_a_bit, rename_the_transform, lambda _: b"", lambda _: b"garbage" * 99]
)
def test_a_damaged_entry_is_remade(source, tmp_path, damage):
    entry = cached(source, tmp_path / "cache")
    content = entry.path.read_bytes()
    entry.path.write_bytes(damage(content))
    assert Entry.open(entry.path) is None
    assert cached(source, tmp_path / "cache") == entry
    assert entry.path.read_bytes() == content


def test_an_entry_that_vanishes_during_training_is_an_error_that_says_what_to_do(source, tmp_path):
    entry = cached(source, tmp_path / "cache")
    entry.path.unlink()
    with pytest.raises(DataError, match="start again"):
        entry.load("a name")


def test_a_source_that_vanished_is_refused(tmp_path):
    with pytest.raises(Refusal) as caught:
        cached(Source(tmp_path / "absent.png", None, None, 64), tmp_path / "cache")
    assert caught.value.reason is Reason.UNREADABLE_IMAGE


def test_a_cache_that_cannot_be_written_is_one_line(source, tmp_path):
    (tmp_path / "cache").write_text("a file, not a folder")
    with pytest.raises(OutputError, match="cache cannot be written"):
        cached(source, tmp_path / "cache")


def test_the_default_place_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("MAMFED_CACHE")
    assert default_cache_dir() == tmp_path / ".cache" / "mamfed"
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    assert str(default_cache_dir()) == "/x/mamfed"
    monkeypatch.setenv("MAMFED_CACHE", "/c")
    assert str(default_cache_dir()) == "/c"
