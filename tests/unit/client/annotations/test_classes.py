"""Which regions are malignant findings, by what a file calls them: one rule for all readers."""

import pytest

from mamfed_client.annotations.classes import (
    ClassMeaning,
    MalignantClasses,
    choose_classes,
    choose_values,
    kind_of,
)
from mamfed_client.imaging.rejections import FileRejected, Reason


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        (
            ClassMeaning.MALIGNANT,
            "malignant, Malignant Mass, mass_malignant, BreastCancer, invasive carcinoma, DCIS, "
            "BI-RADS 5, birads_4a, malignant breast lesion, Karzinom, bösartig",
        ),
        (
            ClassMeaning.FINDING,
            "mass, Mass_2, Masses, lesion, Calcification, calcs, microcalcifications, Cluster, "
            "Distortion, Asymmetry, Assymetry, Espiculated Region, breast mass, tumour, Läsion, "
            "Suspicious area, skin lesion, finding",
        ),
        (
            ClassMeaning.OTHER,
            "benign, BENIGN_MASS, benign calcification, non-malignant, not malignant, no cancer, "
            "normal, breast, Skin, nipple, PectoralMuscle, pectoral muscle, fibroglandular tissue, "
            "dense_tissue, background, lymph node, vessel, marker, clip, artifact, BI-RADS 2, "
            "cyst, fibroadenoma, no finding, vascular calcification, gutartig",
        ),
        (
            ClassMeaning.PLAIN,
            ", LAYER1, ROI 3, region, Unnamed, Point 1, annotation, Image Region, Segment_1, none",
        ),
        (ClassMeaning.UNKNOWN, "1, 17, xyz, Tosca, type_b, class 3"),
    ],
)
def test_a_name_says_what_it_is(kind, names):
    assert {name: kind_of(name) for name in names.split(", ")} == {
        name: kind for name in names.split(", ")
    }


@pytest.mark.parametrize(
    ("names", "taken"),
    [
        ("mass", "mass"),
        ("mass|calcification", "mass|calcification"),
        ("breast|lesion", "lesion"),
        ("benign mass|malignant mass", "malignant mass"),
        ("malignant|calcification|breast", "malignant"),
        ("pectoral muscle|", ""),
        ("Mass|Unnamed|Point 1", "Mass|Unnamed|Point 1"),
        ("17", "17"),
    ],
)
def test_malignant_findings_alone_are_taken(names, taken):
    assert choose_classes(names.split("|"), (), ()) == set(taken.split("|"))


@pytest.mark.parametrize("names", ["1|2", "mass|xyz", "|xyz", "malignant|xyz"])
def test_a_name_that_is_not_known_beside_others_is_refused(names):
    with pytest.raises(FileRejected, match="name the malignant ones with --classes") as caught:
        choose_classes(names.split("|"), (), ())
    assert caught.value.reason is Reason.UNKNOWN_CLASS


def test_the_classes_of_other_images_count_too():
    with pytest.raises(FileRejected, match="class not known: 1"):
        choose_classes(["1"], ["1", "2"], ())
    assert choose_classes(["mass"], ["mass", "xyz"], ()) == {"mass"}


@pytest.mark.parametrize("names", ["breast", "benign|skin", "normal"])
def test_an_image_without_a_malignant_finding_has_no_mask(names):
    with pytest.raises(FileRejected, match="no malignant finding among") as caught:
        choose_classes(names.split("|"), (), ())
    assert caught.value.reason is Reason.EMPTY_MASK


def test_the_classes_that_the_site_names_are_taken_whatever_they_are():
    assert choose_classes(["xyz", "mass", "1"], (), ["XYZ", "1"]) == {"xyz", "1"}
    with pytest.raises(FileRejected, match="no malignant finding among mass"):
        choose_classes(["mass"], (), ["xyz"])


def test_what_may_be_a_person_is_not_quoted():
    with pytest.raises(FileRejected) as caught:
        choose_classes(["Doe^Jane 19500101", "mass"], (), ())
    assert "Doe" not in str(caught.value)


@pytest.mark.parametrize(
    ("names", "taken"),
    [("0|255", "255"), ("0|1", "1"), ("#000000|#ff0000", "#ff0000"), ("255", "255"), ("0", "")],
)
def test_the_only_value_beside_the_background_is_taken(names, taken):
    assert choose_values(names.split("|"), ()) == set(filter(None, taken.split("|")))


@pytest.mark.parametrize(
    "names", ["0|1|2", "1|2", "#000000|#ff0000|#00ff00", "#ff0000|#00ff00", "100|255"]
)
def test_several_values_or_none_that_is_background_are_refused(names):
    with pytest.raises(
        FileRejected, match="name the malignant values with --mask-values"
    ) as caught:
        choose_values(names.split("|"), ())
    assert caught.value.reason is Reason.UNKNOWN_CLASS


def test_the_values_that_the_site_names_are_taken():
    assert choose_values(["0", "1", "2"], ["2"]) == {"2"}
    assert choose_values(["0", "255"], ["0"]) == {"0"}
    with pytest.raises(FileRejected, match="no malignant finding among 0, 255"):
        choose_values(["0", "255"], ["2"])


def test_a_table_comes_before_the_command_line():
    assert MalignantClasses(("a",)).or_else(MalignantClasses(("b",), ("2",))) == MalignantClasses(
        ("a",), ("2",)
    )
