"""MkDocs hook: generate the reference pages, and bring pages from outside ``docs/`` into the site.

``mkdocs build`` runs it. The configuration reference comes from the pydantic models, the command
reference from the Typer programs, so neither can differ from the code. Nothing that it generates is
committed.
"""

from __future__ import annotations

import inspect
import posixpath
import re
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import click
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from pydantic import BaseModel
from pydantic.fields import FieldInfo

import mamfed_client.cli.main
import mamfed_server.cli.main
import mamfed_simulations.cli.main
from mamfed_client.site.settings import SiteSettings
from mamfed_common.plan import TrainingPlan
from mamfed_common.runtime.commands import click_command, without_markup
from mamfed_common.runtime.documents import yaml_value
from mamfed_server.settings import ServerSettings

ROOT = Path(__file__).parents[1]
OUTSIDE = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "deploy/README.md": "deployment.md",
    "deploy/RUNBOOK.md": "runbook.md",
}
"""Pages outside ``docs/`` by their path in the site."""

PROGRAMS = {
    "mamfed-client": mamfed_client.cli.main.app,
    "mamfed-server": mamfed_server.cli.main.app,
    "mamfed-simulate": mamfed_simulations.cli.main.app,
}
SETTINGS: dict[str, type[BaseModel]] = {
    "plan.yaml": TrainingPlan,
    "site.yaml": SiteSettings,
    "server.yaml": ServerSettings,
}
_LINK = re.compile(r"(?<!!)\[([^\]]*)\]\(([^)\s]+)\)")
_CODE = re.compile(r"`[^`\n]*`")
_IMAGE = re.compile(r"!\[([^\]]*)\]\(([^)\s]+)\)")


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Add the generated pages, and those outside ``docs/``."""
    pages = {path: (ROOT / source).read_text() for source, path in OUTSIDE.items()}
    pages["reference/commands.md"] = commands_page()
    pages["reference/configuration.md"] = configuration_page()
    for path, content in pages.items():
        files.append(File.generated(config, path, content=content))
    return files


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Point links at the site's pages; links to source files become plain text."""
    # GitHub wants pipes in a table's code escaped, Python-Markdown shows the backslash.
    markdown = _CODE.sub(lambda match: match[0].replace("\\|", "|"), markdown)
    site_path = page.file.src_uri
    if site_path.startswith("reference/"):
        return markdown
    by_site_path = {path: source for source, path in OUTSIDE.items()}
    source = by_site_path.get(site_path, f"docs/{site_path}")

    def link(match: re.Match[str]) -> str:
        text, target = match.groups()
        moved = moved_link(target, source, site_path)
        return text if moved is None else f"[{text}]({moved})"

    def image(match: re.Match[str]) -> str:
        text, target = match.groups()
        return f"![{text}]({moved_link(target, source, site_path) or target})"

    return _IMAGE.sub(image, _LINK.sub(link, markdown))


def moved_link(target: str, source: str, site_path: str) -> str | None:
    """Return a link of a page as the site needs it; None if its target is not in the site.

    Args:
        target: The link as written.
        source: The page's path in the repository.
        site_path: The page's path in the site.
    """
    if re.match(r"[a-z]+:|#", target):
        return target
    path, _, anchor = target.partition("#")
    path = posixpath.normpath(posixpath.join(posixpath.dirname(source), path))
    if (ROOT / path).is_dir():
        path += "/README.md"
    if path in OUTSIDE:
        path = OUTSIDE[path]
    elif path.startswith("docs/") and (ROOT / path).exists():
        path = path.removeprefix("docs/")
    else:
        return None
    moved = posixpath.relpath(path, posixpath.dirname(site_path) or ".")
    return f"{moved}#{anchor}" if anchor else moved


def configuration_page() -> str:
    """Describe every key of the three YAML files."""
    lines = ["# Configuration reference", "", "Generated from the settings models."]
    for name, model in SETTINGS.items():
        lines += ["", f"## {name}", "", "| key | type | default | meaning |", "|---|---|---|---|"]
        lines += _rows_of(model, defaults=TrainingPlan() if model is TrainingPlan else None)
    return "\n".join(lines) + "\n"


