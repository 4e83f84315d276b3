"""Pages by jinja2: one look for every role, with everything escaped."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined, pass_context
from jinja2.runtime import Context
from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from mamfed_common import __version__
from mamfed_common.runtime.wording import counted, size, span
from mamfed_common.web.guard import fields_of

KIT = "mamfed_common.web"


@dataclass(frozen=True)
class Look:
    """What is the same on all pages of a role.

    Attributes:
        title: Shown at the top and in the window's title, such as ``Coordinator: Breast``.
        role: ``server`` or ``client``: names the cookie.
        nav: The pages: address and name.
    """

    title: str
    role: str
    nav: Sequence[tuple[str, str]] = field(default_factory=tuple)


class Pages:
    """The templates of a role, and of the kit."""

    def __init__(self, package: str, look: Look) -> None:
        """Read templates from ``templates/`` of a package; those of the kit have other names."""
        self.look = look
        self.environment = Environment(
            loader=ChoiceLoader([PackageLoader(package), PackageLoader(KIT)]),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self.environment.filters.update(counted=counted, span=span, size=size)
        self.environment.globals.update(
            look=look, version=__version__, csrf=_csrf, live=_live, chart=_chart, series=_series
        )

    def show(self, request: Request, template: str, status: int = 200, **values: Any) -> Response:
        """Answer with a page."""
        session = getattr(request.state, "session", None)
        values = {"session": session, "path": request.url.path, **values}
        return HTMLResponse(self.environment.get_template(template).render(values), status)

    def part(self, template: str, **values: Any) -> str:
        """Return a part of a page, such as a panel."""
        return self.environment.get_template(template).render(values)

    def notice(self, request: Request, title: str, text: str, status: int = 200) -> Response:
        """Answer with a page of one message, such as an error."""
        return self.show(request, "notice.html.j2", status, title=title, text=text)

    def confirm(
        self,
        request: Request,
        *,
        title: str,
        action: str,
        button: str,
        back: str = "/",
        text: Sequence[str] = (),
        facts: Mapping[str, str] | None = None,
        compare: Mapping[str, str] | None = None,
        check: str = "",
        fields: Mapping[str, str] | None = None,
        danger: bool = False,
    ) -> Response:
        """Answer with a page that says what will happen and asks first.

        Args:
            request: The request.
            title: The question.
            action: Address of the POST that does it.
            button: What the button says: a verb.
            back: Where "cancel" leads.
            text: Sentences on the consequences.
            facts: What is known, by name.
            compare: Fingerprints that a person must compare, by name.
            check: What the person must tick before the button works; empty: nothing.
            fields: Hidden fields of the form.
            danger: Whether it cannot be undone.
        """
        return self.show(
            request, "confirm.html.j2", title=title, action=action, button=button, back=back,
            text=text, facts=facts or {}, compare=compare or {}, check=check,
            fields=fields or {}, danger=danger,
        )  # fmt: skip


async def form_of(request: Request) -> dict[str, str]:
    """Return the fields of a posted form, without its token."""
    fields = fields_of(await request.body())
    fields.pop("csrf", None)
    return fields


def go_to(address: str) -> Response:
    """Answer a POST: the browser opens another page, which can be reloaded."""
    return RedirectResponse(address, 303)


@pass_context
def _csrf(context: Context) -> Markup:
    session = context["session"]
    value = session.csrf if session else ""
    return Markup('<input type="hidden" name="csrf" value="{}">').format(value)


def _live(address: str) -> Markup:
    config = '{"sse": {"reconnectMaxDelay": 5000}}'
    return Markup(
        '<div id="live" hx-sse:connect="{}" hx-trigger="load, again" hx-swap="none" '
        'hx-config="{}"></div>'
    ).format(address, config)


def _chart(name: str, label: str) -> Markup:
    return Markup(
        '<div class="chart" id="{}-chart" role="img" aria-label="{}" data-from="{}-data"></div>'
    ).format(name, label, name)


def _series(name: str, data: object) -> Markup:
    return Markup('<div id="{}-data" hidden data-series="{}"></div>').format(name, json.dumps(data))
