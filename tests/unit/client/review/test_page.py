"""The page that a radiologist signs off."""

import base64
import csv
import re
import shutil
import struct
import zlib
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pydicom
import pytest

from mamfed_client.annotations.shapes import Annotation
from mamfed_client.imaging.doubts import Doubt
from mamfed_client.imaging.rejections import Reason
from mamfed_client.preparation.commands import Source, check
from mamfed_client.preparation.eligibility import ExclusionReason
from mamfed_client.preparation.summary import summarise_intake
from mamfed_client.review.contact_sheet import draw
from mamfed_client.review.explanations import EXPLANATIONS
from mamfed_client.review.page import write_check_page
from mamfed_client.review.show import LESION
from mamfed_common.errors import OutputError
from mamfed_simulations.phantoms.vendors import VENDORS, write_cohort

NOW = datetime(2026, 11, 29, 18, 0, tzinfo=UTC)
SCRIPT = "<script>alert(1)</script>"


class Page(HTMLParser):
    """What a browser would make of a page: tags with attributes, table rows, all text."""

    def __init__(self, html):
        super().__init__()
        self.html, self.tags, self.rows, self.said, self.in_cell = html, [], [], [], False
        self.feed(html)
        self.text = " ".join(" ".join(self.said).split())

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
            self.in_cell = True

    def handle_endtag(self, tag):
        self.in_cell = self.in_cell and tag not in ("td", "th")

    def handle_data(self, data):
        if self.lasttag != "style":
            self.said.append(data)
        if self.in_cell:
            self.rows[-1][-1] = " ".join(f"{self.rows[-1][-1]} {data}".split())

    def named(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]

    def dead_links(self):
        places = {"#" + attributes.get("id", "") for _, attributes in self.tags}
        return {link["href"] for link in self.named("a")} - places

    def pictures(self):
        """All pictures by row number, ``(H, W, 3)`` in RGB."""
        found = {}
        for image in self.named("img"):
            jpeg = base64.b64decode(image["src"].removeprefix("data:image/jpeg;base64,"))
            row = int(re.match(r"Row (\d+)", image["alt"])[1])
            found[row] = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
        return found


def near(picture, colour):
    """Pixels of about a colour: JPEG smears."""
    return np.abs(picture.astype(int) - colour).max(axis=-1) < 32


def mammogram(seed, *, lesion):
    """Half an ellipse on black, 181 x 131, with a disk of 15 pixels' radius about (39, 90)."""
    y, x = np.mgrid[:181, :131]
    levels = 90 + 50 * np.cos(x / 9) + np.random.default_rng(seed).normal(0, 5, x.shape)
    disk = (y - 90) ** 2 + (x - 39) ** 2 <= 15**2
    levels = np.where(lesion & disk, 240, levels)
    levels[((y - 90) / 76) ** 2 + (x / 92) ** 2 >= 1] = 0
    return levels.clip(0, 255).astype(np.uint8), disk * np.uint8(255)


ROWS = f"""\
image,mask,patient_id,laterality,view,pathology,spacing_mm,vendor
2<img src=x>.png,,P-one,L,CC,benign,0.07,Aurora
3.png,,P-two,L,CC,benign,0.1,{SCRIPT}
4.png,4-mask.png,P-three,L,CC,malignant,0.1,Aurora
5.png,5-mask.png,P-four,R,MLO,malignant,,Aurora
6.png,6-mask.png,P-five,L,CC,malignant,,{SCRIPT}
7.png,,P-six,L,CC,benign,,
8.png,,P-three,L,CC,benign,,Aurora
9.png,,P-seven,L,CC,,,
"""
"""5 lies the other way round, 6 has a mask twice its size, 7 is broken, 8 is of patient three."""


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    path = tmp_path_factory.mktemp("site")
    (path / "labels.csv").write_text(ROWS)
    for row in csv.DictReader(ROWS.splitlines()):
        number = int(row["image"][0])
        image, mask = mammogram(number, lesion=bool(row["mask"]))
        if number == 5:
            image, mask = image[:, ::-1], mask[:, ::-1]
        if number == 6:
            mask = np.kron(mask, np.ones((2, 2), np.uint8))
        cv2.imwrite(str(path / row["image"]), image)
        if row["mask"]:
            cv2.imwrite(str(path / row["mask"]), mask)
    (path / "7.png").write_bytes(b"no picture")
    return path


