"""The verbs beside apply and get, against a real control plane: what they print and what they leave."""

from __future__ import annotations

import base64
import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.podctl.conftest import Podctl

_DEPLOYMENT = """\
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, labels: {tier: front}}
spec:
  replicas: 1
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: a, image: "web:1", ports: [{containerPort: 8080}]}]}
"""


@pytest.fixture
def deployment(podctl: Podctl, tmp_path: Path) -> str:
    path = tmp_path / "web.yaml"
    path.write_text(_DEPLOYMENT)
    assert podctl("apply", "-f", str(path)).status == 0
    return str(path)


def show(podctl: Podctl, what: str, path: str) -> str:
    outcome = podctl("get", what, "-o", f"jsonpath={path}")
    assert outcome.status == 0, outcome.err
    return outcome.out


def test_create_deployment_and_services(podctl: Podctl) -> None:
    words = ("--image=registry.example:5000/shop/Web_1:2", "--replicas=2", "--port=80", "--", "serve", "--fast")
    assert podctl("create", "deployment", "shop", *words).out == "deployment.apps/shop created\n"
    shown = show(podctl, "deploy/shop", "{.spec.replicas} {..containers[0].name} {..command}")
    assert shown == '2 web-1 ["serve","--fast"]'
    assert podctl("create", "service", "clusterip", "shop", "--tcp=80:http").out == "service/shop created\n"
    assert show(podctl, "svc/shop", "{.spec.selector.app} {.spec.ports[0].name} {.spec.ports[0].targetPort}") == (
        "shop 80-http http"
    )
    made = podctl("create", "svc", "nodeport", "front", "--tcp=5678:8080", "--dry-run=client", "-o", "json")
    assert json.loads(made.out)["spec"]["type"] == "NodePort"
    assert podctl("create", "service", "clusterip", "none").err == (
        "error: at least one tcp port specifier must be provided\n"
    )


def test_create_secrets_of_every_type(podctl: Podctl, tmp_path: Path) -> None:
    login = ("--docker-username=me", "--docker-password=pw", "--docker-server=registry.example")
    assert podctl("create", "secret", "docker-registry", "pull", *login).status == 0
    config = json.loads(base64.b64decode(show(podctl, "secret/pull", "{.data['.dockerconfigjson']}")))
    assert config["auths"]["registry.example"]["auth"] == base64.b64encode(b"me:pw").decode()

    key, cert = tmp_path / "key.pem", tmp_path / "cert.pem"
    argv = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1",
            "-subj", "/CN=web", "-keyout", str(key), "-out", str(cert)]  # fmt: skip
    subprocess.run(argv, check=True, capture_output=True, timeout=30)
    assert podctl("create", "secret", "tls", "web", f"--cert={cert}", f"--key={key}").status == 0
    assert show(podctl, "secret/web", "{.type}") == "kubernetes.io/tls"
    wrong = podctl("create", "secret", "tls", "wrong", f"--cert={cert}", f"--key={cert}")
    assert wrong.status == 1
    assert "are no certificate with its key" in wrong.err


