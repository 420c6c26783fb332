"""With what videos are signed: the operator's certificate, or one made here that says so."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from filelock import FileLock

from web.durable import replace_file

SELF_MADE = "Stillmotion, self-made certificate"
"""The organisation in a certificate made here: nobody vouches for it."""
_FILE = "c2pa.pem"
_YEARS = timedelta(days=3650)
_CURVES = {"secp256r1": "es256", "secp384r1": "es384", "secp521r1": "es512"}
_USES = (
    "digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
    "key_cert_sign", "crl_sign", "encipher_only", "decipher_only",
)


class CertificateUnusable(ValueError):
    """Videos cannot be signed with it; the message names the file and what is wrong."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """A chain, the signer's own first, and its key, both as PEM; `algorithm` is C2PA's name of it."""

    chain: bytes
    key: bytes
    algorithm: str


def open_certificate(cert: Path | None, key: Path | None, state_dir: Path) -> Certificate:
    """The operator's, where named; else the one in `state_dir`, made there once. Blocking.

    Raises:
        CertificateUnusable: a named file is missing, is no PEM, or the key is not the certificate's.
    """
    if cert is not None and key is not None:
        return _read(cert, key)
    if cert is not None or key is not None:
        raise CertificateUnusable("GATEWAY_C2PA_CERT and GATEWAY_C2PA_KEY go together: set both, or neither.")
    path = state_dir / _FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_suffix(".lock"), mode=0o600, fallback_to_soft=False):
        if not path.exists():
            replace_file(path, _make())
    return _read(path, path)


def _read(cert: Path, key: Path) -> Certificate:
    try:
        chain, secret = cert.read_bytes(), key.read_bytes()
        own, private = x509.load_pem_x509_certificates(chain)[0], load_pem_private_key(secret, None)
    except (OSError, ValueError, TypeError, IndexError) as error:
        raise CertificateUnusable(f"Videos cannot be signed with {cert} and {key}: {error}.") from error
    if own.public_key() != private.public_key():
        raise CertificateUnusable(f"The key in {key} is not that of the certificate in {cert}.")
    match private:
        case ec.EllipticCurvePrivateKey() if private.curve.name in _CURVES:
            algorithm = _CURVES[private.curve.name]
        case rsa.RSAPrivateKey():
            algorithm = "ps256"
        case ed25519.Ed25519PrivateKey():
            algorithm = "ed25519"
        case _:
            raise CertificateUnusable(f"The key in {key} is of a kind that C2PA does not sign with.")
    certificates = b"".join(one.public_bytes(Encoding.PEM) for one in x509.load_pem_x509_certificates(chain))
    plain = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return Certificate(chain=certificates, key=plain, algorithm=algorithm)


def _make() -> bytes:
    """A root, a signer under it (C2PA takes no certificate that signs itself), and the signer's key, as PEM."""
    root_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    root = _begun("Stillmotion root", root_key).add_extension(x509.BasicConstraints(ca=True, path_length=0), True)
    root = root.add_extension(_usage("key_cert_sign", "crl_sign"), True)
    signer = _begun("Stillmotion", key).add_extension(x509.BasicConstraints(ca=False, path_length=None), True)
    signer = signer.add_extension(_usage("digital_signature"), True)
    signer = signer.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]), False)
    signer = signer.add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(root_key.public_key()), False)
    certificates = (one.sign(root_key, hashes.SHA256()) for one in (signer, root))
    own_key = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return b"".join([*(one.public_bytes(Encoding.PEM) for one in certificates), own_key])


def _begun(name: str, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder().subject_name(_named(name)).issuer_name(_named("Stillmotion root"))
        .public_key(key.public_key()).serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1)).not_valid_after(now + _YEARS)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
    )


def _named(name: str) -> x509.Name:
    return x509.Name([
        x509.NameAttribute(NameOID.ORGANIZATION_NAME, SELF_MADE), x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _usage(*used: str) -> x509.KeyUsage:
    return x509.KeyUsage(**{use: use in used for use in _USES})