def _rows_of(
    model: type[BaseModel], prefix: str = "", *, defaults: BaseModel | None = None
) -> Iterator[str]:
    """Yield a row for each key; ``defaults`` holds the values of keys that are not given."""
    meanings = attributes_of(model)
    for name, field in model.model_fields.items():
        kind = field.annotation
        value = getattr(defaults, name, None)
        if inspect.isclass(kind) and issubclass(kind, BaseModel):
            yield from _rows_of(kind, f"{prefix}{name}.", defaults=value)
            continue
        default = f"`{_yaml(field, value)}`"
        if defaults is None and field.is_required():
            default = "required"
        cells = (f"`{prefix}{name}`", _type_of(field), default, meanings.get(name, ""))
        yield "| " + " | ".join(_cell(text) for text in cells) + " |"


def _yaml(field: FieldInfo, value: Any) -> str:
    default = value
    if value is None and not field.is_required():
        default = field.get_default(call_default_factory=True, validated_data={})
    if isinstance(default, BaseModel):
        default = default.model_dump(mode="json")
    return str(yaml_value(list(default) if isinstance(default, tuple) else default))


def _type_of(field: FieldInfo) -> str:
    text = spelled(field.annotation)
    signs = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<", "min_length": "length >="}
    bounds = [
        f"{sign} {getattr(item, name)}"
        for item in field.metadata
        for name, sign in signs.items()
        if getattr(item, name, None) is not None
    ]
    return text + (f" ({', '.join(bounds)})" if bounds else "")


def spelled(kind: Any) -> str:
    """Spell a type as YAML users think of it: ``list of text``, ``number or null``."""
    names = {int: "integer", float: "number", str: "text", bool: "true or false"}
    if kind in names or kind is type(None):
        return names.get(kind, "`null`")
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return spelled(arguments[0])
    if origin is Literal:
        return ", ".join(f"`{yaml_value(value)}`" for value in arguments)
    if origin in (Union, UnionType):
        return " or ".join(spelled(argument) for argument in arguments)
    if origin in (tuple, list):
        return f"list of {spelled(arguments[0])}"
    if origin is dict:
        return f"{spelled(arguments[1])} by {spelled(arguments[0])}"
    if inspect.isclass(kind) and issubclass(kind, Enum):
        return ", ".join(f"`{member.value}`" for member in kind)
    return "path" if kind is Path else f"`{kind.__name__}`"


def attributes_of(model: type[BaseModel]) -> dict[str, str]:
    """Return the ``Attributes:`` of a model's docstring, and of those that it extends."""
    meanings: dict[str, str] = {}
    for kind in reversed(model.__mro__):
        section = inspect.cleandoc(kind.__doc__ or "").partition("Attributes:\n")[2]
        for name, text in re.findall(r"(?ms)^    (\w+): (.*?)(?=^    \w+: |^\S|\Z)", section):
            meanings[name] = " ".join(text.split()).replace("``", "`")
    return meanings


def commands_page() -> str:
    """Describe every command of the three programs as ``--help`` does."""
    lines = ["# Command reference", "", "Generated from the programs' own `--help`."]
    for program, app in PROGRAMS.items():
        lines += ["", f"## {program}"]
        context = click.Context(click_command(app), info_name=program)
        for path, command, inner in _commands(context):
            usage = " ".join(command.collect_usage_pieces(inner))
            lines += ["", f"### {path}", "", f"    {path} {usage}", "", _help_of(command), ""]
            lines += _options(command, inner)
    return "\n".join(lines) + "\n"


def _commands(context: click.Context) -> Iterator[tuple[str, click.Command, click.Context]]:
    for name, command in getattr(context.command, "commands", {}).items():
        inner = click.Context(command, info_name=name, parent=context)
        if getattr(command, "commands", None):
            yield from _commands(inner)
        elif not command.hidden:
            yield inner.command_path, command, inner


def _help_of(command: click.Command) -> str:
    text = inspect.cleandoc(command.help or "").replace("\b", "").split("\f")[0]
    return re.sub(r"``", "`", text)


def _options(command: click.Command, context: click.Context) -> Iterator[str]:
    records: list[Any] = [option.get_help_record(context) for option in command.params]
    records = [record for record in records if record is not None]
    if records:
        yield "| option | meaning |"
        yield "|---|---|"
    for name, text in records:
        yield f"| `{_cell(name)}` | {_cell(without_markup(text))} |"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
