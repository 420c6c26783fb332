"""One secret of the deployment, from which everything that is signed has a key of its own."""

import base64
import hashlib
import hmac
import secrets
from pathlib import Path

from filelock import FileLock

from web.durable import replace_file

_FILE = "secret"


class Signer:
    """Derives keys from the deployment's secret, so that no other secret has to be stored. Immutable."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    def webhook_secret(self, owner: str) -> str:
        """What an owner's webhooks are signed with, in the form `whsec_…` of Standard Webhooks."""
        return "whsec_" + base64.b64encode(self._derive(f"webhooks of {owner}")).decode()

    def links_key(self) -> bytes:
        """What links to files are signed with."""
        return self._derive("links")

    def _derive(self, purpose: str) -> bytes:
        return hmac.digest(self._secret, purpose.encode(), hashlib.sha256)


def open_signer(given: str | None, state_dir: Path) -> Signer:
    """The signer with the given secret, else with one that is drawn once and kept in `state_dir`. Blocking."""
    if given is not None:
        return Signer(given.encode())
    path = state_dir / _FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_suffix(".lock"), mode=0o600, fallback_to_soft=False):  # whoever is first draws it
        if not path.exists():
            replace_file(path, secrets.token_hex(32).encode())
        return Signer(path.read_bytes())
