"""The files that name a pod to its containers: /etc/hosts, /etc/hostname and /etc/resolv.conf.

They stand in run/pods/<uid>/ and are mounted into every container. Texts are pure; `write` and `remove` are not.
Sources: Kubernetes' PodSpec.hostname, hostAliases, dnsPolicy, dnsConfig. There is no cluster DNS yet: ClusterFirst
takes the node's own resolv.conf, as the kubelet does where it is given none.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from nodeagent.paths import Paths, replace
from podplane.v1.pod_pb2 import Pod, PodDNSConfig

NAMES = ("hosts", "hostname", "resolv.conf")
_MAX_HOSTNAME = 63

_HOSTS = """\
# Podplane-managed hosts file.
127.0.0.1\tlocalhost
::1\tlocalhost ip6-localhost ip6-loopback
fe00::0\tip6-localnet
fe00::0\tip6-mcastprefix
fe00::1\tip6-allnodes
fe00::2\tip6-allrouters
"""


def directory(paths: Paths, uid: str) -> Path:
    """Where the files of a pod are."""
    return paths.run / "pods" / uid


def hostname(pod: Pod, node_name: str) -> str:
    """spec.hostname, or the pod's name, at most 63 characters; the node's own with hostNetwork."""
    if pod.spec.hostNetwork:
        return node_name
    return (pod.spec.hostname or pod.metadata.name)[:_MAX_HOSTNAME].rstrip("-.")


def hosts(pod: Pod, address: str, node_hosts: str) -> str:
    """/etc/hosts: the node's with hostNetwork, else localhost, the pod itself and its hostAliases."""
    text = node_hosts if pod.spec.hostNetwork else _HOSTS
    if address and not pod.spec.hostNetwork:
        text += f"{address}\t{hostname(pod, '')}\n"
    if pod.spec.hostAliases:
        text += "\n# Entries added by HostAliases.\n"
        text += "".join(f"{alias.ip}\t{chr(9).join(alias.hostnames)}\n" for alias in pod.spec.hostAliases)
    return text


def resolv(pod: Pod, node_resolv: str) -> str:
    """/etc/resolv.conf by dnsPolicy, with dnsConfig merged in: its entries after those that are there."""
    base = "" if pod.spec.dnsPolicy == "None" else node_resolv
    servers, searches, options = _parse(base)
    config: PodDNSConfig = pod.spec.dnsConfig
    servers = list(dict.fromkeys([*servers, *config.nameservers]))
    searches = list(dict.fromkeys([*searches, *config.searches]))
    for option in config.options:
        options.pop(option.name, None)
        options[option.name] = f"{option.name}:{option.value}" if option.HasField("value") else option.name
    lines = []
    if searches:
        lines.append(f"search {' '.join(searches)}")
    lines += [f"nameserver {server}" for server in servers]
    if options:
        lines.append(f"options {' '.join(options.values())}")
    return "".join(f"{line}\n" for line in lines)


def _parse(text: str) -> tuple[list[str], list[str], dict[str, str]]:
    servers: list[str] = []
    searches: list[str] = []
    options: dict[str, str] = {}
    for line in text.splitlines():
        words = line.split("#")[0].split()
        if not words:
            continue
        if words[0] == "nameserver" and len(words) > 1:
            servers.append(words[1])
        elif words[0] in ("search", "domain"):
            searches = words[1:]
        elif words[0] == "options":
            options.update({word.partition(":")[0]: word for word in words[1:]})
    return servers, searches, options


def write(paths: Paths, pod: Pod, address: str, node_name: str) -> None:
    """Write the three files. Raises OSError."""
    target = directory(paths, pod.metadata.uid)
    target.mkdir(parents=True, exist_ok=True, mode=0o755)
    texts = (
        hosts(pod, address, _read("/etc/hosts")),
        hostname(pod, node_name) + "\n",
        resolv(pod, _read("/etc/resolv.conf")),
    )
    for name, text in zip(NAMES, texts, strict=True):
        replace(target / name, text.encode(), 0o644)


def remove(paths: Paths, uid: str) -> None:
    """Remove them; nothing to do where there are none. Raises OSError."""
    if directory(paths, uid).exists():
        shutil.rmtree(directory(paths, uid))


def _read(path: str) -> str:
    try:
        return Path(path).read_text()
    except FileNotFoundError:
        return ""
