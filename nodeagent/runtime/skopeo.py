"""Asking registries, through skopeo: manifests and blobs, and what a failure means.

Registries, mirrors and insecure ones come from registries.conf alone; credentials from a file in memory that lives
as long as the call. No retries: back-off is the pod's. Fails with ImageFailure: RegistryUnavailable (refused, timed
out, name not found, TLS, 5xx), else ErrImagePull with the registry's words.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from nodeagent.runtime.image import ImageFailure
from nodeagent.runtime.process import SEARCH_PATH, Completed, ProgramTimeout, run

_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy")
_UNAVAILABLE = re.compile(
    r"connection refused|i/o timeout|no such host|name resolution|no route to host|network is unreachable"
    r"|connection reset|broken pipe|deadline exceeded|timeout|unexpected EOF|: EOF|tls: |x509: |HTTP response to HTTPS"
    r"|status(?: code)?:? 5\d\d|\b5\d\d (?:Internal|Not Implemented|Bad Gateway|Service Unavailable|Gateway)"
    r"|503|502|504",
    re.IGNORECASE,
)  # fmt: skip
_MESSAGE = re.compile(r'msg="((?:[^"\\]|\\.)*)"')


def words(text: str) -> str:
    """What skopeo's log lines say, without their wrapping. Pure."""
    messages = [match.replace('\\"', '"').replace("\\n", " ") for match in _MESSAGE.findall(text)]
    return " ".join((messages[-1] if messages else text).split()) or "skopeo gave no reason"


def failure(image: str, text: str) -> ImageFailure:
    """The failure that skopeo's words stand for. Pure."""
    said = words(text)
    # The numbers of a digest or a port are no status: look at the words alone.
    bare = re.sub(r"sha256:[0-9a-f]+|[\w.-]+:\d+|[0-9.]+:\d+", "", said)
    reason = "RegistryUnavailable" if _UNAVAILABLE.search(bare) else "ErrImagePull"
    return ImageFailure(reason, f"failed to pull image {image!r}: {said}")


@dataclass(frozen=True, slots=True)
class Skopeo:
    """skopeo with this node's configuration. `scratch`: for its temporary files; `run`: memory, for credentials."""

    scratch: Path
    run: Path
    registries_conf: Path | None = None
    ask_deadline: float = 30.0
    copy_deadline: float = 900.0

    async def manifest(self, image: str, auth: bytes | None) -> bytes:
        """The exact bytes of a manifest or an index: their hash is the digest."""
        done = await self._call(image, auth, self.ask_deadline, "inspect", "--raw", f"docker://{image}")
        return done.stdout

    async def copy(self, image: str, target: Path, auth: bytes | None) -> None:
        """Copy manifest, config and layers, byte for byte, into a directory."""
        await self._call(image, auth, self.copy_deadline, "copy", "--quiet", f"docker://{image}", f"dir:{target}")

    async def _call(self, image: str, auth: bytes | None, deadline: float, verb: str, *rest: str) -> Completed:
        program = shutil.which("skopeo", path=SEARCH_PATH)
        if program is None:
            raise ImageFailure("ErrImagePull", "skopeo is not installed: install the package skopeo")
        with self._credentials(auth) as file:
            conf = [f"--registries-conf={self.registries_conf}"] if self.registries_conf is not None else []
            argv = [program, "--override-os", "linux", *conf, verb, "--authfile", str(file), *rest]
            try:
                done = await run(argv, deadline=deadline, env=self._environment())
            except ProgramTimeout:
                message = f"failed to pull image {image!r}: the registry did not answer within {deadline:g} s"
                raise ImageFailure("RegistryUnavailable", message) from None
            except OSError as error:
                raise ImageFailure("ErrImagePull", f"failed to pull image {image!r}: {error}") from error
        if done.code != 0:
            raise failure(image, done.err)
        return done

    def _environment(self) -> Mapping[str, str]:
        env = {name: os.environ[name] for name in _PROXIES if name in os.environ}
        return env | {"TMPDIR": str(self.scratch), "HOME": str(self.run)}

    @contextlib.contextmanager
    def _credentials(self, auth: bytes | None) -> Iterator[Path]:
        # Always a file of ours: skopeo would else use what root has logged in to.
        self.run.mkdir(mode=0o700, parents=True, exist_ok=True)
        fd, name = tempfile.mkstemp(prefix="auth-", dir=self.run)
        try:
            with os.fdopen(fd, "wb") as file:
                file.write(auth or b"{}")
            yield Path(name)
        finally:
            os.unlink(name)
