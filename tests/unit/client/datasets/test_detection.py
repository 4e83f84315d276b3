import pytest

from mamfed_client.datasets import LAYOUTS, read_folder
from mamfed_common.errors import DataError


def write(folder, name, text=""):
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text)


TABLES = {
    "labels": ("labels.csv", "image,patient_id,birads\n1.png,P,1\n"),
    "inbreast": ("INbreast.csv", "Laterality;View;File Name;ACR;Bi-Rads\nR;CC;1;1;1\n"),
    "cbis-ddsm": (
        "calc_case_description_test_set.csv",
        "patient_id,left or right breast,image view,assessment,pathology,image file path,"
        "ROI mask file path\nP,LEFT,CC,2,BENIGN,a/0.dcm,a_1/0.dcm\n",
    ),
    "vindr-mammo": (
        "finding_annotations.csv",
        "study_id,image_id,laterality,view_position,breast_birads,breast_density,"
        "xmin,ymin,xmax,ymax\ns,i,L,CC,BI-RADS 1,DENSITY A,,,,\n",
    ),
    "cdd-cesm": (
        "Radiology-manual-annotations.csv",
        "Image_name,Patient_ID,Side,Type,View,BIRADS,Breast density (ACR),"
        "Pathology Classification/ Follow up\nP1_L_DM_CC,1,L,DM,CC,1,A,Normal\n",
    ),
    "mini-mias": ("Info.txt", "mdb003 D NORM\n"),
}
FOLDERS = ("AllDICOMs", "images", "Low energy images of CDD-CESM")


def lay_out(folder, layout):
    write(folder, *TABLES[layout])
    for name in FOLDERS:
        (folder / name).mkdir(exist_ok=True)


@pytest.mark.parametrize("layout", TABLES)
def test_a_layout_is_recognised_by_its_table(tmp_path, layout):
    lay_out(tmp_path, layout)
    write(tmp_path, "images/1.png")
    manifest = read_folder(tmp_path)
    assert (manifest.layout, manifest.folder) == (layout, tmp_path)
    assert len(manifest.rows) + len(manifest.rejected) == 1


def test_image_files_without_a_known_table_are_a_bare_folder(tmp_path):
    write(tmp_path, "IM0001")
    write(tmp_path, "Info.txt", "The images of ward 3. mdb001 is not among them.\n")
    assert read_folder(tmp_path).layout == "dicom"


def test_two_layouts_in_one_folder_are_an_error_until_one_is_named(tmp_path):
    lay_out(tmp_path, "labels")
    lay_out(tmp_path, "inbreast")
    with pytest.raises(DataError, match=r"labels.csv and INbreast.csv.* labels or inbreast"):
        read_folder(tmp_path)
    assert read_folder(tmp_path, "inbreast").layout == "inbreast"
    assert read_folder(tmp_path, "labels").layout == "labels"
    write(tmp_path, "1.dcm")
    assert read_folder(tmp_path, "dicom").layout == "dicom"


def test_a_folder_without_images_is_an_error_that_names_what_was_looked_for(tmp_path):
    write(tmp_path, "README.md")
    write(tmp_path, "Info.txt", "nothing here")
    with pytest.raises(DataError, match="looked for") as caught:
        read_folder(tmp_path)
    for words in (*LAYOUTS, "labels.csv", "INbreast.csv", "finding_annotations.csv", "Info.txt"):
        assert words in str(caught.value)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_layout_asked_for_by_name_must_be_there(tmp_path, layout):
    with pytest.raises(DataError, match=str(tmp_path)) as caught:
        read_folder(tmp_path, layout)
    assert "\n" not in str(caught.value)


def test_an_unknown_layout_is_an_error_that_lists_the_known(tmp_path):
    with pytest.raises(DataError, match=r"'ddsm' is unknown; expected one of labels, inbreast"):
        read_folder(tmp_path, "ddsm")


@pytest.mark.parametrize("layout", [name for name in TABLES if name not in ("labels", "mini-mias")])
def test_a_table_without_its_columns_is_an_error_that_names_one(tmp_path, layout):
    lay_out(tmp_path, layout)
    name, text = TABLES[layout]
    header, _, rows = text.partition("\n")
    for column in header.replace(";", ",").split(","):
        write(tmp_path, name, f"{header.replace(column, 'x')}\n{rows}")
        with pytest.raises(DataError, match=r"is missing|twice"):
            read_folder(tmp_path)
