"""``mamfed-simulate partition``."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mamfed_common.runtime import terminal
from mamfed_common.runtime.terminal import Format
from mamfed_simulations.cli.options import DryRun, Output, print_json

if TYPE_CHECKING:
    from rich.table import Table

    from mamfed_simulations.federation.appearance import Appearance
    from mamfed_simulations.federation.partition import DealtCohort


Data = Annotated[Path, typer.Option(help="Data set, in any supported layout.")]
Out = Annotated[Path, typer.Option(help="Output folder; gets site-1, site-2, ...")]
Sites = Annotated[int, typer.Option(min=1, max=100, help="Number of virtual hospitals.")]
Shares = Annotated[
    str | None,
    typer.Option(
        help="Percentage of the patients per hospital, separated by commas.", show_default="equal"
    ),
]
Looks = Annotated[
    bool,
    typer.Option("--looks", help="Give every hospital but the first its own image appearance."),
]
Seed = Annotated[int, typer.Option(min=0, help="Seed of the split and of the looks.")]


def partition(
    data: Data,
    out: Out,
    sites: Sites = 3,
    shares: Shares = None,
    looks: Looks = False,
    seed: Seed = 0,
    dry_run: DryRun = False,
    output: Output = Format.TEXT,
) -> None:
    """Split one data set's patients among virtual hospitals of different sizes, one folder each.

    Each kind of patient is split by the shares, which must add up to 100. With --looks every
    hospital but the first gets its own gamma, blur and grain, inside the breast only; masks do not
    change. Running the same command again writes the same bytes.

    Example: mamfed-simulate partition --data data/a --sites 3 --shares 60,30,10 --looks --out hosp
    """
    from mamfed_simulations.federation.hospitals import check_place, write_hospitals
    from mamfed_simulations.federation.partition import Partition, deal

    if not dry_run:
        check_place(out, data)
    dealt = deal(Partition(data, _shares(sites, shares), looks, seed))
    console = terminal.console()
    console.print(_table(dealt))
    for reason, count in dealt.left_out.items():
        console.print(f"{count} x {reason}")
    if not dry_run:
        write_hospitals(dealt, out)
        console.print(f"written: {', '.join(str(out / h.name) for h in dealt.hospitals)}")
    print_json(output, dealt.values())


def _shares(sites: int, text: str | None) -> tuple[float, ...]:
    """Parse ``60,30,10``: one share per site, adding up to 100 +- 1, so that 33,33,33 passes."""
    if text is None:
        return (100 / sites,) * sites
    try:
        shares = tuple(float(part) for part in text.split(","))
    except ValueError:
        raise typer.BadParameter(
            f"--shares {text!r}: expected numbers separated by commas"
        ) from None
    if len(shares) != sites:
        raise typer.BadParameter(f"--shares {text!r}: got {len(shares)} shares for {sites} sites")
    if not all(math.isfinite(share) and share > 0 for share in shares):
        raise typer.BadParameter(f"--shares {text!r}: every share must be above 0")
    if abs(sum(shares) - 100) > 1:
        raise typer.BadParameter(f"--shares {text!r}: they add up to {sum(shares):g}, not 100")
    return shares


def _table(dealt: DealtCohort) -> Table:
    from rich.table import Table

    count = len(dealt.hospitals)
    table = Table(
        title=f"{dealt.partition.data} split into {count} hospital{'s' if count > 1 else ''}"
    )
    table.add_column("site")
    heads = ("share", "patients", "images", "malignant", "benign", "other", "look")
    for head in heads:
        table.add_column(head, justify="right")
    for hospital in dealt.hospitals:
        table.add_row(
            hospital.name,
            f"{hospital.share:.3g} %",
            str(len(hospital.patients)),
            *_counts(hospital.images),
            _words(hospital.look),
        )
    return table


def _counts(images: Mapping[str, int]) -> tuple[str, ...]:
    """Return the number of all images, then of each of the three kinds."""
    malignant, benign, without = (
        images[purpose] for purpose in ("malignant", "benign", "without_malignancy")
    )
    return tuple(map(str, (malignant + without, malignant, benign, without - benign)))


def _words(look: Appearance) -> str:
    changed = {k: v for k, v in look._asdict().items() if v != look._field_defaults[k]}
    return ", ".join(f"{name} {value:.3g}" for name, value in changed.items()) or "original"
