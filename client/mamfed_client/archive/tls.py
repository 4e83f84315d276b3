"""TLS to an archive (PS3.15 B): who is trusted, and why a connection failed, in words.

pynetdicom tells only its log why TLS failed; the context here keeps it.
"""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

from mamfed_client.site.archive_settings import TlsSettings
from mamfed_common.errors import SetupError
from mamfed_common.runtime.bounded import KEY_BYTES, read_bytes
from mamfed_common.runtime.files import reason

HANDSHAKE_SECONDS = 5.0
"""Longest handshake of who calls the listener of C-MOVE, which accepts one call at a time."""
EXPIRED = 10
"""OpenSSL's code of a certificate that has expired (X509_V_ERR_CERT_HAS_EXPIRED)."""
ABOUT_CERTIFICATES = ("CERTIFICATE", "UNKNOWN_CA", "HANDSHAKE_FAILURE", "ACCESS_DENIED")
"""In an alert: the other side wants a certificate, or does not trust the one that it got."""
NO_TLS = ("WRONG_VERSION", "HTTP_REQUEST", "EOF", "UNKNOWN_PROTOCOL", "RECORD_LAYER", "PACKET")
"""In an error: what came was no TLS."""


class KeepingContext(ssl.SSLContext):
    """A TLS context that keeps why its last connection failed; empty: it did not."""

    failure = ""


class _Socket(ssl.SSLSocket):
    """A connection that tells its context why it failed, and waits for no stranger's handshake."""

    def do_handshake(self, block: bool = False) -> None:
        patience = self.gettimeout()
        if self.server_side:
            self.settimeout(HANDSHAKE_SECONDS)
        try:
            super().do_handshake(block)
        except OSError as error:
            self._keep(error)
            raise
        self.settimeout(patience)

    def recv(self, *arguments: Any) -> bytes:
        try:
            return super().recv(*arguments)
        except ssl.SSLError as error:  # TLS 1.3 refuses a client's certificate after the handshake
            self._keep(error)
            raise

    def _keep(self, error: OSError) -> None:
        if isinstance(self.context, KeepingContext):
            self.context.failure = why(error)


KeepingContext.sslsocket_class = _Socket


def tls_of(settings: TlsSettings | None, *, is_server: bool = False) -> KeepingContext | None:
    """Return the TLS context for either side; None without TLS.

    Raises:
        SetupError: A certificate cannot be used.
    """
    if settings is None:
        return None
    context = KeepingContext(ssl.PROTOCOL_TLS_SERVER if is_server else ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.verify_mode = ssl.CERT_REQUIRED
    trust(context, settings.ca_file)
    if settings.certificate is not None and settings.key is not None:
        show(context, settings.certificate, settings.key)
    return context


def trust(context: ssl.SSLContext, ca_file: Path) -> None:
    """Trust what descends from the certificates (PEM) of a file.

    Raises:
        SetupError: It holds none, or cannot be read.
    """
    try:
        context.load_verify_locations(ca_file)
    except ssl.SSLError:
        raise SetupError(f"{ca_file}: found no certificates, expected PEM") from None
    except OSError as error:
        raise SetupError(f"{ca_file}: {reason(ca_file, error)}; see archive in site.yaml") from None


def show(context: ssl.SSLContext, certificate: Path, key: Path) -> None:
    """Show a certificate (PEM) to the other side, which may ask for one.

    Raises:
        SetupError: Certificate and key are no pair, need a passphrase, or cannot be read.
    """
    for path in (certificate, key):
        try:
            read_bytes(path, KEY_BYTES)
        except OSError as error:
            raise SetupError(f"{path}: {reason(path, error)}; see archive in site.yaml") from None
    try:
        context.load_cert_chain(certificate, key, password=lambda: "")
    except (ssl.SSLError, OSError):
        raise SetupError(
            f"{key}: expected the private key (PEM, without passphrase) of {certificate}"
        ) from None


def why(error: OSError) -> str:
    """Return why a TLS connection to the archive, or from it, failed; ``it`` is the archive."""
    if isinstance(error, ssl.SSLCertVerificationError):
        if error.verify_code == EXPIRED:
            return "its certificate has expired, or this machine's clock is wrong"
        return f"its certificate is not trusted ({error.verify_message}); check ca_file and name"
    name = str(getattr(error, "reason", None) or "")
    said = name.replace("_", " ").lower()
    if "ALERT" in name and any(word in name for word in ABOUT_CERTIFICATES):
        return (
            f"it does not trust this site ({said}); check certificate and key, and what it trusts"
        )
    if not name or any(word in name for word in NO_TLS):
        return "no TLS is spoken there; check the port, and whether both sides use TLS"
    return f"TLS failed ({said})"


def tls_error(error: BaseException | None) -> ssl.SSLError | None:
    """Return the TLS error within an error of ``requests``, which wraps it twice; None: none."""
    for _ in range(8):
        if error is None or isinstance(error, ssl.SSLError):
            return error
        held = [getattr(error, "reason", None), *error.args]
        inner = next((each for each in held if isinstance(each, BaseException)), None)
        error = inner or error.__cause__ or error.__context__
    return None
