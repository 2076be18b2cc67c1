"""Where the values of flags come from."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path

import pytest

from controlplane.config import Config, config_of, parse
from podplane.options import Options


def serve(*argv: str, environment: Mapping[str, str] | None = None) -> Config:
    return config_of(parse(["serve", *argv], environment or {}))


def written(tmp_path: Path, text: str) -> str:
    file = tmp_path / "controlplane.toml"
    file.write_text(text)
    return str(file)


def test_the_command_line_wins_over_the_environment_that_over_the_file_that_over_the_default(tmp_path: Path) -> None:
    file = written(
        tmp_path,
        'state-dir = "/file"\nlog_level = "debug"\nheartbeat-seconds = 1\nlisten = "127.0.0.1:1"\nttl = "8h"\n'
        'advertise = ["a.test", "b.test"]\n',
    )
    environment = {"PODPLANE_HEARTBEAT_SECONDS": "2", "PODPLANE_LISTEN": "127.0.0.1:2"}
    config = serve("--config", file, "--listen", "127.0.0.1:3", environment=environment)
    assert (config.listen.port, config.heartbeat, config.log_level, config.state) == (3, 2, "debug", Path("/file"))
    assert (config.advertise, config.node_grace) == (("a.test", "b.test"), 12)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('colour = "red"', "controlplane.toml: colour: unknown key; there are advertise"),
        ("[serve]\nlisten = 1", "controlplane.toml: serve: unknown key"),
        ('log-level = "loud"', "controlplane.toml: log-level: 'loud' is not one of debug, info, warning, error"),
        ("heartbeat-seconds = true", "heartbeat-seconds: True must be a string, a number"),
        ("heartbeat-seconds = 0", "heartbeat-seconds: '0' must be a whole number of seconds above 0"),
        ("listen = ", "cannot read"),
        ('log-level = "info"\nlog_level = "info"', "is there twice"),
    ],
)
def test_what_is_wrong_in_the_file_is_named(
    tmp_path: Path, text: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        serve("--config", written(tmp_path, text))
    assert (ended.value.code, words in capsys.readouterr().err) == (2, True)


def test_a_file_that_is_not_there_and_a_wrong_variable_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        serve("--config", "/no/such.toml")
    assert "/no/such.toml" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        serve(environment={"PODPLANE_LOG_FORMAT": "xml"})
    assert "PODPLANE_LOG_FORMAT: 'xml' is not one of text, json" in capsys.readouterr().err


def test_podctls_variable_is_not_the_daemons_file() -> None:
    assert serve(environment={"PODPLANE_CONFIG": "/home/bob/.config/podplane/config"}).heartbeat == 3


def test_a_program_without_commands_may_use_them_too() -> None:
    parser = argparse.ArgumentParser()
    options = Options(parser, {"PODPLANE_COUNT": "3"})
    flags = options.flags(parser)
    flags.add("--count", 1, "how many, 100 % of them", type=int)
    flags.add("--name", "nobody", "who")
    found = options.parse(["--name", "bob"])
    assert (found.count, found.name, found.config) == (3, "bob", None)
    assert "how many, 100 % of them (default 1) [PODPLANE_COUNT]" in " ".join(parser.format_help().split())


@pytest.mark.parametrize(
    ("text", "address"),
    [(":9445", ("127.0.0.1", 9445)), ("192.0.2.1:1", ("192.0.2.1", 1)), ("[::1]:0", ("::1", 0)), ("", None)],
)
def test_metrics_are_off_on_loopback_or_where_they_are_asked_for(text: str, address: tuple[str, int] | None) -> None:
    assert serve("--metrics-address", text).metrics == address
    assert serve().metrics is None


@pytest.mark.parametrize("text", ["9445", "localhost:1", "127.0.0.1:", "127.0.0.1:70000", ":-1"])
def test_a_wrong_metrics_address_is_refused(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        serve(f"--metrics-address={text}")
    assert "--metrics-address" in capsys.readouterr().err
