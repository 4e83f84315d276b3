"""How a site's log tells an error."""

from __future__ import annotations

import logging

from mamfed_common.errors import MamfedError
from mamfed_common.runtime.files import may_pass, os_error_line

logger = logging.getLogger(__name__)


def log_error(what: str, error: Exception) -> None:
    """Log an error: one that the machine explains, such as a full disk, in one line."""
    cause = error.__cause__ or error.__context__ or error
    if may_pass(error) or (isinstance(error, MamfedError) and may_pass(cause)):
        line = os_error_line(error) if isinstance(error, OSError) else str(error)
        logger.error("%s: %s", what, line)
    else:
        logger.error("%s", what, exc_info=error)
