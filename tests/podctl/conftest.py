"""A real control plane on loopback, in a process of its own, and podctl run against it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from podctl.cli import run
from podplane import context

_START_SECONDS = 30


@dataclass(slots=True)
class ControlPlane:
    """One state directory and the process that serves it; the port stays the same over restarts."""

    directory: Path
    port: int = 0
    _process: subprocess.Popen[str] | None = field(default=None)
    _reader: threading.Thread | None = field(default=None)

    @property
    def config(self) -> Path:
        return self.directory / "config"

    def initialise(self) -> None:
        self._command("init", "--context-file", str(self.config), "--server", "127.0.0.1:1")

    def token(self, role: str) -> str:
        return self._command("token", "--user", "somebody", "--role", role).strip()

    def start(self) -> None:
        """Serve, and return once the port is known and written to the context file."""
        flags = ["--listen", f"127.0.0.1:{self.port}", "--node-listen", "127.0.0.1:0"]
        self._process = subprocess.Popen(
            [*self._program, "serve", "--state-dir", str(self.directory / "state"), *flags],
            stderr=subprocess.PIPE,
            text=True,
        )
        watchdog = threading.Timer(_START_SECONDS, self._process.kill)
        watchdog.start()
        assert self._process.stderr is not None
        lines = []
        for line in self._process.stderr:
            lines.append(line)
            if found := re.search(r" listen=\S*?(\d+)\b", line):
                self.port = int(found[1])
                break
        else:
            raise AssertionError("the control plane did not start:\n" + "".join(lines))
        watchdog.cancel()
        self._reader = threading.Thread(target=self._process.stderr.read, daemon=True)  # the pipe must not fill up
        self._reader.start()
        file = context.read(self.config)
        entry = replace(file.context(), server=f"127.0.0.1:{self.port}")
        context.write(context.with_context(file, entry))

    def stop(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            self._process.wait(_START_SECONDS)
            assert self._reader is not None
            assert self._process.stderr is not None
            self._reader.join()
            self._process.stderr.close()
            self._process = None

    @property
    def _program(self) -> list[str]:
        return [sys.executable, "-m", "controlplane"]

    def _command(self, verb: str, *arguments: str) -> str:
        command = [*self._program, verb, "--state-dir", str(self.directory / "state"), *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=_START_SECONDS).stdout


@pytest.fixture(scope="session")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """A control plane without nodes, shared by the tests of a run."""
    made = ControlPlane(tmp_path_factory.mktemp("plane"))
    made.initialise()
    made.start()
    yield made
    made.stop()


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one run of podctl gave."""

    status: int
    out: str
    err: str


class Podctl:
    """Runs podctl in this process, in a namespace of its own."""

    def __init__(self, capture: pytest.CaptureFixture[str], namespace: str) -> None:
        self._capture = capture
        self.namespace = namespace

    def __call__(self, *arguments: str) -> Outcome:
        self._capture.readouterr()
        try:
            status = run(list(arguments))
        except SystemExit as ended:  # argparse, after --help
            status = int(ended.code or 0)
        out, err = self._capture.readouterr()
        return Outcome(status, out, err)


@pytest.fixture
def podctl(
    plane: ControlPlane,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> Podctl:
    """podctl with a context of this test's own, whose default namespace is fresh."""
    namespace = re.sub(r"[^a-z0-9]+", "-", request.node.name.lower()).strip("-")[:50].strip("-")
    shared = context.read(plane.config)
    path = tmp_path / "config"
    context.write(
        context.ContextFile(path, "test", {"test": replace(shared.context(), name="test", namespace=namespace)})
    )
    monkeypatch.setenv("PODPLANE_CONFIG", str(path))
    command = Podctl(capsys, namespace)
    assert command("create", "namespace", namespace).status == 0
    return command


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Podctl:
    """podctl without any control plane: its config file does not exist."""
    monkeypatch.setenv("PODPLANE_CONFIG", str(tmp_path / "none"))
    return Podctl(capsys, "default")


@pytest.fixture
def environment(podctl: Podctl) -> dict[str, str]:
    """The environment for podctl in a process of its own."""
    return dict(os.environ)
