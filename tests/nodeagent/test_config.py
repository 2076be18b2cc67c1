"""Flags, environment, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from nodeagent.config import parse


def test_flags_win_over_the_environment_and_that_over_defaults() -> None:
    environment = {"PODPLANE_STATE_DIR": "/a", "PODPLANE_NODE_NAME": "n1", "PODPLANE_HOST_PATH_ALLOW": "/x,/y"}
    config = parse(["run", "--node-name", "n2"], environment)
    assert config.paths.state == Path("/a")
    assert config.paths.run == Path("/run/podplane")
    assert config.node_name == "n2"
    assert config.host_path_allow == (Path("/x"), Path("/y"))


@pytest.mark.parametrize(
    ("argv", "environment", "words"),
    [
        (["run", "--proxy-mode", "userspace"], {}, "userspace"),
        (["run"], {"PODPLANE_PROXY_MODE": "kernelspace"}, "kernelspace"),
        (["run", "--node-name", "Not_A_Name"], {}, "Not_A_Name"),
        (["run", "--node-ip", "300.1.1.1"], {}, "300.1.1.1"),
        (["run", "--cluster-dns", "10.96.0.10,10.96.0.x"], {}, "10.96.0.x"),
        (["run", "--allowed-unsafe-sysctls", "net.core.somaxconn,kernel.panic"], {}, "kernel.panic is not known"),
        (["run", "--host-path-allow", "/a/../b"], {}, "without .."),
        (["run", "--registries-conf", "/no/such"], {}, "not a file"),
        (["run", "--image-gc-high-threshold", "70"], {}, "must be below --image-gc-high-threshold"),
        (["run", "--image-gc-low-threshold", "101"], {}, "from 0 to 100"),
        (["run", "--runtime-request-timeout", "0"], {}, "more than 0"),
        (["run", "--max-parallel-image-pulls", "0"], {}, "from 1 to 1000"),
        (["run", "--image-pull-progress-deadline", "0s"], {}, "more than 0"),
    ],
)
def test_what_is_not_supported_is_refused_by_name(
    argv: list[str], environment: dict[str, str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        parse(argv, environment)
    assert words in capsys.readouterr().err


def test_a_file_has_what_neither_flags_nor_environment_say(tmp_path: Path) -> None:
    file = tmp_path / "agent.toml"
    file.write_text('node-name = "n1"\nstate_dir = "/a"\nhost-path-allow = ["/x", "/y"]\nmetrics-address = ":9446"\n')
    config = parse(["run", "--config", str(file)], {"PODPLANE_STATE_DIR": "/b"})
    assert (config.node_name, config.paths.state) == ("n1", Path("/b"))
    assert config.host_path_allow == (Path("/x"), Path("/y"))
    assert config.metrics == ("127.0.0.1", 9446)
    assert parse(["cleanup", "--config", str(file)], {}).paths.state == Path("/a")
