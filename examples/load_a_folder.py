"""List a folder, prepare its images for a plan, and look at one of them."""

import sys
from pathlib import Path

from phantom_data import phantom_folders, tiny_plan

from mamfed_client import Site, load_site, read_folder


def main(folder: Path) -> None:
    """Write a phantom hospital below ``folder`` and read it."""
    data = phantom_folders(folder / "data")["aurora"]

    # What the table says; no image is opened.
    manifest = read_folder(data)
    print(f"layout {manifest.layout}: {len(manifest.rows)} rows, {len(manifest.rejected)} rejected")

    # What the site can train with. Files are decoded in a sandbox, and patients are split.
    site = load_site(Site("aurora", (("aurora", data),), folder / "cache"), tiny_plan())
    description = site.describe()
    print("images by purpose and part:", description.images)
    print("rejected:", description.rejected or "none")

    # One prepared image: pixels, breast mask and outlined malignancy, all of the plan's size.
    sample = site.samples(["malignant"], "train")[0]
    print(f"image {sample.image.shape} {sample.image.dtype}, {sample.mask.sum()} malignant pixels")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