@pytest.fixture(scope="module")
def intake(site, tmp_path_factory):
    own = tmp_path_factory.mktemp("own")
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("MAMFED_CACHE", str(own / "cache"))
        environment.setenv("MAMFED_SECRET", str(own / "secret"))
        return check(Source(site))[0]


def write_page(path, intake, **options):
    options = {"folder": Path("/data/north-2026"), "now": NOW} | options
    write_check_page(path, summarise_intake(intake), intake, **options)
    return Page(path.read_text())


@pytest.fixture
def page(tmp_path):
    return partial(write_page, tmp_path / "page.html")


@pytest.fixture(scope="module")
def discreet(intake, tmp_path_factory):
    """The page with all pictures and without names."""
    return write_page(tmp_path_factory.mktemp("discreet") / "page.html", intake)


def test_the_page_says_what_the_folder_holds_and_what_it_can_be_used_for(intake, page):
    shown = page(intake, most=0)

    assert "7 images of 6 patients can be read: 2 for stage 1, 3 for stage 2." in shown.text
    assert "Layout labels : 8 images listed, 7 accepted, 1 rejected." in shown.text
    stages = {row[0]: row[2:] for row in shown.rows if row and len(row) == 4}
    assert stages["Stage 1"] == ["2", "2"]
    assert stages["Stage 2"] == ["3", "3"]
    assert stages["False alarms"] == ["3", "3"]
    because = {row[0]: row[1:] for row in shown.rows if row and len(row) == 3}
    explained = "The file is damaged, or its format is not supported."
    assert because["unreadable image"] == [f"{explained} row 7", "1"]
    assert because["patient has BI-RADS 3-6 or malignant row"][1] == "1"
    assert because["no pathology and no BI-RADS category"][1] == "1"
    assert because["malignant"] == ["", "3"]
    assert because["Aurora"] == ["", "4"]
    assert because["known"] == ["", "3"]
    assert because["on the image's grid"] == ["", "2"]
    assert because["on another, resampled"] == ["", "1"]
    for point in (
        "Rejected, cannot be used: 1 image",
        "Excluded from a stage by a rule: 2 images",
        "Pixel spacing unknown, so no sizes in mm: 4 images",
        "Mask of another size than its image, resampled: 1 mask",
        "Vendor unknown: 1 image",
    ):
        assert point in shown.text


def test_a_page_says_what_lies_beside_the_images_and_what_to_know_of_the_folder(intake, page):
    shown = page(replace(intake, notes=("rows 2, 3: one patient",)), most=0)
    assert ["mask or outline", "3"] in shown.rows
    assert ["table", "1"] in shown.rows
    assert "Remarks about this folder rows 2, 3: one patient" in shown.text


def test_refused_images_are_shown_first_beside_their_reason(site, tmp_path):
    """A mask of everything, a turned picture, an inverted one, and one that does not decode."""
    shutil.copytree(site, tmp_path / "site")
    site = tmp_path / "site"
    cv2.imwrite(str(site / "4-mask.png"), np.full((181, 131), 255, np.uint8))
    image = cv2.imread(str(site / "2<img src=x>.png"), cv2.IMREAD_UNCHANGED)
    cv2.imwrite(str(site / "2<img src=x>.png"), np.full_like(image, 90))

    shown = write_page(tmp_path / "page.html", check(Source(site))[0])

    spoken = [image["alt"] for image in shown.named("img")]
    assert spoken[:2] == [
        "Row 4, rejected: implausible mask, lesion outlined",
        "Row 2, rejected: no breast found",
    ]
    assert not any("Row 7" in words for words in spoken), "it does not decode"
    assert shown.html.index('id="refused"') < shown.html.index('id="folder"')
    assert "implausible mask it marks" in shown.text
    outlined = near(shown.pictures()[4], LESION)
    assert outlined[:6].any()
    assert outlined[-6:].any()
    assert shown.pictures()[2][:250, :180].std() < 2
    assert not shown.dead_links()


