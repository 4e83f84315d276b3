import os
import re
import time
from pathlib import Path

import pytest

from mamfed_common.errors import MamfedError, PlanError, SetupError
from mamfed_common.plan import read_plan
from mamfed_common.runtime.bounded import (
    DOCUMENT_BYTES,
    UnfitFileError,
    open_regular,
    parse_json,
    read_bytes,
)
from mamfed_common.runtime.documents import read_json, read_yaml
from mamfed_common.runtime.file_kinds import kind_of
from mamfed_common.runtime.yaml_text import MAX_VALUES
from mamfed_common.security.certificates import read_certificate
from mamfed_common.security.enrolment import EnrolmentRequest, read_request, read_welcome
from mamfed_common.security.keys import new_ec_key, read_key

ROOT = Path(__file__).parents[4]


@pytest.fixture
def pipe(tmp_path):
    path = tmp_path / "pipe"
    os.mkfifo(path)
    return path


READERS = [
    read_plan,
    read_request,
    read_welcome,
    read_certificate,
    lambda path: read_yaml(EnrolmentRequest, path),
    lambda path: read_json(EnrolmentRequest, path),
    lambda path: read_key(path, type(new_ec_key())),
]


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize("place", ["pipe", "/dev/zero", "/dev/stdin", "folder"])
def test_a_pipe_a_device_and_a_folder_are_refused_in_one_line(read, place, pipe, tmp_path):
    path = {"pipe": pipe, "folder": tmp_path}.get(place, Path(place))
    with pytest.raises(MamfedError) as caught:
        read(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_what_is_no_file_is_named(pipe, tmp_path):
    with pytest.raises(UnfitFileError, match="is a named pipe, expected a regular file"):
        open_regular(pipe)
    with pytest.raises(UnfitFileError, match="is a device"):
        read_bytes(Path("/dev/zero"), 10)
    with pytest.raises(IsADirectoryError):
        read_bytes(tmp_path, 10)
    assert kind_of(pipe) is None


def test_a_file_of_the_most_bytes_is_read_and_one_more_is_refused(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"x" * 10)
    assert read_bytes(path, 10) == b"x" * 10
    with pytest.raises(UnfitFileError, match="larger than 0 KiB"):
        read_bytes(path, 9)
    with pytest.raises(UnfitFileError):  # its size is given as 0
        read_bytes(Path("/proc/self/status"), 1)


DOCUMENTS = {
    "hexadecimal number": "pretraining: 0x" + "f" * 8000,
    "decimal number": "image_size: " + "9" * 5000,
    "month 13": "image_size: 2026-13-45",
    "no int": "image_size: !!int ''",
    "no bool": "image_size: !!bool x",
    "no timestamp": "image_size: !!timestamp x",
    "no binary": "image_size: !!binary '\x7f'",
    "list as key": "? [1]\n: 2",
    "a thousand million values": "a: &a [x,x,x,x,x,x,x,x,x,x]\n"
    + "".join(
        f"{c}: &{c} [{','.join([f'*{b}'] * 10)}]\n"
        for b, c in zip("abcdefgh", "bcdefghi", strict=True)
    ),
    "a list in itself": "image_size: &a [*a]",
    "keys": "".join(f"k{n}: 1\n" for n in range(MAX_VALUES)),
    "levels": "[" * 5000,
    "control characters": "a\x1b[2J: 1",
}


@pytest.mark.parametrize("text", DOCUMENTS.values(), ids=DOCUMENTS)
def test_a_hostile_plan_is_refused_in_one_short_line(text, tmp_path):
    path = tmp_path / "plan.yaml"
    path.write_text(text)
    started = time.process_time()
    with pytest.raises(PlanError) as caught:
        read_plan(path)
    assert time.process_time() - started < 20
    assert len(str(caught.value)) < 2000
    assert str(caught.value).isprintable()


def test_of_a_hundred_thousand_unknown_keys_a_few_are_named(tmp_path):
    path = tmp_path / "request.json"
    path.write_text("{" + ",".join(f'"k{n}":1' for n in range(80_000)) + "}")
    started = time.process_time()
    with pytest.raises(SetupError, match="and more; 80005 in all") as caught:
        read_request(path)
    assert time.process_time() - started < 20
    assert len(str(caught.value)) < 2000


def test_a_key_of_a_foreign_file_never_reaches_the_terminal_raw(tmp_path):
    path = tmp_path / "request.json"
    path.write_text('{"\\u001b[2J": 1}')
    with pytest.raises(SetupError) as caught:
        read_request(path)
    assert str(caught.value).isprintable()


def test_deep_json_is_no_json():
    with pytest.raises(ValueError, match="nested too deeply"):
        parse_json("[" * 1_000_000)


@pytest.mark.slow
def test_a_plan_of_the_most_bytes_takes_seconds(tmp_path):
    path = tmp_path / "plan.yaml"
    path.write_text("#" * (DOCUMENT_BYTES - 40_000) + "\nx: [" + "1," * 15_000 + "]\n")
    started = time.process_time()
    with pytest.raises(PlanError, match="more than 10,000 keys and values"):
        read_plan(path)
    assert time.process_time() - started < 30


UNBOUNDED = re.compile(
    r"\.read_bytes\(\)|\.read_text\(\s*\)|\.read_text\(encoding|(?<!def )(?<![.\w])open\("
    r"|\.open\(\"r|json\.load\(|yaml\.(safe_)?load\("
)
ALLOWED = {
    # its own text, or files of the kernel
    "common/mamfed_common/model/malloc.py",
    "common/mamfed_common/runtime/streams.py",
    "common/mamfed_common/runtime/yaml_text.py",
    "client/mamfed_client/sandbox/process.py",
    # what this process has just written
    "server/mamfed_server/export/plain.py",
    "server/mamfed_server/export/bundle.py",
}


def test_no_module_reads_a_file_past_the_bounds():
    """Every file is read by runtime/bounded.py; descriptors (os.open) are for locks and writing."""
    found = []
    for role in ("common", "client", "server", "simulations"):
        for path in sorted((ROOT / role).rglob("*.py")):
            name = str(path.relative_to(ROOT))
            for number, line in enumerate(path.read_text().splitlines(), 1):
                hit = UNBOUNDED.search(line.replace("os.open(", "").replace("safe_open(", ""))
                if hit and name not in ALLOWED and '"w"' not in line:
                    found.append(f"{name}:{number}: {line.strip()}")
    assert not found, "\n".join(found)
