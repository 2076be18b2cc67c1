"""Bearer tokens of people and bootstrap tokens of nodes: made by the command line, checked by the server.

Owns `<state>/tokens`, one file a token (0600, atomically written) that holds the sha256 of its secret, never the
secret. A directory, not the store, so that `podplane-controlplane token` works while the server holds the store.
To revoke a token is to remove its file; the server notices at the next use and on open streams within seconds.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import re
import secrets
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from podplane.files import replace

ROLES = ("view", "edit", "admin")
BOOTSTRAP = "bootstrap"
"""The role of a token that may call Bootstrap.Join and nothing else."""

_ID = re.compile(r"[0-9a-f]{16}")


@dataclass(frozen=True, slots=True)
class Token:
    """A token as the server knows it. `expires` is in seconds since the epoch; None never."""

    id: str
    secret_hash: str
    user: str
    role: str
    created: float
    expires: float | None

    def expired(self, now: float) -> bool:
        """True from its end on."""
        return self.expires is not None and now >= self.expires


class Tokens:
    """The tokens of one state directory."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._cache: dict[str, tuple[int, Token]] = {}

    def create(self, user: str, role: str, ttl: float | None) -> str:
        """Make a token of `ttl` seconds (None: without end) and return `<id>.<secret>`: the secret is shown once."""
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        identifier, secret, now = secrets.token_hex(8), secrets.token_urlsafe(32), time.time()
        token = Token(identifier, _hash(secret), user, role, now, None if ttl is None else now + ttl)
        replace(self._file(identifier), json.dumps(asdict(token)).encode(), synced=True)
        return f"{identifier}.{secret}"

    def check(self, bearer: str) -> Token | None:
        """The token that `bearer` (`<id>.<secret>`) is; None where it is unknown, wrong or expired."""
        identifier, _, secret = bearer.partition(".")
        token = self.current(identifier)
        if token is None or not hmac.compare_digest(token.secret_hash, _hash(secret)):
            return None
        return token

    def current(self, identifier: str) -> Token | None:
        """The token of this id, where it exists and has not expired. One stat(2) a call, no read."""
        if not _ID.fullmatch(identifier):
            return None
        try:
            changed = os.stat(f"{self._directory}/{identifier}.json").st_mtime_ns  # once a call: no Path is made
        except FileNotFoundError:
            self._cache.pop(identifier, None)
            return None
        known = self._cache.get(identifier)
        if known is None or known[0] != changed:
            known = (changed, Token(**json.loads(self._file(identifier).read_bytes())))
            self._cache[identifier] = known
        return None if known[1].expired(time.time()) else known[1]

    def remove_expired(self) -> int:
        """Delete the files of tokens that have ended; how many those were."""
        ended = [file for file in self._directory.glob("*.json") if _ID.fullmatch(file.stem)]
        ended = [file for file in ended if Token(**json.loads(file.read_bytes())).expired(time.time())]
        for file in ended:
            file.unlink(missing_ok=True)
        return len(ended)

    def _file(self, identifier: str) -> Path:
        return self._directory / f"{identifier}.json"


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
