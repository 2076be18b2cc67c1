"""The seccomp filters of containers: profiles from disk, resolved, and the programs that crun has compiled of them.

Compiling the default profile costs 11 ms a container; crun takes a compiled program in an annotation. The first
container with a profile is compiled by crun, which leaves the program in its state directory: it is kept, by the
hash of the resolved profile and the runtime's version. Fails with RuntimeFailure where a profile cannot be read.
"""

from __future__ import annotations

import base64
import contextlib
import errno
import hashlib
import json
import os
import platform
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from nodeagent.runtime import bpf, seccomp
from nodeagent.runtime.beneath import directory, open_beneath
from nodeagent.runtime.spec import Filter
from nodeagent.types import RuntimeFailure

DEFAULT_PROFILE = Path("/usr/share/containers/seccomp.json")
_LOCALHOST = "localhost/"


class Filters:
    """Looks filters up and learns compiled ones. `version` is None where the runtime takes no compiled program."""

    def __init__(self, state: Path, version: str | None, default: Path = DEFAULT_PROFILE) -> None:
        self._profiles = state / "seccomp"
        self._compiled = state / "seccomp-compiled"
        self._version = version
        self._default: Mapping[str, Any] = json.loads(default.read_text())
        self._resolved: dict[tuple[str, ...], tuple[dict[str, Any], str]] = {}
        self._programs: dict[str, str] = {}

    def filter(self, name: str, capabilities: Sequence[str]) -> tuple[Filter, str]:
        """The filter of a container and the key by which learn() keeps its program."""
        if name == "Unconfined":
            return Filter(), ""
        if name.startswith(_LOCALHOST):
            return Filter(self._localhost(name.removeprefix(_LOCALHOST), capabilities)), ""
        resolved, key = self._runtime_default(capabilities)
        return Filter(resolved, self._program(key)), key

    def learn(self, key: str, program: Path) -> None:
        """Keep the program that the runtime has compiled for a container, if it left one."""
        if not key or self._version is None or key in self._programs:
            return
        with contextlib.suppress(FileNotFoundError):
            data = program.read_bytes()
            # A BPF program is a row of 8-byte instructions; anything else was not written to its end.
            if data and len(data) % 8 == 0:
                self._keep(key, data)

    def _keep(self, key: str, data: bytes) -> None:
        self._programs[key] = _annotated(data)
        self._compiled.mkdir(mode=0o700, parents=True, exist_ok=True)
        draft = self._compiled / f".{key}.{os.getpid()}"
        draft.write_bytes(data + hashlib.sha256(data).digest())
        draft.rename(self._compiled / key)

    def _runtime_default(self, capabilities: Sequence[str]) -> tuple[dict[str, Any], str]:
        held = tuple(capabilities)
        if held not in self._resolved:
            resolved = seccomp.resolve(self._default, platform.machine(), held)
            text = json.dumps([resolved, self._version, platform.release()], sort_keys=True)
            self._resolved[held] = resolved, hashlib.sha256(text.encode()).hexdigest()[:32]
        return self._resolved[held]

    def _program(self, key: str) -> str | None:
        if self._version is None:
            return None
        if key not in self._programs:
            with contextlib.suppress(FileNotFoundError):
                data = (self._compiled / key).read_bytes()
                if data[-32:] == hashlib.sha256(data[:-32]).digest():
                    self._programs[key] = _annotated(data[:-32])
        return self._programs.get(key)

    def _localhost(self, name: str, capabilities: Sequence[str]) -> dict[str, Any]:
        with self._reading(name), directory(self._profiles) as root:
            # O_NONBLOCK: a fifo must not hang the agent. The opener's descriptor is closed where it is a directory.
            with open(name, opener=lambda path, flags: open_beneath(root, path, flags | os.O_NONBLOCK)) as file:
                return seccomp.resolve(json.load(file), platform.machine(), capabilities)

    @contextlib.contextmanager
    def _reading(self, name: str) -> Iterator[None]:
        """Whatever is wrong with the file is the container's failure."""
        try:
            yield
        except OSError as error:
            why = "it leads out of that directory" if error.errno == errno.EXDEV else error.strerror
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            why = f"it is no seccomp profile: {type(error).__name__}: {error}"
        else:
            return
        raise RuntimeFailure(
            "CreateContainerError", f"cannot load seccomp profile {name!r} from {self._profiles}: {why}"
        )


def _annotated(program: bytes) -> str:
    """A compiled program as crun's annotation has it."""
    return base64.b64encode(bpf.by_halves(program)).decode()