def test_a_picture_whose_pixels_contradict_it_is_shown_as_it_lies(site, tmp_path):
    """An inverted one, one whose bytes are swapped, and one with a tone curve."""
    shutil.copytree(site, tmp_path / "site")
    site = tmp_path / "site"
    levels, _ = mammogram(3, lesion=False)
    cv2.imwrite(str(site / "3.png"), 255 - levels)
    smooth = cv2.GaussianBlur(levels, (0, 0), 3).astype(np.uint16) * 257 // 3
    cv2.imwrite(str(site / "8.png"), smooth.byteswap())
    plain = (site / "9.png").read_bytes()
    gamma = struct.pack(">I4sI", 4, b"gAMA", 60000)
    curve = gamma + struct.pack(">I", zlib.crc32(gamma[4:]))
    (site / "9.png").write_bytes(plain[:33] + curve + plain[33:])

    intake, _ = check(Source(site))
    shown = write_page(tmp_path / "page.html", intake)

    spoken = [image["alt"] for image in shown.named("img")]
    assert {
        "Row 3, rejected: inverted grey levels",
        "Row 8, rejected: header contradicts pixels",
        "Row 9, rejected: unsupported image",
    } < set(spoken)
    pictures = shown.pictures()
    assert pictures[3][:, 150:170].mean() > 200, "its air is bright, as in the file"
    assert {r.row_number for r in intake.rejected} - set(pictures) == {7}


@pytest.mark.parametrize("vendor", VENDORS)
def test_a_dicom_file_that_its_header_inverts_is_shown_as_the_header_says(tmp_path, vendor):
    write_cohort(tmp_path / "site", VENDORS[vendor], benign=6, malignant=0, seed=1, scale=0.06)
    path = min((tmp_path / "site" / "images").iterdir())
    dataset = pydicom.dcmread(path)
    turned = dataset.PhotometricInterpretation == "MONOCHROME2"
    dataset.PhotometricInterpretation = "MONOCHROME1" if turned else "MONOCHROME2"
    dataset.PresentationLUTShape = "INVERSE" if turned else "IDENTITY"
    dataset.save_as(path)

    intake, _ = check(Source(tmp_path / "site"))
    shown = write_page(tmp_path / "page.html", intake)

    (refused,) = intake.rejected
    assert str(refused.reason) == "inverted grey levels"
    bright = (shown.pictures()[refused.row_number] > 200).all(axis=-1)
    assert bright.mean() > 0.25, "its air, which is more than the breast"


def test_a_picture_is_shown_but_never_used_though_its_reason_is_allowed(site, tmp_path):
    """What the page may look at, ``--allow`` does not let into training."""
    shutil.copytree(site, tmp_path / "site")
    levels, _ = mammogram(3, lesion=False)
    cv2.imwrite(str(tmp_path / "site" / "3.png"), 255 - levels)

    intake, _ = check(Source(tmp_path / "site", allow=frozenset(Reason)))

    assert "inverted grey levels" in [str(r.reason) for r in intake.rejected if r.row_number == 3]


def test_a_refused_image_that_may_hold_text_is_not_shown(tmp_path):
    look = next(iter(VENDORS.values()))
    write_cohort(tmp_path / "site", look, benign=6, malignant=0, seed=1, scale=0.06)
    first, second, *_ = sorted((tmp_path / "site" / "images").iterdir())
    for path, keyword, value in ((first, "BurnedInAnnotation", "YES"), (second, "Modality", "CR")):
        dataset = pydicom.dcmread(path)
        setattr(dataset, keyword, value)
        dataset.save_as(path)

    intake, _ = check(Source(tmp_path / "site"))
    shown = write_page(tmp_path / "page.html", intake)

    reasons = {str(r.reason) for r in intake.rejected}
    assert reasons == {"burned-in annotation", "wrong modality"}
    refused = [i["alt"] for i in shown.named("img") if "rejected" in i["alt"]]
    assert [words.split(": ")[1] for words in refused] == ["wrong modality"]


def test_a_page_is_one_private_file_that_loads_nothing(discreet, intake, page, tmp_path):
    page(intake, most=0)

    assert (tmp_path / "page.html").stat().st_mode & 0o777 == 0o600
    assert not {tag for tag, _ in discreet.tags} & {"script", "link", "iframe", "object"}
    assert not re.search(r"https?:|@import|url\(", discreet.html)
    assert all(p["src"].startswith("data:image/jpeg;base64,") for p in discreet.named("img"))


def test_a_page_can_be_read_aloud(discreet):
    spoken = [image["alt"] for image in discreet.named("img")]
    assert len(spoken) == 7
    assert "Row 4, left, CC: breast outlined and lesion outlined" in spoken
    assert "Row 2, left, CC: breast outlined" in spoken
    assert all(svg["aria-label"] for svg in discreet.named("svg"))
    levels = [int(tag[1]) for tag, _ in discreet.tags if re.fullmatch(r"h\d", tag)]
    assert levels[0] == 1
    assert all(below <= above + 1 for above, below in pairwise(levels))
    assert not discreet.dead_links()


