"""/etc/hosts, /etc/hostname and /etc/resolv.conf of pods, to the letter."""

from __future__ import annotations

from typing import Any

import pytest

from nodeagent.pods import netfiles
from nodeagent.pods.netfiles import Naming
from nodeagent.pods.resolvconf import ClusterDns, resolver
from podplane.v1.pod_pb2 import Pod, PodSpec

NODE = """\
# made by hand
domain gone.example
search corp.example. lab.example
nameserver 192.0.2.1
nameserver 192.0.2.2 # the second
options edns0 timeout:1
"""
CLUSTER = ClusterDns(("10.96.0.10",))
NAMING = Naming("metal", CLUSTER)
OF_NODE = """\
search corp.example lab.example
nameserver 192.0.2.1
nameserver 192.0.2.2
options edns0 timeout:1
"""
OF_CLUSTER = """\
search shop.svc.cluster.local svc.cluster.local cluster.local corp.example lab.example
nameserver 10.96.0.10
options ndots:5
"""


def a_pod(name: str = "web-0", **spec: Any) -> Pod:
    pod = Pod(spec=PodSpec(**spec))
    pod.metadata.name, pod.metadata.namespace, pod.metadata.uid = name, "shop", "uid-1"
    return pod


@pytest.mark.parametrize(
    ("spec", "cluster", "expected"),
    [
        ({}, CLUSTER, OF_CLUSTER),
        ({"dnsPolicy": "ClusterFirst"}, CLUSTER, OF_CLUSTER),
        ({"dnsPolicy": "ClusterFirst"}, ClusterDns(), OF_NODE),
        ({"dnsPolicy": "ClusterFirst", "hostNetwork": True}, CLUSTER, OF_NODE),
        ({"dnsPolicy": "ClusterFirstWithHostNet", "hostNetwork": True}, CLUSTER, OF_CLUSTER),
        ({"dnsPolicy": "Default"}, CLUSTER, OF_NODE),
        ({"dnsPolicy": "None", "dnsConfig": {"nameservers": ["192.0.2.9"]}}, CLUSTER, "nameserver 192.0.2.9\n"),
        (
            {
                "dnsPolicy": "ClusterFirst",
                "dnsConfig": {
                    "nameservers": ["192.0.2.9", "10.96.0.10"],
                    "searches": ["my.example", "cluster.local"],
                    "options": [{"name": "ndots", "value": "2"}, {"name": "edns0"}],
                },
            },
            ClusterDns(("10.96.0.10",), "cluster.local"),
            "search shop.svc.cluster.local svc.cluster.local cluster.local corp.example lab.example my.example\n"
            "nameserver 10.96.0.10\nnameserver 192.0.2.9\noptions ndots:2 edns0\n",
        ),
        (
            {"dnsPolicy": "ClusterFirst"},
            ClusterDns(("10.96.0.10",), "k8s.example"),
            OF_CLUSTER.replace("cluster.local", "k8s.example"),
        ),
    ],
)
def test_resolv_conf_is_exactly_what_policy_and_config_say(
    spec: dict[str, Any], cluster: ClusterDns, expected: str
) -> None:
    made = resolver(a_pod(**spec), NODE, cluster)
    assert (made.text, made.omitted) == (expected, [])


def test_what_no_resolver_takes_is_left_out_and_told() -> None:
    config = {"nameservers": ["192.0.2.7", "192.0.2.8"], "searches": [f"s{number}.example" for number in range(40)]}
    made = resolver(a_pod(dnsPolicy="Default", dnsConfig=config), NODE, CLUSTER)
    assert made.servers == ["192.0.2.1", "192.0.2.2", "192.0.2.7"]
    assert len(made.searches) == 32
    assert [words.partition(",")[0] for words in made.omitted] == [
        "Nameserver limits were exceeded", "Search Line limits were exceeded",
    ]  # fmt: skip


def test_a_search_line_ends_at_the_longest_that_is_read() -> None:
    made = resolver(a_pod(dnsPolicy="Default"), f"search {' '.join(['x' * 204 + str(n) for n in range(10)])}", CLUSTER)
    assert len(made.searches) == 9
    assert len(" ".join(made.searches)) <= 2048


def test_the_hosts_file_names_the_pod_its_domain_and_its_aliases() -> None:
    pod = a_pod(subdomain="db", hostAliases=[{"ip": "192.0.2.5", "hostnames": ["one", "two.example"]}])
    lines = netfiles.hosts(pod, "10.244.1.7", NAMING, "").splitlines()
    assert lines[0] == "# Podplane-managed hosts file."
    assert "10.244.1.7\tweb-0.db.shop.svc.cluster.local\tweb-0" in lines
    assert lines[-3:] == ["", "# Entries added by HostAliases.", "192.0.2.5\tone\ttwo.example"]


def test_with_the_nodes_network_the_hosts_file_and_the_name_are_the_nodes() -> None:
    pod = a_pod(hostNetwork=True, subdomain="db", hostAliases=[{"ip": "192.0.2.5", "hostnames": ["one"]}])
    text = netfiles.hosts(pod, "", NAMING, "127.0.0.1 localhost\n")
    assert text == (
        "# Podplane-managed hosts file (host network).\n127.0.0.1 localhost\n"
        "\n# Entries added by HostAliases.\n192.0.2.5\tone\n"
    )
    assert netfiles.hostname(pod, NAMING) == "metal"


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({}, "web-0"),
        ({"hostname": "db-0", "subdomain": "db"}, "db-0"),
        ({"hostname": "db-0", "subdomain": "db", "setHostnameAsFQDN": True}, "db-0.db.shop.svc.cluster.local"),
        ({"setHostnameAsFQDN": True}, "web-0"),
    ],
)
def test_the_hostname_is_the_short_one_unless_the_whole_is_asked_for(spec: dict[str, Any], expected: str) -> None:
    assert netfiles.hostname(a_pod(**spec), NAMING) == expected


def test_a_name_is_cut_at_63_characters_and_never_ends_with_a_dash() -> None:
    assert netfiles.hostname(a_pod("x" * 62 + "-abc"), NAMING) == "x" * 62


def test_a_whole_name_that_the_kernel_does_not_take_is_refused_with_its_length() -> None:
    pod = a_pod(subdomain="s" * 40, setHostnameAsFQDN=True)
    with pytest.raises(netfiles.NameFailure, match=r"is too long \(64 characters is the max, 69 characters requested"):
        netfiles.hostname(pod, NAMING)
