"""``mamfed-simulate partition``."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mamfed_common.runtime import terminal
from mamfed_common.runtime.terminal import Format
from mamfed_simulations.cli.options import DryRun, Output

if TYPE_CHECKING:
    from rich.table import Table

    from mamfed_simulations.federation.appearance import Appearance
    from mamfed_simulations.federation.partition import DealtCohort


def partition(
    data: Annotated[Path, typer.Option(help="Data set, in any layout.")],
    out: Annotated[Path, typer.Option(help="Folder of the hospitals: site-1, site-2, ...")],
    sites: Annotated[int, typer.Option(min=1, max=100, help="Virtual hospitals.")] = 3,
    shares: Annotated[
        str | None,
        typer.Option(help="Per cent of the patients each, with commas.", show_default="equal"),
    ] = None,
    looks: Annotated[
        bool,
        typer.Option("--looks", help="All but the first show their images differently."),
    ] = False,
    seed: Annotated[int, typer.Option(min=0, help="Draws who goes where, and the looks.")] = 0,
    dry_run: DryRun = False,
    output: Output = Format.TEXT,
) -> None:
    """Deal one data set's patients to virtual hospitals of unlike size, each a folder of its own.

    Each kind of patient is dealt by the shares, which add up to 100. With --looks every hospital
    but the first has one gamma, blur and grain of its own, inside the breast only; masks stay. The
    same command again writes the same bytes.

    Example: mamfed-simulate partition --data data/a --sites 3 --shares 60,30,10 --looks --out hosp
    """
    from mamfed_simulations.federation.hospitals import check_place, write_hospitals
    from mamfed_simulations.federation.partition import Partition, deal

    if not dry_run:
        check_place(out, data)
    dealt = deal(Partition(data, _shares(sites, shares), looks, seed))
    shown = terminal.console()
    shown.print(_table(dealt))
    for reason, count in dealt.left_out.items():
        shown.print(f"{count} x {reason}")
    if not dry_run:
        write_hospitals(dealt, out)
        shown.print(f"written: {', '.join(str(out / h.name) for h in dealt.hospitals)}")
    if output is Format.JSON:
        typer.echo(json.dumps(dealt.values(), indent=2))


def _shares(sites: int, text: str | None) -> tuple[float, ...]:
    """Read ``60,30,10``: one share a site, 100 together, for 33,33,33 is no mistake."""
    if text is None:
        return (100 / sites,) * sites
    try:
        shares = tuple(float(part) for part in text.split(","))
    except ValueError:
        raise typer.BadParameter(f"--shares {text!r}: expected numbers with commas") from None
    if len(shares) != sites:
        raise typer.BadParameter(f"--shares {text!r}: {len(shares)} shares for {sites} sites")
    if not all(math.isfinite(share) and share > 0 for share in shares):
        raise typer.BadParameter(f"--shares {text!r}: every share must be above 0")
    if abs(sum(shares) - 100) > 1:
        raise typer.BadParameter(f"--shares {text!r}: they add up to {sum(shares):g}, not to 100")
    return shares


def _table(dealt: DealtCohort) -> Table:
    from rich.table import Table

    table = Table(title=f"{dealt.partition.data} dealt to {len(dealt.hospitals)}")
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
    """Return all images, then the three kinds that they are made of."""
    malignant, benign, without = (
        images[purpose] for purpose in ("malignant", "benign", "without_malignancy")
    )
    return tuple(map(str, (malignant + without, malignant, benign, without - benign)))


def _words(look: Appearance) -> str:
    changed = {k: v for k, v in look._asdict().items() if v != look._field_defaults[k]}
    return ", ".join(f"{name} {value:.3g}" for name, value in changed.items()) or "original"
