"""Certificates of every kind for tests: good, expired, not yet valid, of another authority."""

from datetime import UTC, datetime, timedelta
from hashlib import sha256
from ipaddress import ip_address

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID


def new_key():
    return ec.generate_private_key(ec.SECP384R1())


def public_pem(key):
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def fingerprint(key):
    der = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return sha256(der).hexdigest()


def write_key(path, key):
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    path.chmod(0o600)
    return path


def write_certificate(path, certificate):
    path.write_bytes(certificate.public_bytes(Encoding.PEM))
    return path


def write_machines(folder, *names, new_key=new_key):
    """Write, of the authorities ``ca`` and ``stranger`` each: its certificate (``ca.pem``), and
    key and certificate of every machine (``ca-site.key``) and of one that has expired."""
    for signer in ("ca", "stranger"):
        authority = Authority(signer)
        write_certificate(folder / f"{signer}.pem", authority.certificate)
        for name in (*names, "expired"):
            key = new_key()
            validity = {"start_days": -9, "days": 1} if name == "expired" else {}
            write_key(folder / f"{signer}-{name}.key", key)
            certificate = authority.machine(key, **validity)
            write_certificate(folder / f"{signer}-{name}.pem", certificate)
    return folder


class Authority:
    """A certificate authority that signs whatever a test needs."""

    def __init__(self, name="test federation"):
        self.key = new_key()
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.certificate = self._sign(
            self.name,
            self.key,
            [
                (x509.BasicConstraints(True, 0), True),
                (x509.SubjectKeyIdentifier.from_public_key(self.key.public_key()), False),
            ],
            -1,
            3650,
        )

    @classmethod
    def of(cls, certificate, key):
        """The authority whose files these are, as whoever stole its key has it."""
        found = cls.__new__(cls)
        found.certificate = x509.load_pem_x509_certificate(certificate.read_bytes())
        found.key = load_pem_private_key(key.read_bytes(), None)
        found.name = found.certificate.subject
        return found

    def server(self, key, host="127.0.0.1", start_days=-1, days=30):
        names = x509.SubjectAlternativeName([x509.IPAddress(ip_address(host))])
        usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])
        return self._issue("server", key, [(names, False), (usage, False)], start_days, days)

    def machine(self, key, host="127.0.0.1", start_days=-1, days=30):
        """A certificate of a machine that both calls and is called, such as an archive."""
        names = x509.SubjectAlternativeName([x509.IPAddress(ip_address(host))])
        both = x509.ExtendedKeyUsage(
            [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        )
        return self._issue("machine", key, [(names, False), (both, False)], start_days, days)

    def site(self, name, key, node_key, start_days=-1, days=30):
        uri = f"urn:mamfed:node:{fingerprint(node_key)}"
        names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri)])
        usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH])
        return self._issue(name, key, [(names, False), (usage, False)], start_days, days)

    def _issue(self, name, key, extensions, start_days, days):
        identifier = x509.SubjectKeyIdentifier.from_public_key(self.key.public_key())
        authority = x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier)
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        return self._sign(subject, key, [*extensions, (authority, False)], start_days, days)

    def _sign(self, subject, key, extensions, start_days, days):
        start = datetime.now(UTC) + timedelta(days=start_days)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(start)
            .not_valid_after(start + timedelta(days=days))
        )
        for extension, critical in extensions:
            builder = builder.add_extension(extension, critical)
        return builder.sign(self.key, hashes.SHA384())
