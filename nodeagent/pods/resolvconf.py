"""/etc/resolv.conf of a pod: dnsPolicy and dnsConfig over what the node and the cluster have. Pure.

Kubernetes' rules and limits ("DNS for Services and Pods"). Never fails: what is beyond a limit of the resolver is left
out, and `Resolver.omitted` says so. Without a cluster DNS server ClusterFirst falls back to Default, as the kubelet's.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from podplane.v1.pod_pb2 import Pod

_SERVERS = 3
_SEARCHES = 32
_SEARCH_LINE = 2048
"""What resolvers take (glibc 2.26); Kubernetes validates dnsConfig against the same."""


@dataclass(frozen=True, slots=True)
class ClusterDns:
    """The cluster's DNS: the addresses that pods ask, none where there is no server, and the domain of services."""

    servers: tuple[str, ...] = ()
    domain: str = "cluster.local"


@dataclass(slots=True)
class Resolver:
    """What a resolv.conf says. `options`: by name, as written."""

    servers: list[str] = field(default_factory=list)
    searches: list[str] = field(default_factory=list)
    options: dict[str, str] = field(default_factory=dict)
    omitted: list[str] = field(default_factory=list)
    """A sentence for each limit that made us leave something out."""

    @property
    def text(self) -> str:
        """The file."""
        lines = [f"search {' '.join(self.searches)}"] if self.searches else []
        lines += [f"nameserver {server}" for server in self.servers]
        lines += [f"options {' '.join(self.options.values())}"] if self.options else []
        return "".join(f"{line}\n" for line in lines)


def resolver(pod: Pod, node: str, cluster: ClusterDns) -> Resolver:
    """The pod's resolv.conf; `node` is the text of the node's own."""
    made = _base(pod, parse(node), cluster)
    config = pod.spec.dnsConfig
    made.servers = list(dict.fromkeys([*made.servers, *config.nameservers]))
    made.searches = list(dict.fromkeys([*made.searches, *config.searches]))
    for option in config.options:
        made.options.pop(option.name, None)
        made.options[option.name] = f"{option.name}:{option.value}" if option.value else option.name
    return _limited(made)


def _base(pod: Pod, node: Resolver, cluster: ClusterDns) -> Resolver:
    policy = pod.spec.dnsPolicy or "ClusterFirst"
    if policy == "None":
        return Resolver()
    asks_cluster = policy == "ClusterFirstWithHostNet" or (policy == "ClusterFirst" and not pod.spec.hostNetwork)
    if not asks_cluster or not cluster.servers:
        return node
    domain = cluster.domain
    searches = [f"{pod.metadata.namespace}.svc.{domain}", f"svc.{domain}", domain, *node.searches]
    return Resolver(list(cluster.servers), searches, {"ndots": "ndots:5"})


def parse(text: str) -> Resolver:
    """Read a resolv.conf(5): the last search list counts, servers and options add up."""
    found = Resolver()
    for line in text.splitlines():
        words = line.split("#")[0].split(";")[0].split()
        match words:
            case ["nameserver", server, *_]:
                found.servers.append(server)
            case ["search" | "domain", *names]:
                found.searches = [name.removesuffix(".") or name for name in names]
            case ["options", *options]:
                found.options.update({option.partition(":")[0]: option for option in options})
    return found


def _limited(made: Resolver) -> Resolver:
    if len(made.servers) > _SERVERS:
        del made.servers[_SERVERS:]
        made.omitted.append(
            "Nameserver limits were exceeded, some nameservers have been omitted, the applied nameserver line is: "
            + " ".join(made.servers)
        )
    kept = list(_fitting(made.searches))
    if kept != made.searches:
        made.searches = kept
        made.omitted.append(
            "Search Line limits were exceeded, some search paths have been omitted, the applied search line is: "
            + " ".join(kept)
        )
    return made


def _fitting(searches: Sequence[str]) -> Iterator[str]:
    length = 0
    for name in searches[:_SEARCHES]:
        length += len(name) + 1
        if length > _SEARCH_LINE + 1:
            return
        yield name
