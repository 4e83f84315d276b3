"""C-MOVE: the archive sends to a listener of this site, which is open only while it pulls.

Nothing else of mamfed listens at a site, hence the explicit option (decision 0064).
"""

from __future__ import annotations

from pynetdicom import AE, build_context

from mamfed_client.archive import dimse_contexts as contexts
from mamfed_client.archive.dimse import Dimse
from mamfed_client.archive.dimse_identifiers import of
from mamfed_client.archive.objects import ObjectName, ObjectRefused
from mamfed_client.archive.tls import tls_of
from mamfed_client.site.archive_settings import DimseSettings, MoveSettings
from mamfed_common.errors import LinkError, SetupError
from mamfed_common.runtime.files import refusal_words

MAX_ASSOCIATIONS = 4
"""Associations that the listener holds at once; an archive needs one."""


class MovingDimse(Dimse):
    """An archive's DIMSE service that sends images by associations of its own."""

    def __init__(self, settings: DimseSettings, move: MoveSettings, timeout_s: float) -> None:
        """Start to listen.

        Raises:
            SetupError: The address cannot be used, or a certificate.
        """
        super().__init__(settings, timeout_s)
        self._here = f"archive.move: {settings.called} cannot send to this site"
        self._listening_tls = tls_of(move.tls, is_server=True)
        listener = AE(ae_title=settings.calling)
        listener.supported_contexts = contexts.accepted_storage()
        listener.require_called_aet = True
        listener.require_calling_aet = list(move.callers)
        listener.maximum_associations = MAX_ASSOCIATIONS
        listener.acse_timeout = listener.dimse_timeout = timeout_s
        listener.network_timeout = timeout_s
        try:
            self._server = listener.start_server(
                (move.address, move.port),
                block=False,
                evt_handlers=self.receiver.handlers(),
                ssl_context=self._listening_tls,
            )
        except OSError as error:
            raise SetupError(
                f"archive.move: cannot listen on {move.address}:{move.port}: {refusal_words(error)}"
            ) from None

    def fetch(self, name: ObjectName) -> bytes:
        """Return an object as a DICOM file, by C-MOVE.

        Raises:
            ObjectGone: The archive does not have it.
            ObjectRefused: The archive does not give it, or it is too large.
            LinkError: TLS to this site failed.
        """
        association = self._association("move", [build_context(contexts.MOVE)])
        self.receiver.expect(name.uid)
        if self._listening_tls is not None:
            self._listening_tls.failure = ""
        answers = association.send_c_move(of(name), self.settings.calling, contexts.MOVE)
        try:
            return self._received(name, answers, "C-MOVE")
        except ObjectRefused:
            if self._listening_tls is not None and self._listening_tls.failure:
                raise LinkError(f"{self._here}: {self._listening_tls.failure}") from None
            raise

    def close(self) -> None:
        """Stop to listen, and release all associations."""
        self._server.shutdown()
        super().close()
