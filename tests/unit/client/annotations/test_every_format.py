"""Every annotation format with every contradiction it can have: right, or said; never silent."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from tests.unit.client.annotations.formats import BY_UID, EXPECTED, FORMATS, RIGHT, filled, table
from tests.unit.client.conftest import write_dicom

from mamfed_client.preparation.commands import Source, check

ROWS, COLUMNS = 320, 256
DOCS = Path(__file__).parents[4] / "docs/data.md"


def ring(x, y, across, down):
    angle = np.linspace(0, 2 * np.pi, 60, endpoint=False)
    return np.stack([x + across * np.cos(angle), y + down * np.sin(angle)], axis=1)


FRAME = np.array([[-1, -1], [COLUMNS, -1], [COLUMNS, ROWS], [-1, ROWS]], float)
LESION, BREAST = ring(70, 150, 20, 25), ring(-0.5, 160, 170, 135)
BESIDE = ring(225, 30, 14, 14)
HALF, SQUARE = (ROWS // 2, COLUMNS // 2), (ROWS, ROWS)
REGIONS = {
    "breast and lesion": [("breast", BREAST), ("lesion", LESION)],
    "malignant and benign": [("benign mass", ring(60, 240, 15, 15)), ("malignant mass", LESION)],
    "two unknown classes": [("type-a", BREAST), ("type-b", LESION)],
    "one unknown class": [("type-a", LESION)],
    "drawn at half size": [("lesion", (LESION + 0.5) / 2 - 0.5)],
    "marks nothing": [],
    "marks everything": [("lesion", FRAME)],
    "marks the breast": [("lesion", BREAST)],
    "lies beside the breast": [("lesion", BESIDE)],
}
SIZES = {"drawn at half size": HALF, "drawn at another aspect": SQUARE}


def mammogram(seed):
    rng = np.random.default_rng(seed)
    texture = sum(cv2.GaussianBlur(rng.random((ROWS, COLUMNS)), (0, 0), s) * s for s in (2, 6, 12))
    texture = (texture - texture.min()) / np.ptp(texture)
    return np.where(filled(BREAST, (ROWS, COLUMNS)), 900 + 2600 * texture, 0).astype(np.uint16)


def inverted(write, path, regions, size, image):
    """Turn what a picture marks around, after it was written."""
    around = np.ones(size, bool) & ~filled(LESION, size)
    outlines, _ = cv2.findContours(around.view(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    assert len(outlines) == 2
    inner = min((outline[:, 0].astype(float) for outline in outlines), key=len)
    write(path, [("lesion", np.vstack([FRAME, FRAME[:1], inner[::-1], inner[-1:]]))], size, image)


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    """Contradiction and format -> ``right``, a reason, a doubt, or what else became of it."""
    folder = tmp_path_factory.mktemp("formats")
    lines, cells = ["image,mask,patient_id,laterality,view,pathology"], []
    for what, expected in EXPECTED.items():
        for name in expected:
            number = len(cells)
            suffix, write = FORMATS[name]
            image = f"{number}.dcm", f"1.2.3.{number}"
            facts = {"Modality": "MG", "ImageLaterality": "L", "SOPInstanceUID": image[1]}
            write_dicom(folder / image[0], mammogram(number), **facts)
            about = ("other.dcm", "1.2.9") if what == "about another image" else image
            regions = REGIONS.get(what, [("lesion", LESION)])
            size = SIZES.get(what, (ROWS, COLUMNS))
            path = folder / f"mask-{number}{suffix}"
            if what == "inverted":
                inverted(write, path, regions, size, about)
            else:
                write(path, regions, size, about)
            lines.append(f"{image[0]},{path.name},P{number},L,CC,malignant")
            cells.append((what, name))
    (folder / "labels.csv").write_text("\n".join([*lines, ""]))
    own = tmp_path_factory.mktemp("own")
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("MAMFED_CACHE", str(own / "cache"))
        environment.setenv("MAMFED_SECRET", str(own / "secret"))
        intake, _ = check(Source(folder))
    found = {cells[r.row_number - 2]: f"{r.reason}: {r.detail}" for r in intake.rejected}
    return found | {cells[c.row.row_number - 2]: judged(c) for c in intake.accepted}


def judged(case):
    own = [found.doubt for found in case.doubts if found.doubt.about_mask]
    own = [doubt for doubt in own if not doubt.name.startswith("MASKS_")]
    if own:
        return ", ".join(own)
    marked, true = case.result.measures, filled(LESION, (ROWS, COLUMNS)).sum()
    close = abs(marked.mask_pixels / true - 1) < 0.06 and abs(marked.mask_rows - 50) <= 3
    return RIGHT if close else f"{marked.mask_pixels} pixels for {true}"


@pytest.mark.parametrize(
    ("what", "name"), [(what, name) for what, expected in EXPECTED.items() for name in expected]
)
def test_it_is_right_or_said(outcomes, what, name):
    assert outcomes[what, name].split(": ")[0] == str(EXPECTED[what][name]), outcomes[what, name]


def test_every_format_has_every_contradiction_that_it_can_have():
    always = {"as it should be", "breast and lesion", "marks nothing", "marks everything"}
    assert all(set(FORMATS) == set(EXPECTED[what]) for what in always)
    assert set(BY_UID) < set(EXPECTED["about another image"])


def test_the_documentation_has_the_table():
    assert table() in DOCS.read_text()
