"""What differential privacy has spent at this site (``privacy.json``).

One ledger for all plans and rounds, because they train on the same patients. A round is charged
before its first step, with the secret of its noise, so that a kill can neither lose a charge nor
lead to two results with the same noise; a round that ended without a result is charged again if it
is trained again. opacus computes epsilon (Renyi accountant, Mironov 2017, arXiv:1702.07476).
"""

from __future__ import annotations

import hashlib
import warnings
from pathlib import Path
from secrets import token_bytes
from typing import NamedTuple

from pydantic import Field, ValidationError

from mamfed_client.disclosure.plan_admission import PolicyRefusal
from mamfed_client.site.policy import PatientPrivacy
from mamfed_common.config import DIGEST, Config
from mamfed_common.errors import SetupError
from mamfed_common.protocol.tasks import PrivacySpent, RefusalCode
from mamfed_common.runtime.bounded import DOCUMENT_BYTES, read_bytes
from mamfed_common.runtime.files import reason, write_atomic
from mamfed_common.runtime.lock import short_lock
from mamfed_common.runtime.optional_packages import check_installed

SECRET_BYTES = 32
STEP = 1e-4
"""What is spent is reported in steps of this, rounded up."""
TOLERANCE = 1e-3
"""Relative difference by which two versions of opacus may compute the same epsilon."""


class Charge(Config):
    """Steps of one kind.

    Attributes:
        noise_multiplier: Standard deviation of the noise in clip norms.
        sample_rate: Highest probability with which a step takes a patient.
        steps: Number of steps.
    """

    noise_multiplier: float = Field(gt=0)
    sample_rate: float = Field(gt=0, le=1)
    steps: int = Field(ge=1)


class OpenRound(Config):
    """A round that is charged and in training.

    Attributes:
        name: Everything that decides the round, hashed.
        secret: The secret of its draws, in hexadecimal.
    """

    name: str = Field(pattern=DIGEST)
    secret: str = Field(pattern=DIGEST, repr=False)


class _Book(Config):
    charges: tuple[Charge, ...] = ()
    open: OpenRound | None = None
    sha256: str = ""

    def sealed(self) -> _Book:
        text = self.model_dump_json(exclude={"sha256"})
        return self.model_copy(update={"sha256": hashlib.sha256(text.encode()).hexdigest()})


