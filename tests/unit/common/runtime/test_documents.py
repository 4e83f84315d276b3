import pytest
import yaml
from pydantic import Field

from mamfed_common.config import Config
from mamfed_common.errors import SetupError
from mamfed_common.runtime.bounded import DOCUMENT_BYTES
from mamfed_common.runtime.documents import read_json, read_yaml, yaml_value


class Part(Config):
    size: int = Field(default=1, ge=1)


class Whole(Config):
    name: str
    part: Part = Part()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "settings.yaml"


def test_a_file_becomes_settings(path):
    path.write_text("name: north\npart: {size: 3}\n")
    assert read_yaml(Whole, path) == Whole(name="north", part=Part(size=3))
    assert read_json(Whole, _written(path, '{"name": "north"}')) == Whole(name="north")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("nam: x", "name: is missing; unknown key 'nam'"),
        ("name: x\nparts: {}", "unknown key 'parts', did you mean 'part'?"),
        ("name: x\npart: {sice: 3}", "unknown key 'part.sice', did you mean 'size'?"),
        ("name: x\npart: {qqq: 3}", "unknown key 'part.qqq'"),
        ("name: x\nsize: 3", "unknown key 'size', did you mean 'part.size'?"),
        ("name: x\npart: {size: 0}", "part.size: found 0, expected 1 or more"),
        ("name: [1]", "name: found [1], expected a text"),
        ("name: x\nname: y", "key 'name' is given twice"),
        ("name: [", "not valid YAML"),
        ("- x", "found list, expected a mapping"),
        ("", "is empty, expected at least one key"),
        ("# name: x", "is empty, expected at least one key"),
        ("!!python/object/apply:os.getcwd []", "not valid YAML"),
    ],
)
def test_a_mistake_is_one_line_with_file_and_key(path, text, words):
    path.write_text(text)
    with pytest.raises(SetupError) as caught:
        read_yaml(Whole, path)
    assert str(caught.value).startswith(f"{path}: ")
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_and_one_that_is_no_text_are_named(path):
    with pytest.raises(SetupError, match="cannot be read: No such file"):
        read_yaml(Whole, path)
    path.write_bytes(b"name: \xff")
    with pytest.raises(SetupError, match="cannot be read: not UTF-8 text"):
        read_yaml(Whole, path)


def test_a_huge_file_is_refused_without_being_read_whole(path):
    with path.open("wb") as file:
        file.truncate(DOCUMENT_BYTES * 4096)
    with pytest.raises(SetupError, match="larger than 1 MiB"):
        read_json(Whole, path)


@pytest.mark.parametrize("text", ["{", "[" * 100_000, "nul"])
def test_what_is_no_json_is_refused(path, text):
    with pytest.raises(SetupError, match="not valid JSON"):
        read_json(Whole, _written(path, text))


def test_a_file_that_a_full_disk_has_left_empty_says_so(path):
    with pytest.raises(SetupError, match="is empty; ask for the file again"):
        read_json(Whole, _written(path, ""))


def test_a_long_value_is_shortened(path):
    with pytest.raises(SetupError) as caught:
        read_yaml(Whole, _written(path, f"name: [{'x' * 5000}]"))
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    "value",
    [
        "",
        "north",
        "a: b # c",
        "on",
        "null",
        "1e3",
        "Süd 😀",
        'q"\\',
        "a\x7f\x85b",
        3,
        None,
        True,
        [],
        ["*"],
        ["localhost", "::1"],
        {"name": "a", "folder": "/x y/[z]"},
        "w " * 200,
    ],
)
def test_a_value_written_as_yaml_comes_back(value):
    line = f"key: {yaml_value(value)}"
    assert "\n" not in line
    assert yaml.safe_load(line) == {"key": value}


def _written(path, text):
    path.write_text(text)
    return path
