"""What a package's layout may do wrong, each in one line or one rejected row."""

import importlib
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from mamfed_client.annotations.shapes import Annotation
from mamfed_client.datasets import read_folder
from mamfed_client.datasets.installed_layout import InstalledLayout
from mamfed_client.datasets.manifest import Manifest, PatientStatement, Row
from mamfed_client.imaging.rejections import Reason
from mamfed_client.tables.field_parsers import parse_label
from mamfed_common.errors import DataError

BENIGN = parse_label("benign", "")


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    for name in ("a.png", "b.png", "mask.png"):
        (folder / name).touch()
    (tmp_path / "outside.png").touch()
    return folder


def layout(rows=(), *, name="mine", **attributes):
    def read(folder):
        listed = [row(folder) for row in rows]
        statements = [PatientStatement(row.row_number, "P", BENIGN, "") for row in listed]
        return Manifest(folder, "mine", listed, [], statements)

    module = {"LAYOUT": name, "HOLDS": "mine.txt", "is_here": lambda folder: True, "read": read}
    return SimpleNamespace(**module | attributes)


def row(number=1, path="a.png", marks=(), **fields):
    return lambda folder: Row(
        number,
        path,
        folder / path,
        tuple(Annotation(folder / mark) for mark in marks),
        "P",
        fields.pop("label", BENIGN),
        **fields,
    )


def test_every_file_that_a_row_names_is_counted(folder):
    read = InstalledLayout("mine", layout([row(marks=["mask.png"])])).read(folder)
    assert read.images == {folder / "a.png"}
    assert read.outlines == {folder / "mask.png"}
    assert not read.rejected


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (row(laterality="C"), Reason.BAD_LATERALITY),
        (row(path="../outside.png"), Reason.PATH_LEAVES_FOLDER),
        (row(marks=["../outside.png"]), Reason.PATH_LEAVES_FOLDER),
        (row(path="c.png"), Reason.MISSING_IMAGE),
        (row(marks=["c.png"]), Reason.MISSING_MASK),
        (row(marks=["a.png"]), Reason.UNREADABLE_MASK),
        (row(label=None), Reason.BAD_LABEL),
    ],
)
def test_a_row_that_breaks_a_rule_is_rejected_and_costs_no_other(folder, bad, reason):
    read = InstalledLayout("mine", layout([bad, row(2, "b.png")])).read(folder)
    assert [(r.row_number, r.reason) for r in read.rejected] == [(1, reason)]
    assert [r.row_number for r in read.rows] == [2]


def test_an_image_that_two_rows_name_is_used_once(folder):
    read = InstalledLayout("mine", layout([row(1), row(2)])).read(folder)
    assert [(r.row_number, r.reason) for r in read.rejected] == [(2, Reason.DUPLICATE_IMAGE)]


def fails(folder: Path):
    raise KeyError("patient Jane Doe")


@pytest.mark.parametrize("function", ["read", "is_here"])
def test_an_error_in_the_package_is_one_line_without_its_text(folder, function):
    broken = InstalledLayout("mine", layout(**{function: fails}))
    with pytest.raises(
        DataError, match=r"layout 'mine' failed with KeyError in .*py, line \d+"
    ) as e:
        getattr(broken, function)(folder)
    assert "Jane" not in str(e.value)


@pytest.mark.parametrize(
    ("module", "words"),
    [
        (SimpleNamespace(LAYOUT="mine"), "lacks HOLDS, is_here, read"),
        (layout(name="other"), "has LAYOUT = 'other'; expected the name of its entry point"),
    ],
)
def test_an_incomplete_module_is_named(module, words):
    with pytest.raises(DataError, match=words):
        InstalledLayout("mine", module)


@pytest.mark.parametrize("returned", [None, [], "rows"])
def test_what_is_no_manifest_is_refused(folder, returned):
    with pytest.raises(DataError, match="read returned a"):
        InstalledLayout("mine", layout(read=lambda folder: returned)).read(folder)


class TestInstalled:
    @pytest.fixture
    def install(self, tmp_path, monkeypatch):
        site = tmp_path / "site-packages"

        def install(package, entry, source):
            information = site / f"{package}-1.0.dist-info"
            information.mkdir(parents=True)
            (information / "METADATA").write_text(f"Name: {package}\nVersion: 1.0\n")
            text = f"[mamfed.layouts]\n{entry} = {package}_layout\n"
            (information / "entry_points.txt").write_text(text)
            (site / f"{package}_layout.py").write_text(source)

        monkeypatch.syspath_prepend(site)
        importlib.invalidate_caches()
        yield install
        for name in [name for name in sys.modules if name.endswith("_layout") and "." not in name]:
            del sys.modules[name]

    @pytest.fixture
    def labelled(self, folder):
        (folder / "labels.csv").write_text("image,patient_id,birads\na.png,P1,2\n")
        return folder

    def test_a_broken_package_does_not_stand_in_the_way_of_a_named_layout(self, install, labelled):
        install("broken", "theirs", "import no_such_module\n")
        assert read_folder(labelled, "labels").layout == "labels"
        with pytest.raises(DataError, match="layout 'theirs': cannot import"):
            read_folder(labelled)

    def test_a_built_in_name_cannot_be_taken(self, install, labelled):
        install("thief", "labels", "LAYOUT = 'labels'\n")
        with pytest.raises(DataError, match="'labels' is offered by mamfed and thief"):
            read_folder(labelled, "labels")

    def test_two_packages_with_one_name_are_named(self, install, labelled):
        install("one", "theirs", "")
        install("two", "theirs", "")
        with pytest.raises(DataError, match=r"'theirs' is offered by (one and two|two and one)"):
            read_folder(labelled, "theirs")
