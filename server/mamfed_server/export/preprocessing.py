"""How to prepare a mammogram for the network, and how to read its outputs.

``mamfed_client.imaging.preprocess`` does it. The coordinator has no client code, so that its
constants are repeated here; a test compares them.
"""

from __future__ import annotations

from mamfed_common.checkpoint import CheckpointFacts
from mamfed_common.model.unet import UNet

MARGIN = 0.02
BLACK_SHARE, WHITE_SHARE = 0.005, 0.998
PREPARE_VERSION = 2

USE = "Research use only. Not a medical device; not for diagnosis or treatment."


def preprocessing_of(facts: CheckpointFacts) -> dict[str, object]:
    """Return the contents of ``preprocessing.json`` and the ONNX metadata: numbers and steps."""
    plan = facts.plan
    multiple = UNet(plan.network).multiple
    chosen, origin = facts.plan_at(None)
    return {
        "use": USE,
        "image_size": plan.image_size,
        "multiple": multiple,
        "smallest_side": 2 * multiple,
        "input": "image: float32 (N, 1, H, W), 0..1, tissue bright, chest wall at the left",
        "outputs": _outputs(plan.network.head),
        "orientation": "chest wall at the left: right breasts are mirrored left to right",
        "margin": MARGIN,
        "black_share": BLACK_SHARE,
        "white_share": WHITE_SHARE,
        "interpolation": "area means when shrinking, bilinear when enlarging",
        "padding": "0, at the right and at the bottom, after rescaling",
        "steps": _steps(plan.image_size, multiple),
        "threshold": chosen.evaluation.threshold,
        "threshold_from": THRESHOLD_ORIGINS[origin],
        "prepare_version": PREPARE_VERSION,
        "trained_precision": plan.precision,
        "plan_sha256": facts.plan_sha256,
        "weights_sha256": facts.weights_sha256,
        "mamfed_version": facts.mamfed_version,
    }


THRESHOLD_ORIGINS = {
    "checkpoint": "chosen on the sites' validation patients, for the highest mean Dice",
    "plan": "the plan's; no validation chose one",
}


def _outputs(head: str) -> dict[str, str]:
    outputs = {
        "malignancy": "float32 (N, 1, H, W), probability 0..1; means nothing outside the breast"
    }
    if head == "subtraction":
        outputs["reconstruction"] = (
            "float32 (N, 1, H, W), what is subtracted from the image, about 0..1; no picture of "
            "tissue: it is dark where malignancy is probable"
        )
    return outputs


def _steps(size: int, multiple: int) -> list[str]:
    return [
        "Take the grey levels with tissue bright: MONOCHROME1 is inverted, the VOI LUT or window "
        "applied.",
        "Find the breast, without labels, tape, frames and padding.",
        f"Crop to its box and a margin of {MARGIN} of the box's longer side.",
        "Take two grey levels of the breast on the whole image: black, which a share of "
        f"{BLACK_SHARE} of it does not exceed, and white, which {WHITE_SHARE} does not exceed.",
        f"Rescale, without stretching, so that the longer side is {size} pixels: area means when "
        "shrinking, bilinear interpolation when enlarging.",
        "Mirror left to right where the chest wall is at the right.",
        f"Pad with 0 at the right and at the bottom to {size} x {size}.",
        "Map black to 0 and white to 1, clip to 0..1, and set all outside the breast to 0.",
        f"Where a side is no multiple of {multiple}, or less than {2 * multiple}, repeat the last "
        "row or column until it is; cut that off the outputs again.",
        "Set the malignancy outside the breast to 0; from the threshold on, a pixel is marked.",
    ]
