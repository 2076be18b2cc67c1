"""podctl against a real control plane: what it prints, where, and with which exit status."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.podctl.conftest import ControlPlane, Podctl
from tests.support.waiting import eventually

_POD = """\
apiVersion: v1
kind: Pod
metadata: {{name: {name}, labels: {{app: web}}}}
spec: {{containers: [{{name: a, image: host}}]}}
"""
_DEPLOYMENT = """\
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: shop}}
  template:
    metadata: {labels: {app: shop}}
    spec: {containers: [{name: a, image: "web:1"}]}
"""


def _file(directory: Path, text: str, name: str = "m.yaml") -> str:
    path = directory / name
    path.parent.mkdir(exist_ok=True, parents=True)
    path.write_text(text)
    return str(path)


def _pod(podctl: Podctl, directory: Path, name: str = "web") -> None:
    outcome = podctl("apply", "-f", _file(directory, _POD.format(name=name)))
    assert (outcome.status, outcome.out) == (0, f"pod/{name} created\n"), outcome.err


def test_apply_says_created_unchanged_and_configured(podctl: Podctl, tmp_path: Path) -> None:
    path = _file(tmp_path, _DEPLOYMENT)
    assert podctl("apply", "-f", path).out == "deployment.apps/web created\n"
    assert podctl("apply", "-f", path).out == "deployment.apps/web unchanged\n"
    changed = _file(tmp_path, _DEPLOYMENT.replace("replicas: 2", "replicas: 3"))
    assert podctl("apply", "-f", changed).out == "deployment.apps/web configured\n"


def test_failing_document_does_not_stop_the_others(podctl: Podctl, tmp_path: Path) -> None:
    wrong_field = _POD.format(name="wrong").replace("image:", "imag:")
    no_such_namespace = _POD.format(name="lost").replace("name: lost", "name: lost, namespace: nowhere")
    path = _file(
        tmp_path, "---\n".join([wrong_field, _POD.format(name="one"), no_such_namespace, _POD.format(name="two")])
    )
    outcome = podctl("apply", "-f", path)
    assert outcome.status == 1
    assert outcome.out == "pod/one created\npod/two created\n"
    first, second = outcome.err.splitlines()
    assert first.startswith(f"error: {path}: document 1, line 4: spec.containers[0].imag: unknown field")
    assert second.startswith(f'Error from server (NotFound): error when applying "{path}" (document 3, line 11): ')


def test_directories_are_read_in_order_and_deeper_with_r(podctl: Podctl, tmp_path: Path) -> None:
    _file(tmp_path / "all", _POD.format(name="b"), "b.yml")
    _file(tmp_path / "all", _POD.format(name="a"), "a.yaml")
    _file(tmp_path / "all", "not a manifest", "README.md")
    _file(tmp_path / "all" / "deep", _POD.format(name="c"), "c.json.yaml")
    assert podctl("apply", "-f", str(tmp_path / "all")).out == "pod/a created\npod/b created\n"
    assert podctl("create", "-R", "-f", str(tmp_path / "all" / "deep")).out == "pod/c created\n"


def test_get_prints_tables_names_and_documents(podctl: Podctl, tmp_path: Path) -> None:
    _pod(podctl, tmp_path)
    assert podctl("get", "pods").out.splitlines()[0] == "NAME   READY   STATUS    RESTARTS   AGE"
    assert podctl("get", "po", "--no-headers").out.split()[:4] == ["web", "0/1", "Pending", "0"]
    assert podctl("get", "pods", "-o", "name").out == "pod/web\n"
    assert podctl("get", "pod/web", "-o", "jsonpath={.metadata.name}").out == "web"
    document = json.loads(podctl("get", "pod", "web", "-o", "json").out)
    assert (document["kind"], document["metadata"]["namespace"]) == ("Pod", podctl.namespace)
    listed = json.loads(podctl("get", "pods", "-o", "json", "-l", "app=web").out)
    assert (listed["kind"], [item["metadata"]["name"] for item in listed["items"]]) == ("List", ["web"])
    assert podctl("get", "pods", "-l", "app!=web").err == f"No resources found in {podctl.namespace} namespace.\n"


def test_all_shows_each_kind_with_its_name(podctl: Podctl, tmp_path: Path) -> None:
    podctl("apply", "-f", _file(tmp_path, _DEPLOYMENT))
    podctl("wait", "--for=jsonpath={.status.replicas}=2", "deployment/web")
    blocks = podctl("get", "all").out.split("\n\n")
    assert [block.splitlines()[1].split("/")[0] for block in blocks] == ["pod", "deployment.apps", "replicaset.apps"]


def test_missing_name_is_reported_and_the_others_are_shown(podctl: Podctl, tmp_path: Path) -> None:
    _pod(podctl, tmp_path)
    outcome = podctl("get", "pods", "nope", "web", "--no-headers")
    assert outcome.status == 1
    assert outcome.err == 'Error from server (NotFound): pods "nope" not found\n'
    assert outcome.out.startswith("web ")
    assert podctl("get", "pod", "nope", "--ignore-not-found").status == 0


def test_delete_waits_until_the_object_is_gone(podctl: Podctl, tmp_path: Path) -> None:
    _pod(podctl, tmp_path)
    assert podctl("delete", "pod/web").out == 'pod "web" deleted\n'
    assert podctl("get", "pod", "web").status == 1
    assert podctl("delete", "pod", "web").err == 'Error from server (NotFound): pods "web" not found\n'
    assert podctl("delete", "pod", "web", "--ignore-not-found").status == 0


def test_delete_of_what_stays_times_out(podctl: Podctl, tmp_path: Path) -> None:
    held = _POD.format(name="held").replace("name: held", 'name: held, finalizers: ["example.com/hold"]')
    podctl("apply", "-f", _file(tmp_path, held))
    outcome = podctl("delete", "pod", "held", "--timeout=300ms")
    assert (outcome.status, outcome.err) == (1, "error: timed out waiting for the condition on pods/held\n")
    assert podctl("delete", "pod", "held", "--wait=false").status == 0


def test_delete_by_selector_and_all(podctl: Podctl, tmp_path: Path) -> None:
    for name in ("a", "b"):
        _pod(podctl, tmp_path, name)
    assert podctl("delete", "pods").status == 1
    assert podctl("delete", "pods", "-l", "app=web").out == 'pod "a" deleted\npod "b" deleted\n'
    assert podctl("delete", "pods", "--all").status == 0


def test_wait_for_jsonpath_condition_and_deletion(podctl: Podctl, tmp_path: Path) -> None:
    _pod(podctl, tmp_path)
    assert podctl("wait", "--for=jsonpath={.status.phase}=Pending", "pod/web").out == "pod/web condition met\n"
    assert podctl("wait", "--for=condition=PodScheduled=false", "pod/web", "--timeout=5s").status == 0
    late = podctl("wait", "--for=condition=Ready", "pod/web", "--timeout=200ms")
    assert (late.status, late.err) == (1, "error: timed out waiting for the condition on pods/web\n")
    assert podctl("wait", "--for=delete", "pod/none").status == 0
    assert (
        podctl("wait", "--for=condition=Ready", "pods", "-l", "no=pods").err == "error: no matching resources found\n"
    )


def test_scale_and_rollout_history_restart_undo(podctl: Podctl, tmp_path: Path) -> None:
    podctl("apply", "-f", _file(tmp_path, _DEPLOYMENT))
    assert podctl("scale", "deploy/web", "--replicas=1").out == "deployment.apps/web scaled\n"
    assert podctl("scale", "deploy", "web", "--current-replicas=5", "--replicas=2").status == 1
    podctl("wait", "--for=jsonpath={.metadata.annotations.deployment\\.kubernetes\\.io/revision}=1", "deploy/web")
    assert podctl("rollout", "restart", "deployment/web").out == "deployment.apps/web restarted\n"
    podctl("wait", "--for=jsonpath={.metadata.annotations.deployment\\.kubernetes\\.io/revision}=2", "deploy/web")
    assert [line.split()[0] for line in podctl("rollout", "history", "deploy/web").out.split("\n")[2:4]] == ["1", "2"]
    assert podctl("rollout", "undo", "deploy/web").out == "deployment.apps/web rolled back\n"
    late = podctl("rollout", "status", "deploy/web", "--timeout=200ms")
    assert late.err == "error: timed out waiting for the condition\n"
    assert 'Waiting for deployment "web"' in late.out


def test_labels_need_overwrite(podctl: Podctl, tmp_path: Path) -> None:
    _pod(podctl, tmp_path)
    assert podctl("label", "pod", "web", "tier=front").out == "pod/web labeled\n"
    refused = podctl("label", "pod", "web", "tier=back")
    assert refused.err == "error: 'tier' already has a value (front), and --overwrite is false\n"
    assert podctl("label", "pod", "web", "tier=back", "--overwrite").status == 0
    assert podctl("label", "pod", "web", "tier-").out == "pod/web unlabeled\n"
    assert podctl("annotate", "pod/web", "note=hello").out == "pod/web annotated\n"


def test_create_makes_config_maps_and_secrets(podctl: Podctl, tmp_path: Path) -> None:
    source = _file(tmp_path, "hello\n", "greeting.txt")
    made = podctl("create", "configmap", "settings", "--from-literal=a=b=c", f"--from-file={source}")
    assert made.out == "configmap/settings created\n"
    assert podctl("get", "cm", "settings", "-o", "jsonpath={.data.a} {.data['greeting.txt']}").out == "b=c hello\n"
    podctl("create", "secret", "generic", "password", f"--from-file=word={source}")
    described = podctl("describe", "secret", "password").out
    assert "word:  6 bytes" in described
    assert "hello" not in described
    dry = podctl("create", "cm", "dry", "--from-literal=a=b", "--dry-run=client", "-o", "yaml").out
    assert dry.startswith("apiVersion: v1\n")
    assert podctl("get", "cm", "dry").status == 1


def test_describe_events_and_timeline_tell_what_happened(podctl: Podctl, tmp_path: Path) -> None:
    _pod(podctl, tmp_path)
    podctl("wait", "--for=condition=PodScheduled=false", "pod/web")
    eventually(lambda: "FailedScheduling" in podctl("events", "--for", "pod/web").out, what="the scheduler's event")
    for verb in (("describe", "pod", "we"), ("events", "--for", "pod/web"), ("timeline", "web")):
        outcome = podctl(*verb)
        assert outcome.status == 0, outcome.err
        assert "FailedScheduling" in outcome.out, verb


def test_logs_of_a_pod_without_a_node_are_refused_in_the_servers_words(podctl: Podctl, tmp_path: Path) -> None:
    _pod(podctl, tmp_path)
    outcome = podctl("logs", "web")
    assert outcome.status == 1
    assert outcome.err.startswith("Error from server (BadRequest): pod web does not have a host assigned")


def test_viewer_may_read_but_not_write(podctl: Podctl, plane: ControlPlane, tmp_path: Path) -> None:
    flags = ("--token-file", _file(tmp_path, plane.token("view"), "token"))
    assert podctl("get", "pods", *flags).status == 0
    assert podctl("auth", "can-i", "list", "pods", *flags).out == "yes\n"
    refused = podctl("auth", "can-i", "create", "pods", *flags)
    assert (refused.status, refused.out[:2]) == (1, "no")
    outcome = podctl("apply", "-f", _file(tmp_path, _POD.format(name="web")), *flags)
    assert outcome.err.startswith("Error from server (Forbidden): ")
    assert podctl("auth", "whoami", *flags).out.splitlines()[1].split() == ["Username", "somebody"]


def test_wrong_token_is_unauthorized(podctl: Podctl, tmp_path: Path) -> None:
    outcome = podctl("get", "pods", "--token-file", _file(tmp_path, "wrong", "token"))
    assert outcome.status == 1
    assert outcome.err.startswith("error: You must be logged in to the server (Unauthorized)")


def _start(environment: dict[str, str], *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "podctl", *arguments]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_watch_resumes_when_the_control_plane_comes_back(
    podctl: Podctl, plane: ControlPlane, environment: dict[str, str], tmp_path: Path
) -> None:
    _pod(podctl, tmp_path, "before")
    with _start(environment, "get", "pods", "-w", "--output-watch-events", "-o", "name") as watch:
        assert watch.stdout is not None
        assert watch.stdout.readline() == "pod/before\n"
        plane.stop()
        plane.start()
        _pod(podctl, tmp_path, "after")
        while (line := watch.stdout.readline()) == "pod/before\n":
            pass  # its scheduling condition may be written in between
        assert line == "pod/after\n"
        watch.send_signal(signal.SIGINT)
        _, errors = watch.communicate(timeout=10)
        assert watch.returncode == 130
        assert "Traceback" not in errors


def test_closed_pipe_ends_podctl_silently(podctl: Podctl, environment: dict[str, str], tmp_path: Path) -> None:
    _pod(podctl, tmp_path)
    with _start(environment, "get", "pods", "-w") as watch:
        assert watch.stdout is not None
        assert watch.stderr is not None
        watch.stdout.readline()
        watch.stdout.close()
        assert podctl("label", "pod", "web", "changed=yes").status == 0
        assert watch.wait(10) == 141
        assert watch.stderr.read() == ""


async def slow_line(port: int, seconds: float) -> asyncio.Server:
    """Leads to a port of this machine; whatever passes it, in either direction, takes that long."""

    async def pass_on(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        try:
            while data := await source.read(1 << 16):
                await asyncio.sleep(seconds)
                sink.write(data)
        finally:
            sink.close()

    async def connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(pass_on(reader, back), pass_on(there, writer))

    return await asyncio.start_server(connect, "127.0.0.1", 0)


async def test_a_far_server_is_reached(podctl: Podctl, plane: ControlPlane) -> None:
    async with await slow_line(plane.port, 0.15) as line:
        server = "{}:{}".format(*line.sockets[0].getsockname())
        found = await asyncio.to_thread(podctl, "get", "namespaces", "--server", server)
    assert (found.status, found.err) == (0, "")


@pytest.mark.parametrize("verb", ["get", "apply"])
def test_unreachable_server_says_what_to_do(alone: Podctl, verb: str, tmp_path: Path) -> None:
    what = ("pods",) if verb == "get" else ("-f", _file(tmp_path, _POD.format(name="web")))
    outcome = alone(verb, *what, "--server", "127.0.0.1:1", "--certificate-authority", os.devnull)
    assert outcome.status == 1
    assert outcome.err.startswith("Unable to connect to the server: 127.0.0.1:1: ")
    assert "is it running? (make up / systemctl start podplane-controlplane)" in outcome.err


def test_patch_and_replace_change_objects(podctl: Podctl, tmp_path: Path) -> None:
    path = _file(tmp_path, _DEPLOYMENT)
    podctl("apply", "-f", path)
    image = '{"spec":{"template":{"spec":{"containers":[{"name":"a","image":"web:2"}]}}}}'
    assert podctl("patch", "deploy", "web", "-p", image).out == "deployment.apps/web patched\n"
    assert podctl("patch", "deploy", "web", "-p", image).out == "deployment.apps/web patched (no change)\n"
    operation = '[{"op": "replace", "path": "/spec/replicas", "value": 1}]'
    assert podctl("patch", "deploy/web", "--type=json", "-p", operation).status == 0
    shown = podctl("get", "deploy", "web", "-o", "jsonpath={.spec.replicas} {..containers[0].image}").out
    assert shown == "1 web:2"
    assert podctl("replace", "-f", path).out == "deployment.apps/web replaced\n"
    shown = podctl("get", "deploy", "web", "-o", "jsonpath={.spec.replicas} {..containers[0].image}").out
    assert shown == "2 web:1"
    assert "unknown field" in podctl("patch", "deploy", "web", "-p", '{"spec":{"replica":3}}').err
