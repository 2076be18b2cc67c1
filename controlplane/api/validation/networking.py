"""How a pod is reached and reaches others: host ports, host namespaces, names, DNS. Pure."""

from __future__ import annotations

from controlplane.api.validation.addresses import address, ipv4
from controlplane.api.validation.problems import Problems
from podplane import names
from podplane.v1 import pod_pb2

_DNS_POLICIES = ("ClusterFirstWithHostNet", "ClusterFirst", "Default", "None")
_MAX_SERVERS, _MAX_SEARCHES, _MAX_SEARCH_LINE = 3, 32, 2048


def networking(spec: pod_pb2.PodSpec, path: str, found: Problems, *, of_pod: bool) -> None:
    """`of_pod`: not of a template, whose host ports are completed when the pod is made."""
    found.one_of(f"{path}.dnsPolicy", spec.dnsPolicy, _DNS_POLICIES)
    for name in ("hostname", "subdomain"):
        found.syntax(f"{path}.{name}", getattr(spec, name), names.dns_label, required=False)
    for index, alias in enumerate(spec.hostAliases):
        address(alias.ip, f"{path}.hostAliases[{index}].ip", found)
        for position, name in enumerate(alias.hostnames):
            found.syntax(f"{path}.hostAliases[{index}].hostnames[{position}]", name, names.dns_subdomain)
    _dns_config(spec, f"{path}.dnsConfig", found)
    _host_ports(spec, path, found, of_pod=of_pod)


def _dns_config(spec: pod_pb2.PodSpec, path: str, found: Problems) -> None:
    servers, searches = spec.dnsConfig.nameservers, spec.dnsConfig.searches
    if spec.dnsPolicy == "None" and not servers:
        found.required(f"{path}.nameservers", "must provide at least one DNS nameserver when `dnsPolicy` is None")
    if len(servers) > _MAX_SERVERS:
        found.invalid(f"{path}.nameservers", list(servers), f"must not have more than {_MAX_SERVERS} nameservers")
    for index, server in enumerate(servers):
        address(server, f"{path}.nameservers[{index}]", found)
    if len(searches) > _MAX_SEARCHES:
        found.invalid(f"{path}.searches", list(searches), f"must not have more than {_MAX_SEARCHES} search paths")
    if len(" ".join(searches)) > _MAX_SEARCH_LINE:
        words = f"must not have more than {_MAX_SEARCH_LINE} characters (including spaces) in the search list"
        found.invalid(f"{path}.searches", list(searches), words)
    for index, search in enumerate(searches):
        found.syntax(f"{path}.searches[{index}]", search.removesuffix("."), names.dns_subdomain)
    for index, option in enumerate(spec.dnsConfig.options):
        if not option.name:
            found.required(f"{path}.options[{index}]", "must not be empty")
        elif not _is_word(option.name) or not _is_word(option.value or "-"):
            found.invalid(f"{path}.options[{index}]", option.name, "must not contain white space")


def _is_word(text: str) -> bool:
    """What would be more than one word, or another line, of the pod's resolv.conf."""
    return text.split() == [text]


def _host_ports(spec: pod_pb2.PodSpec, path: str, found: Problems, *, of_pod: bool) -> None:
    for name in ("containers", "initContainers"):
        for index, container in enumerate(getattr(spec, name)):
            for position, port in enumerate(container.ports):
                at = f"{path}.{name}[{index}].ports[{position}]"
                if spec.hostNetwork and (of_pod or port.hostPort) and port.hostPort != port.containerPort:
                    words = "must match `containerPort` when `hostNetwork` is true"
                    found.invalid(f"{at}.hostPort", port.hostPort, words)
                if port.hostIP:
                    ipv4(port.hostIP, f"{at}.hostIP", found)
