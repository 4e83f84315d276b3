"""The commands of ``mamfed-client plan``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mamfed_client.cli.options import PLANS, Home, OutputFormat, PlanName
from mamfed_common.runtime.terminal import Format, confirm, console
from mamfed_common.runtime.wording import counted

if TYPE_CHECKING:  # these bring torch, which a help text can do without
    from mamfed_client.disclosure.plan_store import Decision, PlanStore, StoredPlan
    from mamfed_client.site.policy import Policy

app = typer.Typer(
    no_args_is_help=True,
    help="Review, approve or refuse the plans that the coordinator sent.",
)


@app.command("list")
def list_plans(home: Home = Path(), output: OutputFormat = Format.TEXT) -> None:
    """List the plans that arrived with a valid signature, newest last, with the status of each."""
    from mamfed_client.disclosure.plan_store import MAX_PENDING

    policy, store = _open(home)
    rows = [_row(policy, store, stored) for stored in store.plans()]
    if output is Format.JSON:
        typer.echo(json.dumps(rows, indent=2))
    elif not rows:
        typer.echo("no plan has arrived yet")
    else:
        for row in rows:
            why = f", blocked: {row['blocked']}" if row["blocked"] else ""
            typer.echo(
                f"{str(row['plan_sha256'])[:12]}  arrived {row['came']}  {row['standing']}{why}"
            )
    for warning in store.unusable():
        console().print(f"warning: {warning}")
    if dropped := store.dropped():
        console().print(
            f"warning: {counted(dropped, 'plan')} went undecided, because more than {MAX_PENDING} "
            "waited; ask the coordinator why it signs so many"
        )


@app.command()
def show(
    name: Annotated[
        str,
        typer.Argument(
            help="The plan, as for approve; the newest if omitted.", autocompletion=PLANS
        ),
    ] = "",
    home: Home = Path(),
    output: OutputFormat = Format.TEXT,
) -> None:
    """Describe in words what a plan does, and check it against this site's bounds."""
    from mamfed_client.disclosure.plan_admission import check_bounds

    policy, store = _open(home)
    stored = _find(store, name) if name else _newest(store)
    row = _row(policy, store, stored)
    if output is Format.JSON:
        checks = check_bounds(policy, stored.plan)
        bounds = [{**check._asdict(), "fits": check.fits} for check in checks]
        more = {"plan": stored.plan.model_dump(mode="json"), "bounds": bounds}
        typer.echo(json.dumps(row | more, indent=2))
        return
    _show(policy, stored, row)


@app.command()
def approve(
    name: PlanName,
    home: Home = Path(),
    yes: Annotated[bool, typer.Option("--yes", help="Skip the confirmation.")] = False,
    output: OutputFormat = Format.TEXT,
) -> None:
    """Show a plan and approve it. The bounds in site.yaml still apply to it.

    You can approve a plan before it arrives: what counts is its SHA-256, and the coordinator's
    signature once it does.
    """
    from mamfed_client.disclosure.plan_store import Decision

    policy, store = _open(home)
    stored = _find(store, name)
    if output is Format.TEXT:
        _show(policy, stored, _row(policy, store, stored))
    confirm(f"Approve plan {stored.sha256[:12]}?", yes=yes)
    _decide(home, name, Decision.APPROVED, output)


@app.command()
def refuse(name: PlanName, home: Home = Path(), output: OutputFormat = Format.TEXT) -> None:
    """Refuse a plan, even one approved before: it gets no answers from the next message on."""
    from mamfed_client.disclosure.plan_store import Decision

    _decide(home, name, Decision.REFUSED, output)


def _open(home: Path) -> tuple[Policy, PlanStore]:
    from mamfed_client.disclosure.plan_store import PlanStore
    from mamfed_client.site.settings import SiteHome, load_site_settings

    site = SiteHome(home)
    return load_site_settings(site).policy, PlanStore(site.plans)


def _find(store: PlanStore, name: str) -> StoredPlan:
    """Return the plan that arrived with this SHA-256, or the one in this file."""
    from mamfed_client.disclosure.plan_store import StoredPlan
    from mamfed_common.plan import read_plan

    if not name or not Path(name).exists():
        return store.find(name)
    plan = read_plan(Path(name))
    came = (kept for kept in store.plans() if kept.sha256 == plan.sha256())
    return next(came, StoredPlan(plan.sha256(), plan, None))


def _newest(store: PlanStore) -> StoredPlan:
    from mamfed_common.errors import SetupError

    plans = store.plans()
    if not plans:
        nothing = "no plan has arrived yet; the coordinator's server sends it"
        raise SetupError([nothing, *store.unusable()][-1])
    return plans[-1]


def _decide(home: Path, name: str, decision: Decision, output: Format) -> None:
    policy, store = _open(home)
    stored = _find(store, name)
    record = store.decide(stored.sha256, decision)
    row = _row(policy, store, stored)
    if output is Format.JSON:
        typer.echo(json.dumps(row | record.model_dump(mode="json")))
        return
    typer.echo(f"plan {stored.sha256[:12]}: {record.decision.value} by {record.by}")
    if row["blocked"]:
        typer.echo(f"that is not enough: the plan is still outside bounds: {row['blocked']}")


def _row(policy: Policy, store: PlanStore, stored: StoredPlan) -> dict[str, object]:
    from mamfed_client.disclosure.plan_admission import PlanStatus, out_of_bounds, plan_status

    status = plan_status(policy, stored.plan, store.decisions())
    came = stored.came and stored.came.strftime("%Y-%m-%dT%H:%M:%SZ")
    blocked = out_of_bounds(policy, stored.plan) if status is PlanStatus.OUTSIDE_BOUNDS else ""
    return {
        "plan_sha256": stored.sha256,
        "came": came,
        "standing": status.value,
        "blocked": blocked,
    }


def _show(policy: Policy, stored: StoredPlan, row: dict[str, object]) -> None:
    from mamfed_client.disclosure.plan_words import against_bounds, in_words

    came = f"arrived {row['came']}" if row["came"] else "not arrived yet"
    typer.echo(f"Plan {stored.sha256}, {came}: {row['standing']}")
    typer.echo("\n".join([*in_words(stored.plan), *against_bounds(policy, stored.plan)]))
    if row["blocked"]:
        typer.echo(f"Blocked: {row['blocked']}.")
