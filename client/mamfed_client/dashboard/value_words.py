"""The values of ``policy.release.metrics`` in words that need no table beside them."""

from __future__ import annotations

VALUE_WORDS = {
    "counts": "counts that describe the data",
    "num_examples": "numbers of training images",
    "loss": "mean training loss",
    "split": "a hash of how patients are divided",
    "images": "number of images scored",
    "images_without_malignancy": "number of images without malignancy",
    "dice": "mean Dice",
    "iou": "mean intersection over union",
    "lesions": "number of lesions",
    "lesions_found": "number of lesions found",
    "false_positive_pixels": "mean pixels marked on images without malignancy",
    "auroc": "how well marks tell images with malignancy (AUROC)",
    "sensitivity_at_1": "sensitivity at one false mark an image",
    "dice_at": "mean Dice at nine thresholds",
    "lesions_redrawn": "number of lesions redrawn as healthy tissue",
    "redrawn_as_tissue": "number of these that look like the tissue around",
    "redrawn_minus_ring": "their mean difference from it",
}


def value_words(name: str) -> str:
    """Return a value's name in words; an unknown one as it is written."""
    return VALUE_WORDS.get(name, str(name).replace("_", " "))
