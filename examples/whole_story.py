"""The whole of mamfed in one script: from DICOM folders to a DICOM segmentation.

Usage: python examples/whole_story.py FOLDER

Three synthetic hospitals, each with another vendor's scanner, train one network together and never
share an image. Then a hospital marks new mammograms. It takes seconds, because everything is tiny.
"""

import sys
from pathlib import Path

import pydicom

from mamfed_client import PredictionRequest, Site, load_site, predict_images, read_folder
from mamfed_common import load_checkpoint, parse_plan
from mamfed_server import Job, RunFolder
from mamfed_simulations import VENDORS, run_federation, write_cohort

# 1. The plan. The coordinator writes it, every hospital approves it, and all train by it.
PLAN = """
image_size: 32                    # 1536 in earnest
network: {channels: [4, 8], first_skip_level: 1, stem: 1, smoothing: 1}
pretraining: {rounds: 1, local_epochs: 1, learning_rate: 0.002}
finetuning: {rounds: 2, local_epochs: 1, batch_size: 2, learning_rate: 0.002}
federation: {weights: sqrt, max_share: 0.5}
personal: {steps: 0}
"""


def main(folder: Path) -> Path:
    """Tell the story below ``folder``; return one DICOM segmentation."""
    plan = parse_plan(PLAN, "PLAN")

    # 2. The hospitals. A real one has a folder of DICOM files with masks and a labels.csv, or a
    # public data set as it downloads (docs/data.md). Ours are drawn.
    hospitals = []
    for name, look in VENDORS.items():
        data = folder / "hospitals" / name
        write_cohort(data, look, benign=5, malignant=8, seed=3, scale=0.06)
        hospitals.append(Site(name, ((name, data),), folder / "cache"))

    # 3. A folder becomes samples: files are listed, decoded in a sandbox, checked (is it a
    # screening view? is the outline readable?), cropped and scaled; patients are split into parts.
    for site in hospitals:
        manifest = read_folder(site.cohorts[0][1])
        description = load_site(site, plan).describe()
        print(f"{site.name}: {len(manifest.rows)} rows; usable: {description.images}")

    # 4. The federation. In each round the coordinator sends weights, the hospitals train them on
    # their own images, and the strategy averages the updates. Stage 1 learns healthy tissue from
    # benign images; stage 2 learns to mark malignant findings.
    job = Job(
        plan=plan,
        folder=folder / "run",
        num_nodes=len(hospitals),
        on_round=lambda record: print(
            f"{record.stage} round {record.server_round}: "
            + ", ".join(f"{site} {c.share:.0%}" for site, c in record.accepted.items())
        ),
    )
    run_federation(hospitals, job, threads=1)

    # 5. The result: a run folder, whose best model was chosen on validation patients and measured
    # on test patients that no training has seen.
    run = RunFolder(job.folder)
    arm = run.read_summary()["arms"]["federated"]
    print("mean Dice on test patients:", arm["mean_dice"])
    best = run.checkpoint_path("best")
    print(f"best model: round {load_checkpoint(best).facts.server_round}, {best}")

    # 6. New mammograms at a hospital: a DICOM segmentation, pictures and a record for each.
    new = sorted((folder / "hospitals" / "borealis" / "images").iterdir())[-2:]
    out = folder / "predictions"
    predict_images(PredictionRequest(best, tuple(new), out, threshold=0.01, device="cpu"))
    segmentation = sorted(out.rglob("*.dcm"))[0]
    dataset = pydicom.dcmread(segmentation)
    print(f"{segmentation.name}: {dataset.SOPClassUID.name}, {dataset.Rows} x {dataset.Columns}")
    return segmentation


if __name__ == "__main__":
    main(Path(sys.argv[1]))
