"""podplane-controlplane as a program: init, serve, token, and how it ends."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import signal
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import grpc
import pytest

from controlplane.__main__ import main
from controlplane.pki import Authority
from controlplane.tokens import Tokens
from podplane import context
from podplane.tasks import TaskEnded
from podplane.tls import authority_in, certificate_hash, certificates_of
from podplane.v1 import requests_pb2
from tests.controlplane.plane import Plane, running, status

PROGRAM = [sys.executable, "-m", "controlplane"]
ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def own_log_handlers(monkeypatch: pytest.MonkeyPatch) -> None:
    """`serve` sets the process's log handlers up; they go with the test."""
    monkeypatch.setattr(logging.root, "handlers", list(logging.root.handlers))
    monkeypatch.setattr(logging.root, "level", logging.root.level)


def init(tmp_path: Path) -> tuple[Path, Path]:
    state, config = tmp_path / "state", tmp_path / "config"
    assert main(["init", "--state-dir", str(state), "--context-file", str(config), "--advertise", "192.0.2.10"]) == 0
    return state, config


def test_init_makes_private_state_and_a_context_that_works(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state, config = init(tmp_path)
    assert Authority(state / "pki").hash in capsys.readouterr().out
    for path in (state, state / "pki", state / "tokens"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700, path
    for path in (state / "pki" / "ca.key", state / "pki" / "server.key", state / "store.sqlite", config):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
    chosen = context.read(config).context()
    assert (chosen.name, chosen.server) == ("podplane", "192.0.2.10:7443")
    token = Tokens(state / "tokens").check(chosen.bearer())
    assert token is not None
    assert (token.user, token.role, token.expires) == ("admin", "admin", None)


def test_init_keeps_what_exists_and_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, config = init(tmp_path)
    before = config.read_bytes()
    capsys.readouterr()
    init(tmp_path)
    said = capsys.readouterr().out
    assert ("kept the cluster" in said, "kept the context" in said, config.read_bytes() == before) == (True, True, True)


def test_serve_and_token_without_init_say_to_run_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command in (["serve"], ["token", "--bootstrap"]):
        assert main([*command, "--state-dir", str(tmp_path)]) == 1
        assert "podplane-controlplane init" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--user", "bob"],
        ["--role", "view"],
        ["--bootstrap", "--role", "view"],
        ["--user", "system:x", "--role", "view"],
    ],
    ids=" ".join,
)
def test_token_refuses_what_names_nobody(
    tmp_path: Path, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    state, _ = init(tmp_path)
    assert main(["token", "--state-dir", str(state), *arguments]) == 1
    assert "system:" in (said := capsys.readouterr().err) or "--bootstrap" in said


def test_a_bootstrap_token_begins_with_the_authoritys_hash(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state, _ = init(tmp_path)
    capsys.readouterr()
    assert main(["token", "--state-dir", str(state), "--bootstrap"]) == 0
    digest, _, bearer = capsys.readouterr().out.strip().partition(".")
    assert digest == Authority(state / "pki").hash
    token = Tokens(state / "tokens").check(bearer)
    assert token is not None
    assert token.role == "bootstrap"


def test_flags_come_from_the_environment_and_the_command_line_wins(tmp_path: Path) -> None:
    from controlplane.config import config_of, parse

    environment = {
        "PODPLANE_STATE_DIR": str(tmp_path),
        "PODPLANE_ADVERTISE": "192.0.2.1,example.test",
        "PODPLANE_LISTEN": "127.0.0.1:1",
        "PODPLANE_HEARTBEAT_SECONDS": "2",
    }
    config = config_of(parse(["serve", "--listen", "127.0.0.1:2"], environment))
    assert (config.state, config.advertise) == (tmp_path, ("192.0.2.1", "example.test"))
    assert (config.listen.port, config.heartbeat) == (2, 2)


@pytest.mark.parametrize(
    "arguments",
    [["--cluster-cidr", "10.96.0.0/15"], ["--node-grace-seconds", "3"], ["--cluster-cidr", "10.0.0.0/25"]],
    ids=" ".join,
)
def test_serve_refuses_settings_that_contradict_each_other(
    tmp_path: Path, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["serve", "--state-dir", str(tmp_path), *arguments]) == 1
    assert arguments[0] in capsys.readouterr().err


async def test_the_served_chain_holds_the_authority_that_a_joining_node_hashes(plane: Plane) -> None:
    chain = await asyncio.to_thread(_served_chain, plane.control.port)
    expected = plane.authority.hash
    assert certificate_hash(authority_in(chain, expected)) == expected
    with pytest.raises(ValueError, match="hash in the token"):
        authority_in(chain, "0" * 64)


def _served_chain(port: int, *options: str) -> list[str]:
    """The certificates that the server shows, as `openssl s_client -showcerts` sees them."""
    shown = subprocess.run(
        ["openssl", "s_client", "-connect", f"127.0.0.1:{port}", "-showcerts", "-alpn", "h2", *options],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=10,
        check=False,
    )
    return certificates_of(shown.stdout.decode(errors="replace"))


async def test_the_nodes_port_takes_nobody_without_a_nodes_certificate(plane: Plane) -> None:
    client = plane._client(plane.control.node_port, grpc.ssl_channel_credentials(plane.authority.certificate))
    code, _ = await status(client.call("Namespaces/List", requests_pb2.ListRequest()))
    assert code == "UNAVAILABLE"


async def test_tls_below_1_2_is_refused(plane: Plane) -> None:
    for version, accepted in (("-tls1_1", False), ("-tls1_2", True), ("-tls1_3", True)):
        chain = await asyncio.to_thread(_served_chain, plane.control.port, version, "-cipher", "ALL:@SECLEVEL=0")
        assert bool(chain) is accepted, version


async def test_a_background_task_that_dies_ends_the_daemon_with_its_reason(tmp_path: Path) -> None:
    async with running(tmp_path / "state") as plane:
        plane.control.tasks.start(_fail(), name="canary")
        with pytest.raises(TaskEnded, match="canary ended unexpectedly: RuntimeError: sang no more"):
            await asyncio.wait_for(plane.control.run(asyncio.Event()), 5)


async def _fail() -> None:
    raise RuntimeError("sang no more")


async def test_sigterm_ends_watches_and_the_daemon_cleanly(tmp_path: Path) -> None:
    state, config = await asyncio.to_thread(init, tmp_path)
    process = await asyncio.create_subprocess_exec(
        *PROGRAM,
        "serve",
        "--state-dir",
        str(state),
        "--listen",
        "127.0.0.1:0",
        "--node-listen",
        "127.0.0.1:0",
        stderr=asyncio.subprocess.PIPE,
        cwd=ROOT,
        env={**os.environ, "PODPLANE_LOG_FORMAT": "json"},
    )
    try:
        assert process.stderr is not None
        async with asyncio.timeout(20):
            while not (found := re.search(rb'"listen": (\d+)', await process.stderr.readline())):
                assert process.returncode is None
        stream = _watch(int(found[1]), context.read(config).context())
        assert (await anext(aiter(stream))).events
        ending = asyncio.create_task(status(stream))
        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(ending, 10) == (
            "UNAVAILABLE",
            "the control plane is stopping: connect again",
        )
        await asyncio.wait_for(process.communicate(), 10)
        assert process.returncode == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def _watch(port: int, chosen: context.Context) -> Any:
    from podplane.tls import token_channel_credentials
    from tests.controlplane.plane import Client

    credentials = token_channel_credentials(chosen.authority() or b"", chosen.bearer())
    client = Client(grpc.aio.secure_channel(f"127.0.0.1:{port}", credentials))
    return client.call("Namespaces/Watch", requests_pb2.WatchRequest())
