"""Asking registries, through skopeo: manifests, configs and blobs.

Registries, mirrors and insecure ones come from registries.conf alone; credentials from a file in memory that lives
as long as the call. No retries: back-off is the pod's. A download is watched: it ends when it brings next to nothing,
or more than was announced. Fails with ImageFailure; refusals.py reads the words. Dies with the agent.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from nodeagent.runtime import refusals
from nodeagent.runtime.command import DIES_WITH_US, SEARCH_PATH
from nodeagent.runtime.image import ImageFailure, pull_failed
from nodeagent.runtime.manifests import Blob, hexadecimal
from nodeagent.runtime.process import Completed, ProgramTimeout, Watch, run

LOOK = 0.1
"""Seconds between two looks at what skopeo does."""
SLOWEST = 1024
"""Bytes a second: who brings less over a whole `stall` has stopped."""
EXCESS = 16 << 20
"""What may come beyond the layers: configs and manifests."""

_WORDS = 10.0
_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy")

Arrived = Callable[[int], None]
"""Told how many bytes are there, several times a second."""


@dataclass(frozen=True, slots=True)
class Skopeo:
    """skopeo with this node's configuration. `scratch`: for its temporary files; `run`: memory, for credentials."""

    scratch: Path
    run: Path
    registries_conf: Path | None = None
    ask: float = 30.0
    stall: float = 60.0
    copy: float = 3600.0

    async def manifest(self, image: str, auth: bytes | None) -> bytes:
        """The exact bytes of a manifest or an index, not verified."""
        return await self._ask(image, auth, "--raw")

    async def config(self, image: str, auth: bytes | None) -> bytes:
        """The exact bytes of an image's config."""
        return await self._ask(image, auth, "--raw", "--config")

    async def blobs(
        self, image: str, wanted: Sequence[Blob], target: Path, auth: bytes | None, arrived: Arrived
    ) -> None:
        """Download into `target`, an OCI layout, an image's blobs; those that are there already are not asked for."""
        download = _Download(image, target, wanted, self.stall, arrived)
        argv = ["copy", "--quiet", "--dest-oci-accept-uncompressed-layers"]
        await self._call(image, auth, self.copy, argv, [f"docker://{image}", f"oci:{target}:image"], download.watch)

    async def _ask(self, image: str, auth: bytes | None, *options: str) -> bytes:
        done = await self._call(image, auth, self.ask, ["inspect", *options], [f"docker://{image}"], _heed)
        return done.stdout

    async def _call(
        self, image: str, auth: bytes | None, deadline: float, verb: Sequence[str], what: Sequence[str], watch: Watch
    ) -> Completed:
        program = shutil.which("skopeo", path=SEARCH_PATH)
        if program is None:
            raise ImageFailure("ErrImagePull", "skopeo is not installed: install the package skopeo")
        conf = [f"--registries-conf={self.registries_conf}"] if self.registries_conf is not None else []
        with self._credentials(auth) as file:
            # --debug: else nobody learns that skopeo waits because it was told to.
            argv = [*DIES_WITH_US, program, "--debug", "--override-os", "linux", *conf]
            argv += [*verb, "--authfile", str(file), *what]
            try:
                done = await run(argv, deadline=deadline, env=self._environment(), watch=watch)
            except ProgramTimeout:
                why = f"the registry did not answer within {deadline:g} s"
                raise pull_failed(image, why, "RegistryUnavailable") from None
            except _Throttled as throttled:
                raise pull_failed(image, await _words(throttled.url)) from None
            except OSError as error:
                raise pull_failed(image, error) from error
        if done.code != 0:
            raise refusals.failure(image, done.err)
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


class _Throttled(Exception):
    """The registry answered 429, and skopeo waits: the back-off is the pod's, and shown."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.url = url


async def _heed(said: Callable[[], str]) -> None:
    while True:
        _check_throttled(said())
        await asyncio.sleep(LOOK)


def _check_throttled(said: str) -> None:
    if (url := refusals.throttled(said)) is not None:
        raise _Throttled(url)


async def _words(url: str) -> str:
    """What the registry says with its 429."""
    argv = [*DIES_WITH_US, sys.executable, "-I", "-m", "nodeagent.runtime.asked", url]
    with contextlib.suppress(ProgramTimeout):
        done = await run(argv, deadline=_WORDS)
        if done.code == 0 and done.out.strip():
            return f"{done.out.strip()} (429 Too Many Requests)"
    return f"toomanyrequests: {url} answers 429 Too Many Requests"


class _Download:
    """Blobs on their way to a directory."""

    def __init__(self, image: str, target: Path, wanted: Sequence[Blob], stall: float, arrived: Arrived) -> None:
        self._image, self._target, self._stall, self._arrived = image, target, stall, arrived
        self._names = {hexadecimal(blob.digest) for blob in wanted}
        self._total = sum(blob.size for blob in wanted)

    async def watch(self, said: Callable[[], str]) -> None:
        """Until the download must end."""
        since, seen = time.monotonic(), 0
        while True:
            await asyncio.sleep(LOOK)
            _check_throttled(said())
            there, now = self._there(), time.monotonic()
            self._arrived(min(there, self._total))
            if there > self._total + EXCESS:
                raise pull_failed(self._image, f"the registry sends more than the {self._total} bytes of the manifest")
            if there - seen >= SLOWEST * self._stall:
                since, seen = now, there
            elif now - since > self._stall:
                why = f"the registry has stopped sending: {there - seen} bytes in the last {self._stall:g} s"
                raise pull_failed(self._image, f"{why}, {there} of {self._total} in all", "RegistryUnavailable")

    def _there(self) -> int:
        """Bytes that have come: blobs are written beside the layout's files, and then renamed."""
        found = 0
        for directory in (self._target, self._target / "blobs" / "sha256"):
            with contextlib.suppress(FileNotFoundError):
                for entry in os.scandir(directory):
                    if entry.name in self._names or entry.name.startswith("oci-put-blob"):
                        with contextlib.suppress(FileNotFoundError):
                            found += entry.stat(follow_symlinks=False).st_size
        return found