class PrivacyLedger:
    """The ledger of one site, which is created at its first charge (0600)."""

    def __init__(self, path: Path) -> None:
        """Refer to the file."""
        self.path = path
        self._steps = 0

    def charges(self) -> tuple[Charge, ...]:
        """Return all charges; equal ones are added up.

        Raises:
            SetupError: The file is damaged.
        """
        return self._read().charges

    def begin(self, name: str, charge: Charge, rule: PatientPrivacy) -> bytes:
        """Charge a round and return its secret; a round that is open already costs nothing more.

        Args:
            name: SHA-256 of everything that decides the round.
            charge: Its steps.
            rule: The policy.

        Raises:
            PolicyRefusal: The charge would exceed the policy's epsilon; nothing is charged.
            SetupError: The file is damaged or cannot be written.
        """
        with short_lock(self.path.with_suffix(".lock")):
            book = self._read()
            resumed = book.open is not None and book.open.name == name
            charges = book.charges if resumed else _added(book.charges, charge)
            after = epsilon(charges, rule.delta)
            if after > rule.max_epsilon:
                raise PolicyRefusal(
                    RefusalCode.PRIVACY_SPENT,
                    f"epsilon would be {after:.3g} at delta {rule.delta:g}, "
                    f"policy.privacy.patients.max_epsilon allows at most {rule.max_epsilon:g}",
                )
            if not resumed:
                opened = OpenRound(name=name, secret=token_bytes(SECRET_BYTES).hex())
                book = _Book(charges=charges, open=opened)
                self._write(book)
            assert book.open is not None
            return bytes.fromhex(book.open.secret)

    def end(self, charge: Charge) -> None:
        """Forget the secret of the round in training, before its result may leave.

        Args:
            charge: The round's steps, which :meth:`begin` charged, perhaps before a restart.

        Raises:
            SetupError: They are not charged, or the file is damaged or cannot be written.
        """
        with short_lock(self.path.with_suffix(".lock")):
            book = self._read()
            if _steps_of(book.charges).get(_kind(charge), 0) < charge.steps:
                raise SetupError(self._unusable("a round that was trained is missing"))
            if book.open is not None:
                self._write(_Book(charges=book.charges))

    def check_covers(self, reported: PrivacySpent | None) -> None:
        """Refuse to go on with a ledger that was removed, or is an older copy.

        Args:
            reported: What this site has reported last, by its audit log; None: nothing yet.

        Raises:
            SetupError: Less is charged than was reported.
        """
        if reported is None:
            return
        charged = epsilon(self.charges(), reported.delta)
        if charged < reported.epsilon * (1 - TOLERANCE) - STEP:
            raise SetupError(
                self._unusable(
                    f"holds an epsilon of {charged:.4g}, but the audit log says that "
                    f"{reported.epsilon:.4g} was spent at delta {reported.delta:g}, so it was "
                    "removed or is an older copy"
                )
            )

    def _read(self) -> _Book:
        """Read the file; what this process has seen in it must still be there."""
        book = self._stored()
        steps = sum(_steps_of(book.charges).values())
        if steps < self._steps:
            raise SetupError(self._unusable("was removed, or replaced by an older copy"))
        self._steps = steps
        return book

    def _stored(self) -> _Book:
        try:
            book = _Book.model_validate_json(read_bytes(self.path, DOCUMENT_BYTES))
        except FileNotFoundError:
            return _Book()
        except (ValidationError, OSError) as error:
            why = reason(self.path, error) if isinstance(error, OSError) else "damaged"
            raise SetupError(self._unusable(why)) from None
        if book.sealed() != book:
            raise SetupError(self._unusable("damaged"))
        return book

    def _write(self, book: _Book) -> None:
        try:
            write_atomic(self.path, book.sealed().model_dump_json() + "\n")
        except OSError as error:
            raise SetupError(
                f"{self.path}: cannot be written: {reason(self.path, error)}"
            ) from None
        self._steps = sum(_steps_of(book.charges).values())

    def _unusable(self, why: str) -> str:
        return (
            f"{self.path}: {why}; expected the ledger of what privacy.patients has spent. Restore "
            "it from backup: without it nobody knows what may still be spent"
        )


class PatientBudget(NamedTuple):
    """The policy's rule for the privacy of patients, and what it has spent."""

    rule: PatientPrivacy
    ledger: PrivacyLedger

    def spent(self) -> PrivacySpent:
        """Return what all rounds so far have spent, rounded up.

        Raises:
            SetupError: The ledger is damaged, or was replaced by an older copy.
        """
        value = epsilon(self.ledger.charges(), self.rule.delta)
        return PrivacySpent(epsilon=-(-value // STEP) * STEP, delta=self.rule.delta)


def epsilon(charges: tuple[Charge, ...], delta: float) -> float:
    """Return the epsilon of some steps together.

    Raises:
        MamfedError: opacus is not installed; the message says how to install it.
    """
    check_installed("privacy", "opacus")
    from opacus.accountants import RDPAccountant

    if not charges:
        return 0.0
    accountant = RDPAccountant()
    accountant.history = [(c.noise_multiplier, c.sample_rate, c.steps) for c in charges]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the best of its orders is the last one
        return float(accountant.get_epsilon(delta))


def _kind(charge: Charge) -> tuple[float, float]:
    return charge.noise_multiplier, charge.sample_rate


def _steps_of(charges: tuple[Charge, ...]) -> dict[tuple[float, float], int]:
    return {_kind(charge): charge.steps for charge in charges}


def _added(charges: tuple[Charge, ...], charge: Charge) -> tuple[Charge, ...]:
    """Return the charges with one more, added to an equal one: the file stays short."""
    totals = _steps_of(charges)
    totals[_kind(charge)] = totals.get(_kind(charge), 0) + charge.steps
    return tuple(
        Charge(noise_multiplier=noise, sample_rate=rate, steps=steps)
        for (noise, rate), steps in totals.items()
    )
