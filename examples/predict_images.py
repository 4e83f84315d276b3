"""Apply a checkpoint to DICOM files: a DICOM segmentation, pictures and a record of each."""

import sys
from pathlib import Path

from phantom_data import phantom_folders
from train_both_stages import main as train_a_model

from mamfed_client import PredictionRequest, predict_images


def main(folder: Path) -> Path:
    """Train a model below ``folder`` and predict two images; return the folder of predictions."""
    checkpoint = train_a_model(folder)
    images = sorted((phantom_folders(folder / "data")["borealis"] / "images").iterdir())[:2]
    out = folder / "predictions"
    document = predict_images(
        # A low threshold, because a model that was hardly trained is sure of nothing.
        PredictionRequest(checkpoint, tuple(images), out, threshold=0.01, device="cpu")
    )
    print(f"{document['images']} images in {out}")
    for path in sorted(out.rglob("*.dcm")):
        print("segmentation:", path.relative_to(out))
    return out


if __name__ == "__main__":
    main(Path(sys.argv[1]))
