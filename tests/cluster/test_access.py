"""Who may do what, by the real programs: people by token, nodes by certificate, and a join that is not deceived."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import grpc
import pytest

from devcluster.cluster import Cluster
from podplane.kinds import POD, SECRET
from podplane.v1 import config_pb2, requests_pb2
from tests.cluster.conftest import client
from tests.support.api import Api
from tests.support.objects import pod

BIN = Path(sys.executable).parent
NODES_PORT = 7444


def refusal(call: Callable[[], Any]) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    error = cast("grpc.Call", caught.value)
    return error.code(), error.details() or ""


def token(cluster: Cluster, directory: Path, *options: str) -> Path:
    argv: list[str | Path] = [
        BIN / "podplane-controlplane",
        "token",
        "--state-dir",
        cluster.root / "controlplane",
        *options,
    ]
    path = directory / "token"
    path.write_bytes(subprocess.run(argv, check=True, capture_output=True, timeout=30).stdout)
    return path


def test_no_credentials_are_unauthenticated(cluster: Cluster) -> None:
    with Api(cluster.server, cluster.certificate_authority, None) as nobody:
        code, words = refusal(lambda: nobody.list(POD, "default"))
    assert code is grpc.StatusCode.UNAUTHENTICATED
    assert "token" in words


def test_a_viewer_who_creates_is_told_subject_verb_and_resource(cluster: Cluster, tmp_path: Path) -> None:
    with client(cluster, token(cluster, tmp_path, "--user", "bob", "--role", "view", "--ttl", "5m")) as viewer:
        assert isinstance(viewer.list(POD, "default"), list)
        code, words = refusal(lambda: viewer.create(pod("not-mine")))
    assert code is grpc.StatusCode.PERMISSION_DENIED
    assert 'User "bob" cannot create resource "pods"' in words


def test_a_node_reads_only_the_secrets_that_its_own_pods_use(cluster: Cluster, api: Api) -> None:
    """The same words whether the other secret exists or not: a node cannot find out."""
    for name in ("used", "unused"):
        secret = config_pb2.Secret(apiVersion="v1", kind="Secret", stringData={"key": name})
        secret.metadata.name, secret.metadata.namespace = name, "default"
        api.create(secret)
    mine = pod("reader", nodeSelector={"kubernetes.io/hostname": "node-1"})
    source = mine.spec.containers[0].env.add(name="KEY").valueFrom.secretKeyRef
    source.name, source.key = "used", "key"
    api.create(mine)
    try:
        api.running("reader")
        with node_channel(cluster, "node-1") as channel:
            read: Callable[..., Any] = channel.unary_unary(
                "/podplane.v1.Secrets/Get",
                request_serializer=lambda message: message.SerializeToString(),
                response_deserializer=config_pb2.Secret.FromString,
            )

            def get(name: str) -> config_pb2.Secret:
                answer: config_pb2.Secret = read(requests_pb2.GetRequest(namespace="default", name=name), timeout=10)
                return answer

            assert dict(get("used").data) == {"key": b"used"}
            unused, missing = refusal(lambda: get("unused")), refusal(lambda: get("missing"))
        assert unused[0] is missing[0] is grpc.StatusCode.PERMISSION_DENIED
        assert unused[1].replace("unused", "NAME") == missing[1].replace("missing", "NAME")
    finally:
        api.delete(POD, "reader", grace=0)
        api.gone(POD, "reader")
        for name in ("used", "unused"):
            api.delete(SECRET, name)


def node_channel(cluster: Cluster, node: str) -> grpc.Channel:
    """A channel with a node's own certificate, as its agent has."""
    pki = cluster.root / node / "pki"
    credentials = grpc.ssl_channel_credentials(
        (pki / "ca.pem").read_bytes(), (pki / "key.pem").read_bytes(), (pki / "cert.pem").read_bytes()
    )
    return grpc.secure_channel(f"{cluster.address}:{NODES_PORT}", credentials)


def test_a_wrong_authority_hash_stops_a_join(cluster: Cluster) -> None:
    # Below the cluster's directory: /tmp is the node's own.
    place = cluster.root / "deceived"
    place.mkdir()
    path = token(cluster, place, "--bootstrap", "--ttl", "5m")
    _, rest = path.read_text().split(".", 1)
    path.write_text("0" * 64 + "." + rest)
    argv: list[str | Path] = [
        BIN / "podplane-nodeagent", "run", "--join", cluster.server, "--token-file", path, "--node-name", "deceived",
        "--state-dir", place / "state", "--run-dir", place / "run",
    ]  # fmt: skip
    done = subprocess.run(
        cluster.inside("node-1", argv),
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "cannot trust the server: no certificate that it shows has the hash in the token" in done.stderr
    assert not (place / "state" / "pki" / "cert.pem").exists()