def test_a_page_names_no_patient_and_files_only_when_asked(discreet, intake, page, site):
    naming = page(intake, names=True)

    for shown in (discreet, naming):
        assert "P-" not in shown.text
        assert str(site) not in shown.html
        assert intake.accepted[0].result.image_sha256 not in shown.html
    assert ".png" not in discreet.text
    assert "keep it at the site" not in discreet.text
    assert "4.png" in naming.text
    assert "It lists file names: keep it at the site." in naming.text
    assert "2<img src=x>.png" in naming.text
    assert all(image["src"] != "x" for image in naming.named("img"))


def test_markup_in_a_vendor_is_only_text(discreet):
    assert SCRIPT in discreet.text
    assert "script" not in {tag for tag, _ in discreet.tags}


def test_a_file_name_that_is_no_unicode_does_not_end_the_page(intake, page):
    case = intake.accepted[0]
    odd = replace(case, row=replace(case.row, image="\udcff.png"))

    assert "?.png" in page(replace(intake, accepted=(odd,)), names=True).text


def test_pictures_show_the_prepared_image_with_breast_and_lesion_around(discreet):
    """The breast is 151 rows high, the margin 3 on each side: 157 rows become 256 pixels.

    So the disk of 15 pixels' radius about (39, 90) comes to (64, 128), radius 25, and the line
    around it reaches two pixels further.
    """
    pictures = discreet.pictures()

    assert {picture.shape for picture in pictures.values()} == {(256, 256, 3)}
    for row in (4, 5, 6):
        y, x = np.nonzero(near(pictures[row], (213, 94, 0)))
        assert (x.min(), x.max()) == (pytest.approx(37, abs=2), pytest.approx(91, abs=2))
        assert (y.min(), y.max()) == (pytest.approx(101, abs=2), pytest.approx(155, abs=2))
        assert pictures[row][116:140, 52:76].min() > 200  # the lesion itself is left to be seen
    for row in (2, 4, 5):
        y, x = np.nonzero(near(pictures[row], (230, 159, 0)))
        assert (y.min(), y.max()) == (pytest.approx(5, abs=3), pytest.approx(251, abs=3))
        assert x.max() == pytest.approx(92 * 256 / 157, abs=4)
    assert not near(pictures[2], (213, 94, 0)).any()


def test_only_a_mirrored_image_is_marked_so(discreet):
    assert discreet.text.count("⇄ mirrored") == 1
    _, after = discreet.html.split('alt="Row 5, right, MLO')
    assert "⇄ mirrored" in after.split("</li>")[0]


def test_grey_levels_and_the_share_of_breast_are_those_of_the_image(intake):
    (drawn,), failed = draw([c for c in intake.accepted if c.row.row_number == 4])

    assert failed == []
    assert drawn.breast_share == pytest.approx(np.pi * 76 * 92 / 2 / (181 * 131), rel=0.03)
    assert drawn.levels.sum() == pytest.approx(1)
    lesion = np.pi * 15**2 / (np.pi * 76 * 92 / 2)
    assert drawn.levels[-1] == pytest.approx(lesion, rel=0.1)  # nothing else is as bright


def test_files_that_are_gone_since_are_counted_and_the_others_drawn(intake, page, tmp_path):
    gone = tmp_path / "gone.png"
    cases = [
        replace(c, row=replace(c.row, image_path=gone)) if c.row.row_number == 3 else c
        for c in intake.accepted
    ]
    cases = [
        replace(c, row=replace(c.row, annotations=(Annotation(gone),)))
        if c.row.row_number == 4
        else c
        for c in cases
    ]

    shown = page(replace(intake, accepted=tuple(cases)))

    assert "Could not be read again (rows 4, 3): 2 images" in shown.text
    assert len(shown.named("img")) == 5


def test_a_folder_without_a_usable_image_gets_a_page_that_says_so(intake, page):
    shown = page(replace(intake, accepted=()))

    assert "No image can be read." in shown.text
    assert "Contact sheet" not in shown.text
    assert "Sign-off" in shown.text
    assert not shown.dead_links()


def test_a_folder_whose_images_serve_no_stage_is_not_called_usable(intake, page):
    unlabelled = [c for c in intake.accepted if not c.purposes]

    shown = page(replace(intake, accepted=tuple(unlabelled)), most=0)

    assert "1 image of 1 patient can be read: 0 for stage 1, 0 for stage 2." in shown.text
    assert "No image here can be used for training" in shown.text


