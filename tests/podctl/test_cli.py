"""The command line itself: verbs, flags, errors of usage, and what is imported for them."""

from __future__ import annotations

import subprocess
import sys

import pytest

from podctl.cli import known_verbs
from podctl.failure import UsageFailure
from podctl.flags import Parser, add_global_flags
from tests.podctl.conftest import Podctl


def _parser() -> Parser:
    parser = Parser("try", "", "", "")
    parser.add_argument("what", nargs="*")
    parser.switch("-w", "--watch", help="")
    parser.switch("--wait", default=True, help="")
    add_global_flags(parser)
    return parser


@pytest.mark.parametrize("verb", known_verbs())
def test_help_of_every_verb_has_examples(alone: Podctl, verb: str) -> None:
    outcome = alone(verb, "--help")
    assert outcome.status == 0
    assert f"\nexamples:\n  podctl {verb}" in outcome.out


def test_flags_and_arguments_mix_in_any_order() -> None:
    args = _parser().read(["pods", "-n", "shop", "web", "-w", "db", "--wait=false", "--server=host:1"])
    assert args.what == ["pods", "web", "db"]
    assert (args.namespace, args.watch, args.wait, args.server) == ("shop", True, False, "host:1")


@pytest.mark.parametrize(("word", "expected"), [("--watch", True), ("--watch=true", True), ("--watch=false", False)])
def test_switch_takes_a_value_after_an_equals_sign(word: str, expected: bool) -> None:
    assert _parser().read([word]).watch is expected


@pytest.mark.parametrize("words", [["--watch=maybe"], ["--nothing"], ["--wat"], ["--server"]])
def test_wrong_flag_is_a_usage_failure(words: list[str]) -> None:
    with pytest.raises(UsageFailure, match="See 'podctl try --help' for usage"):
        _parser().read(words)


def test_unknown_verb_names_near_ones_and_all(alone: Podctl) -> None:
    outcome = alone("descrbe", "pod", "web")
    assert outcome.status == 1
    assert outcome.err.startswith('error: unknown command "descrbe" for "podctl"\n\nDid you mean this?\n\tdescribe\n')
    assert all(verb in outcome.err for verb in known_verbs())


def test_global_flags_may_stand_before_the_verb(alone: Podctl) -> None:
    outcome = alone("-n", "shop", "--server", "127.0.0.1:1", "version", "--client")
    assert (outcome.status, outcome.out) == (0, "Client Version: v0.1.0\n")


def test_no_config_file_says_what_to_do(alone: Podctl) -> None:
    outcome = alone("get", "pods")
    assert outcome.status == 1
    assert outcome.err.startswith("error: cannot read the config file")


def test_explain_needs_no_server_and_knows_older_names(alone: Podctl) -> None:
    assert alone("explain", "crashloopbackoff").out.startswith("STATUS:   CrashLoopBackOff\n")
    assert "ContainerRuntimeNotReady" in alone("explain", "DockerDaemonNotReady").out
    unknown = alone("explain", "CrashLoopBackOf")
    assert unknown.status == 1
    assert "did you mean CrashLoopBackOff" in unknown.err
    assert len(alone("explain").out.splitlines()) > 30


@pytest.mark.parametrize("arguments", [["version", "--client"], ["explain", "Pending"], ["--help"], ["get", "--help"]])
def test_paths_without_a_server_import_neither_grpc_nor_yaml(arguments: list[str]) -> None:
    code = (
        "import sys\nfrom podctl.__main__ import main\n"
        f"sys.argv = ['podctl', *{arguments!r}]\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "print([name for name in ('grpc', 'yaml', 'pyroute2', 'cryptography') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_output_format_that_does_not_exist_lists_those_that_do(alone: Podctl) -> None:
    outcome = alone("get", "pods", "-o", "fancy")
    assert outcome.status == 1
    assert "allowed formats are: wide,name,json,yaml" in outcome.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["delete", "pod", "web", "--force", "--grace-period=5"], "--force and --grace-period greater than 0"),
        (["delete", "pod", "web", "--now", "--grace-period=5"], "--now and --grace-period"),
        (["get", "pod", "web", "-A"], "cannot be retrieved by name across all namespaces"),
        (["get", "pods", "web", "-l", "a=b"], "name cannot be provided when a selector is specified"),
        (["get", "pods,svc", "-w"], "single resource type"),
        (["get", "pods", "svc/web"], "resource/name form"),
        (["get", "gadgets"], 'doesn\'t have a resource type "gadgets"'),
        (["wait", "pod/web"], "--for is required"),
        (["wait", "pod/web", "--for=sunshine"], "unrecognized condition"),
        (["rollout", "status", "pod/web"], "only deployments have"),
        (["logs"], "expected 'logs"),
        (["logs", "web", "-c", "a", "--all-containers"], "--all-containers=true should not be specified"),
        (["label", "pod", "web"], "at least one change is required"),
        (["taint", "nodes", "one", "a=b:Never"], "invalid taint spec"),
        (["create", "secret", "tls", "x"], "key and cert must be specified"),
        (["apply", "-f", "/nowhere.yaml"], 'the path "/nowhere.yaml" does not exist'),
        (["apply"], "must specify one of -f"),
    ],
)
def test_contradiction_is_refused_before_anything_is_sent(alone: Podctl, arguments: list[str], message: str) -> None:
    outcome = alone(*arguments, "--server", "127.0.0.1:1", "--certificate-authority", "/dev/null")
    assert outcome.status == 1
    assert message in outcome.err
    assert "Unable to connect" not in outcome.err
