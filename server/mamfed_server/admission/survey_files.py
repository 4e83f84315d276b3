"""Read the surveys of several sites, each checked with the key by which its site is known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey

from mamfed_common.errors import SetupError
from mamfed_common.security.enrolment import check_request, read_request
from mamfed_common.security.keys import parse_openssh
from mamfed_common.security.survey import Survey, check_signature, read_survey
from mamfed_server.admission.registry import load_sites
from mamfed_server.settings import ServerHome

Keys = Mapping[str, EllipticCurvePublicKey]
MOST_SITES = 1000
"""Most surveys that are read at once."""


def known_keys(
    home: ServerHome, requests: Sequence[Path] = ()
) -> dict[str, EllipticCurvePublicKey]:
    """Return the node keys of approved sites, and of requests from sites not approved yet.

    Raises:
        SetupError: A registry file or a request is damaged, or a request differs from the key of
            an approved site.
    """
    keys = {
        name: parse_openssh(entry.node_public_key, EllipticCurvePublicKey, f"key of {name}")
        for name, entry in load_sites(home).items()
        if entry.status == "active"
    }
    for path in requests:
        request = read_request(path)
        check_request(request)
        key = request.node_key()
        if keys.setdefault(request.site, key) != key:
            raise SetupError(
                f"{path}: brings another key for {request.site} than is known here; leave one out"
            )
    return keys


def read_surveys(paths: Sequence[Path], keys: Keys) -> list[Survey]:
    """Read surveys, sorted by site.

    Raises:
        SetupError: One is damaged, of a site that is not known here, altered, or the second of its
            site; the message names the file.
    """
    if len(paths) > MOST_SITES:
        raise SetupError(f"{len(paths):,} surveys, expected {MOST_SITES:,} at most")
    origins: dict[str, Path] = {}
    surveys = []
    for path in paths:
        survey = read_survey(path)
        key = keys.get(survey.site)
        if key is None:
            raise SetupError(
                f"{path}: from {survey.site}, which is not approved here; name its request with "
                "--request, or leave the survey out"
            )
        check_signature(survey, key, path)
        if survey.site in origins:
            raise SetupError(
                f"{path}: a second survey of {survey.site}, after {origins[survey.site]}; leave "
                "one out"
            )
        origins[survey.site] = path
        surveys.append(survey)
    return sorted(surveys, key=lambda survey: survey.site)
