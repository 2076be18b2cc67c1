"""The files that name a pod to its containers: /etc/hosts, /etc/hostname and /etc/resolv.conf.

They stand in run/pods/<uid>/ and are mounted into every container. Texts are pure; `write` and `remove` are not.
Sources: Kubernetes' PodSpec.hostname, subdomain, setHostnameAsFQDN and hostAliases; resolvconf.py.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from nodeagent.paths import Paths
from nodeagent.pods.resolvconf import ClusterDns, parse, resolver
from podplane.files import replace
from podplane.v1.pod_pb2 import Pod

RESOLV_CONF = Path("/etc/resolv.conf")
FILES = ("hosts", "hostname", "resolv.conf")
_MAX_HOSTNAME = 63
_MAX_UTS = 64
"""Bytes of a kernel's hostname."""
_STUB, _BEHIND_STUB = ("127.0.0.53",), Path("/run/systemd/resolve/resolv.conf")
"""systemd-resolved's own server answers on the node only; the file names the ones that it asks."""

_HOSTS = """\
# Podplane-managed hosts file.
127.0.0.1\tlocalhost
::1\tlocalhost ip6-localhost ip6-loopback
fe00::0\tip6-localnet
fe00::0\tip6-mcastprefix
fe00::1\tip6-allnodes
fe00::2\tip6-allrouters
"""


class NameFailure(Exception):
    """The pod's name cannot be had, and why."""


@dataclass(frozen=True, slots=True)
class Naming:
    """What names of pods are made of on this node: its own hostname and the cluster's DNS."""

    hostname: str
    dns: ClusterDns = field(default_factory=ClusterDns)
    resolv_conf: Path = RESOLV_CONF
    """Names the node's own DNS servers."""


def directory(paths: Paths, uid: str) -> Path:
    """Where the files of a pod are."""
    return paths.run / "pods" / uid


def hostname(pod: Pod, naming: Naming) -> str:
    """What the kernel calls the pod: its short name, or all of it with setHostnameAsFQDN; the node's with hostNetwork.

    Raises NameFailure where that is longer than the kernel takes.
    """
    if pod.spec.hostNetwork:
        return naming.hostname
    short, full = _short(pod), _full(pod, naming.dns.domain)
    if not (pod.spec.setHostnameAsFQDN and full):
        return short
    if len(full) > _MAX_UTS:
        raise NameFailure(
            f"Failed to construct FQDN from pod hostname and cluster domain, FQDN {full} is too long "
            f"({_MAX_UTS} characters is the max, {len(full)} characters requested)"
        )
    return full


def _short(pod: Pod) -> str:
    return (pod.spec.hostname or pod.metadata.name)[:_MAX_HOSTNAME].rstrip("-.")


def _full(pod: Pod, domain: str) -> str:
    """<hostname>.<subdomain>.<namespace>.svc.<domain>; empty where the pod has no subdomain."""
    if not pod.spec.subdomain:
        return ""
    return f"{_short(pod)}.{pod.spec.subdomain}.{pod.metadata.namespace}.svc.{domain}"


def hosts(pod: Pod, address: str, naming: Naming, node_hosts: str) -> str:
    """/etc/hosts: the node's with hostNetwork, else localhost and the pod itself; then the pod's hostAliases."""
    text = f"# Podplane-managed hosts file (host network).\n{node_hosts}" if pod.spec.hostNetwork else _HOSTS
    if address and not pod.spec.hostNetwork:
        names = filter(None, (_full(pod, naming.dns.domain), _short(pod)))
        text += "\t".join((address, *names)) + "\n"
    if pod.spec.hostAliases:
        text += "\n# Entries added by HostAliases.\n"
        text += "".join("\t".join((alias.ip, *alias.hostnames)) + "\n" for alias in pod.spec.hostAliases)
    return text


def write(paths: Paths, pod: Pod, address: str, naming: Naming) -> Sequence[str]:
    """Write the three files; returns what had to be left out, a sentence each. Raises OSError, NameFailure."""
    target = directory(paths, pod.metadata.uid)
    target.mkdir(parents=True, exist_ok=True, mode=0o755)
    resolv = resolver(pod, _node_resolv(naming.resolv_conf), naming.dns)
    texts = (hosts(pod, address, naming, _read(Path("/etc/hosts"))), hostname(pod, naming) + "\n", resolv.text)
    for name, text in zip(FILES, texts, strict=True):
        replace(target / name, text.encode(), 0o644)
    return resolv.omitted


def remove(paths: Paths, uid: str) -> None:
    """Remove them; nothing to do where there are none. Raises OSError."""
    if directory(paths, uid).exists():
        shutil.rmtree(directory(paths, uid))


def _node_resolv(path: Path) -> str:
    text = _read(path)
    if tuple(parse(text).servers) == _STUB:
        return _read(_BEHIND_STUB) or text
    return text


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except FileNotFoundError:
        return ""