def test_a_folder_that_is_all_right_is_said_to_be(intake, page):
    good = replace(intake, accepted=intake.accepted[:3], rejected=(), excluded=Counter())

    shown = page(good, most=0)

    assert "The counts show nothing unusual" in shown.text


def test_absurd_spacings_do_not_end_the_page(intake, page):
    cases = [
        replace(c, row=replace(c.row, spacing_mm=spacing_mm))
        for c, spacing_mm in zip(intake.accepted, [1e308, 1e-323, 5e-324, 1e200], strict=False)
    ]

    assert "to 1,000,000 mm (row" in page(replace(intake, accepted=tuple(cases)), most=0).text


def test_the_same_folder_gives_the_same_page(discreet, intake, page):
    assert page(intake).html == discreet.html


def test_where_a_page_cannot_be_written_is_found_before_anything_is_drawn(tmp_path):
    with pytest.raises(OutputError, match="its folder does not exist"):
        write_check_page(tmp_path / "nowhere/page.html", {}, None, folder=tmp_path)
    with pytest.raises(OutputError, match="is a folder"):
        write_check_page(tmp_path, {}, None, folder=tmp_path)


def test_a_name_that_no_disk_takes_is_an_output_error(intake, tmp_path):
    with pytest.raises(OutputError, match="cannot be written"):
        write_page(tmp_path / ("x" * 300 + ".html"), intake, most=0)


def test_folder_and_date_stand_beside_the_signature(page, intake):
    found = page(intake)
    signing = found.html[found.html.index('id="signing"') :]
    for words in ("north-2026", "2026-11-29 18:00 UTC", "Reviewed by", "Date of signature"):
        assert words in signing
    assert "Folder north-2026, checked on 2026-11-29 18:00 UTC" in found.text


def test_a_page_replaces_an_earlier_page_and_no_other_file(tmp_path, intake):
    page = tmp_path / "check.html"
    write_page(page, intake, most=0)
    write_page(page, intake, most=0)
    page.write_text("<title>mine</title>")
    with pytest.raises(OutputError, match="page of mamfed"):
        write_page(page, intake, most=0)
    assert page.read_text() == "<title>mine</title>"


@pytest.mark.parametrize(
    ("densities", "said", "unsaid"),
    [
        ("AD", ["A almost all fat"], ["MIAS", "own"]),
        (("fatty", "dense-glandular"), ["its F, G and D", "MIAS' D is not BI-RADS' D"], ["own"]),
        (("F", "D"), ["A almost all fat", "its F, G and D"], ["own"]),
        (("scattered",), ["Other terms are the table's own"], ["MIAS", "BI-RADS"]),
        ((None,), [], ["MIAS", "own", "almost all fat"]),
    ],
)
def test_the_scale_of_breast_density_is_explained(page, intake, densities, said, unsaid):
    first, *_ = intake.accepted
    cases = [replace(first, row=replace(first.row, density=density)) for density in densities]
    html = page(replace(intake, accepted=tuple(cases)), most=0).html
    caption = html[html.index("<caption>Breast density") :]
    caption = caption[: caption.index("</caption>")].replace("&#39;", "'")
    for words in said:
        assert words in caption
    for words in unsaid:
        assert words not in caption


def test_every_reason_is_explained():
    assert {*map(str, Reason), *map(str, ExclusionReason)} == {*map(str, EXPLANATIONS)}


def test_doubtful_images_come_first_as_they_lie_in_their_files(folder, drawing, page):
    folder.malignant("P-one").malignant("P-two", laterality="R")
    image = drawing.breast(seed=7)[0][:, ::-1]
    drawing.png(folder.path / "images/2.png", image)
    upper = drawing.breast()[1][:, ::-1].copy()
    upper[:60] = False
    drawing.png(folder.path / "masks/2.png", upper.astype(float))

    found = page(check(Source(folder.write()))[0])

    assert [image["alt"][:5] for image in found.named("img")] == ["Row 3", "Row 2"]
    assert "Review these first" in found.text
    assert [Doubt.MASK_LARGE, Doubt.MASK_LARGE.sentence + " row 3", "1"] in found.rows
    assert found.text.index("74% of the breast 3") < found.text.index("Contact sheet")
    doubtful, sound = found.pictures()[3], found.pictures()[2]
    assert near(doubtful, LESION)[:, 128:].sum() > near(doubtful, LESION)[:, :90].sum()
    assert near(sound, LESION).any()