def test_create_from_an_env_file(podctl: Podctl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FROM_HERE", "mine")
    source = tmp_path / "env"
    source.write_text('# comment\n\nA=1\nB="quoted"\nFROM_HERE\nNOT_SET_ANYWHERE\n')
    assert podctl("create", "cm", "env", f"--from-env-file={source}").status == 0
    assert json.loads(show(podctl, "cm/env", "{.data}")) == {"A": "1", "B": '"quoted"', "FROM_HERE": "mine"}
    assert podctl("create", "deployment", "x", "--image=a", "--from-literal=a=b").err.startswith(
        "error: --from-literal is not for this type"
    )


def test_set_changes_images_variables_and_resources(podctl: Podctl, deployment: str) -> None:
    assert podctl("set", "image", "deploy/web", "a=web:2").out == "deployment.apps/web image updated\n"
    assert podctl("set", "image", "deploy/web", "*=web:2").out == ""
    assert podctl("set", "image", "deploy/web", "b=web:2").err == 'error: unable to find container named "b"\n'
    assert podctl("set", "env", "deploy/web", "A=1", "B=2").out == "deployment.apps/web env updated\n"
    assert podctl("set", "env", "deploy/web", "A-", "B=3").status == 0
    assert podctl("set", "env", "deploy/web", "--list").out == "# deployment.apps/web, container a\nB=3\n"
    limits = podctl("set", "resources", "deploy/web", "--limits=cpu=500m,memory=64Mi")
    assert limits.out == "deployment.apps/web resource requirements updated\n"
    assert show(podctl, "deploy/web", "{..image} {..limits.cpu}") == "web:2 500m"


def test_expose_makes_a_service_that_selects_the_pods(podctl: Podctl, deployment: str) -> None:
    assert podctl("expose", "deploy", "web", "--name=front", "--target-port=http").out == "service/front exposed\n"
    wanted = "{.spec.selector.app} {.spec.ports[0].port} {.spec.ports[0].targetPort} {.metadata.labels.tier}"
    assert show(podctl, "svc/front", wanted) == "web 8080 http front"


def test_a_server_dry_run_checks_defaults_and_stores_nothing(podctl: Podctl, deployment: str, tmp_path: Path) -> None:
    same = podctl("apply", "-f", deployment, "--dry-run=server")
    assert same.out == "deployment.apps/web unchanged (server dry run)\n"
    changed = tmp_path / "changed.yaml"
    changed.write_text(_DEPLOYMENT.replace("replicas: 1", "replicas: 4"))
    assert podctl("apply", "-f", str(changed), "--dry-run=server").out == (
        "deployment.apps/web configured (server dry run)\n"
    )
    assert show(podctl, "deploy/web", "{.spec.replicas}") == "1"
    made = json.loads(podctl("run", "new", "--image=web:1", "--dry-run=server", "-o", "json").out)
    assert made["metadata"]["uid"]
    assert made["spec"]["containers"][0]["terminationMessagePath"] == "/dev/termination-log"
    assert podctl("get", "pod", "new").status == 1
    changed.write_text(_DEPLOYMENT.replace("replicas: 1", "replicas: -1"))
    refused = podctl("apply", "-f", str(changed), "--dry-run=server")
    assert refused.status == 1
    assert "spec.replicas" in refused.err


def test_diff_shows_what_an_apply_would_change(podctl: Podctl, deployment: str, tmp_path: Path) -> None:
    assert podctl("diff", "-f", deployment).status == 0
    changed = tmp_path / "changed.yaml"
    changed.write_text(_DEPLOYMENT.replace("web:1", "web:2"))
    outcome = podctl("diff", "-f", str(changed))
    assert outcome.status == 1
    assert "-      - image: web:1\n+      - image: web:2\n" in outcome.out
    changed.write_text("apiVersion: v1\nkind: Secret\nmetadata: {name: s}\nstringData: {word: hidden}\n")
    secret = podctl("diff", "-f", str(changed))
    assert (secret.status, "hidden" in secret.out, "aGlkZGVu" in secret.out) == (1, False, False)
    assert "+  word: '***'\n" in secret.out
    assert podctl("diff", "-f", str(tmp_path / "none.yaml")).status > 0


def test_replace_force_makes_the_object_anew(podctl: Podctl, deployment: str, tmp_path: Path) -> None:
    before = show(podctl, "deploy/web", "{.metadata.uid}")
    selector = tmp_path / "other.yaml"
    selector.write_text(_DEPLOYMENT.replace("app: web", "app: other"))
    assert podctl("replace", "-f", str(selector)).status == 1
    assert podctl("replace", "--force", "-f", str(selector)).out == (
        'deployment.apps "web" deleted\ndeployment.apps/web replaced\n'
    )
    assert show(podctl, "deploy/web", "{.metadata.uid}") != before


def test_custom_columns_and_files_of_templates(podctl: Podctl, deployment: str, tmp_path: Path) -> None:
    columns = "custom-columns=NAME:.metadata.name,IMAGES:.spec.template.spec.containers[*].image,NONE:.spec.x"
    assert podctl("get", "deploy", "-o", columns).out == "NAME   IMAGES   NONE\nweb    web:1    <none>\n"
    assert podctl("get", "deploy/web", "-o", columns, "--no-headers").out == "web   web:1   <none>\n"
    template = tmp_path / "template"
    template.write_text("{.metadata.name}")
    assert podctl("get", "deploy/web", "-o", f"jsonpath-file={template}").out == "web"
    assert "expected <header>:<json-path-expr>" in podctl("get", "deploy", "-o", "custom-columns=NAME").err


def test_history_shows_the_template_of_one_revision(podctl: Podctl, deployment: str) -> None:
    podctl("wait", "--for=jsonpath={.metadata.annotations.deployment\\.kubernetes\\.io/revision}=1", "deploy/web")
    shown = podctl("rollout", "history", "deploy/web", "--revision=1").out
    assert shown.startswith("deployment.apps/web with revision #1\nPod Template:\n")
    assert "web:1" in shown
    assert podctl("rollout", "history", "deploy/web", "--revision=7").status == 1


def test_patch_of_the_status_leaves_the_spec(podctl: Podctl, deployment: str) -> None:
    patch = '{"status": {"observedGeneration": 77}, "spec": {"replicas": 9}}'
    assert podctl("patch", "deploy/web", "--subresource=status", "--type=merge", "-p", patch).status == 0
    assert show(podctl, "deploy/web", "{.spec.replicas}") == "1"


def test_scale_with_an_old_revision_is_refused(podctl: Podctl, deployment: str) -> None:
    refused = podctl("scale", "deploy/web", "--replicas=2", "--resource-version=1")
    assert (refused.status, "Conflict" in refused.err) == (1, True)


def test_edit_sends_what_the_editor_left(
    podctl: Podctl, deployment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    editor = tmp_path / "editor"
    editor.write_text('#!/bin/sh\nsed -i "s/tier: front/tier: back/" "$1"\n')
    editor.chmod(0o755)
    monkeypatch.setenv("EDITOR", str(editor))
    monkeypatch.delenv("KUBE_EDITOR", raising=False)
    assert podctl("edit", "deploy/web").out == "deployment.apps/web edited\n"
    assert show(podctl, "deploy/web", "{.metadata.labels.tier}") == "back"
    assert podctl("edit", "deploy/web").err == "Edit cancelled, no changes made.\n"
    editor.write_text('#!/bin/sh\nsed -i "s/replicas: .*/replicas: many/" "$1"\n')
    refused = podctl("edit", "deploy/web")
    assert refused.status == 1
    assert "Edit cancelled, no valid changes were saved" in refused.err


def test_what_is_not_supported_is_refused_by_name(podctl: Podctl, deployment: str) -> None:
    assert "--server-side" in podctl("apply", "-f", deployment, "--server-side").err
    assert "--prune" in podctl("apply", "-f", deployment, "--prune").err
    assert "allowed formats are" in podctl("get", "pods", "-o", "go-template={{.x}}").err


def test_completion_is_a_script_that_bash_reads_and_that_knows_verbs_and_flags(alone: Podctl) -> None:
    script = alone("completion", "bash").out
    ask = f"{script}\nCOMP_WORDS=(podctl get --sho); COMP_CWORD=2; _podctl; echo ${{COMPREPLY[@]}}\n"
    ask += "COMP_WORDS=(podctl unc); COMP_CWORD=1; _podctl; echo ${COMPREPLY[@]}\n"
    done = subprocess.run(["bash", "-eu", "-c", ask], capture_output=True, text=True, timeout=30, env=dict(os.environ))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == ["--show-kind --show-labels", "uncordon"]
    assert alone("completion", "fish").status == 1
