"""What each reason for which an image is not used means, in a line for who looks at a folder."""

from __future__ import annotations

from mamfed_client.imaging.rejections import Reason
from mamfed_client.preparation.eligibility import ExclusionReason

EXPLANATIONS: dict[str, str] = {
    Reason.WRONG_CELLS: "The row has more or fewer cells than the header.",
    Reason.NO_PATIENT: "Neither table nor file says whose image it is.",
    Reason.BAD_LABEL: "The pathology or BI-RADS cell holds an unknown word.",
    Reason.BAD_LATERALITY: "The laterality cell holds neither L nor R.",
    Reason.BAD_SPACING: "The pixel spacing is not a positive number.",
    Reason.BAD_REVIEWED: "The reviewed cell says neither yes nor no.",
    Reason.PATH_LEAVES_FOLDER: "The table names a file outside the folder.",
    Reason.MISSING_IMAGE: "The table names an image that is not there.",
    Reason.OTHER_IMAGE: "The table names another side and view than the file: look at the row.",
    Reason.DUPLICATE_IMAGE: "The same picture is in the folder more than once.",
    Reason.UNREADABLE_IMAGE: "The file is broken, or of a format that is not known.",
    Reason.TRUNCATED: "The file ends before its image does: copy it again.",
    Reason.TOO_LARGE: "It would take more memory than any mammogram does.",
    Reason.TOO_SLOW: "Decoding was stopped after the time that is allowed.",
    Reason.DECODER_CRASHED: "The file ended the process that decoded it.",
    Reason.CONTRADICTION: "The pixels are not stored as the file's header says: export it again.",
    Reason.INVERTED: "The air is bright: save it with tissue bright, or correct the header.",
    Reason.UNSUPPORTED_SYNTAX: "Its compression (DICOM transfer syntax) is not read.",
    Reason.UNSUPPORTED_IMAGE: "A sound picture, but in colour, of several pages or odd bits.",
    Reason.NO_PIXELS: "A report, a DICOMDIR or another object without an image.",
    Reason.WRONG_MODALITY: "Not a mammogram by its Modality.",
    Reason.TOMOSYNTHESIS: "A stack of slices; only single 2D images are read.",
    Reason.FOR_PROCESSING: "Raw detector values; the image for presentation is needed.",
    Reason.SECONDARY_CAPTURE: "A screenshot or scan, unless the data set is stored so.",
    Reason.QUALITY_CONTROL: "A test object or a calibration, not a patient.",
    Reason.SPECIMEN: "An image of removed tissue.",
    Reason.BIOPSY: "Taken during a biopsy or by a stereotactic unit.",
    Reason.SPOT: "A spot compression: only a part of the breast is in view.",
    Reason.MAGNIFICATION: "A magnified view of a part of the breast.",
    Reason.IMPLANT: "An implant hides tissue.",
    Reason.IMPLANT_DISPLACED: "The implant is pushed back, which shows a part of the breast.",
    Reason.BURNED_IN: "Text is part of the picture, and may name a patient.",
    Reason.NO_LATERALITY: "Nothing says which breast it is.",
    Reason.MISSING_MASK: "The table names an annotation that is not there.",
    Reason.UNREADABLE_MASK: "The annotation is broken, or of a format that is not known.",
    Reason.MASK_SIZE: "The annotation is of another size and shape than its image.",
    Reason.UNKNOWN_CLASS: "Several classes: say which is malignant, --classes or --mask-values.",
    Reason.EMPTY_MASK: "The image is malignant, but its annotation outlines nothing.",
    Reason.IMPLAUSIBLE_IMAGE: "No mammogram looks so: an icon, or all one grey, as if inverted.",
    Reason.IMPLAUSIBLE_MASK: "It marks the whole breast, its surroundings or nearly everything.",
    Reason.DOUBTFUL_MASK: "Look at it; then say reviewed: yes in the table, or mend it.",
    Reason.NO_BREAST: "No breast can be told from the background.",
    ExclusionReason.SUSPICIOUS_PATIENT: "Stage 1 sees only patients of whom nothing suspicious is "
    "known.",
    ExclusionReason.UNCLEAR_PATIENT: "Another image of the patient has a label that is not "
    "understood.",
    ExclusionReason.NO_MASK: "Stage 2 needs the lesion's outline.",
    ExclusionReason.BOX_ONLY: "A box says where to look, not what the lesion is: draw its outline.",
    ExclusionReason.PROBABLY_BENIGN: "BI-RADS 3 alone says neither benign nor malignant.",
    ExclusionReason.NO_LABEL: "Nothing says whether it is malignant.",
}
