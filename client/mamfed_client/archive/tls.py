"""TLS of DICOM associations (PS3.15 B): both sides show certificates if they have one."""

from __future__ import annotations

import ssl

from mamfed_client.site.archive_settings import TlsSettings
from mamfed_common.errors import SetupError
from mamfed_common.runtime.files import refusal_words


def tls_of(settings: TlsSettings | None, purpose: ssl.Purpose) -> ssl.SSLContext | None:
    """Return the TLS context for either side; None without TLS.

    Raises:
        SetupError: A certificate cannot be used.
    """
    if settings is None:
        return None
    try:
        context = ssl.create_default_context(purpose, cafile=str(settings.ca_file))
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.verify_mode = ssl.CERT_REQUIRED
        if settings.certificate is not None and settings.key is not None:
            context.load_cert_chain(settings.certificate, settings.key)
    except OSError as error:  # SSLError too
        raise SetupError(f"archive tls: {refusal_words(error)}; check the PEM files") from None
    return context
