"""The questions of ``mamfed-client init --guided``."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from mamfed_client.site.settings import SiteSettings
from mamfed_client.site.settings_template import first_settings
from mamfed_common.errors import MamfedError, SetupError
from mamfed_common.runtime.documents import check_name, validated
from mamfed_common.runtime.guided import ask, ask_yes, check_somebody_answers
from mamfed_common.runtime.places import expanded
from mamfed_common.runtime.terminal import console


class Answers(NamedTuple):
    """What was answered, as the options of ``init``."""

    name: str
    data: list[str]
    allow_model: bool
    allow_metrics: bool
    contact: str


def answers(
    name: str, data: list[str], allow_model: bool, allow_metrics: bool, contact: str
) -> Answers:
    """Ask six questions; given options are the defaults.

    Raises:
        SetupError: Nobody can answer, or no answer was valid.
        MamfedError: The last answer was no.
    """
    check_somebody_answers()
    name = ask("1/6 Name of this site?", name, _checked_name)
    folder = ask("2/6 Folder with your mammograms?", (data or [""])[0], _checked_folder)
    allow_model = ask_yes(
        "3/6 May weights leave, with the counts that averaging needs? Without, this site cannot "
        "train",
        default=allow_model,
    )
    allow_metrics = ask_yes(
        "4/6 May results leave (Dice and the like, over ten patients at least)?",
        default=allow_metrics,
    )
    contact = ask(
        "5/6 Whom should the coordinator call to compare fingerprints (name, number)?",
        contact,
        lambda text: text,
    )
    text = first_settings(
        name, [(name, folder)], allow_model=allow_model, allow_metrics=allow_metrics
    )
    console().print(f"\nsite.yaml will be:\n\n{text}")
    if not ask_yes("6/6 Create it? No plan is followed before you approve it", default=True):
        raise MamfedError("not confirmed, so nothing was created")
    return Answers(name, [str(folder)], allow_model, allow_metrics, contact)


def _checked_name(text: str) -> str:
    values: dict[str, Any] = {"name": text, "data": [{"name": "data", "folder": "."}]}
    validated(SiteSettings, values, "not possible")
    return check_name(text, "the name")


def _checked_folder(text: str) -> Path:
    folder = expanded(Path(text)).absolute()
    if not text or not folder.is_dir():
        raise SetupError(f"{folder}: no such folder")
    return folder
