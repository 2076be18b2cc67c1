"""What the agent does not carry: a library that it imports is memory on every node."""

from __future__ import annotations

import subprocess
import sys

ABSENT = {"yaml", "rich", "cryptography", "OpenSSL", "uvloop", "prometheus_client", "sqlite3", "tarfile"}
"""A join, a cleanup and the unpacking of a layer, which need some of them, are processes of their own."""
# Every import there is, also of what is taken out of sys.modules afterwards.
IMPORTS = """
import sys
seen = []
sys.addaudithook(lambda event, given: seen.append(given[0]) if event == "import" else None)
import nodeagent.agent
print(*seen)
"""


def test_a_running_agent_has_imported_no_library_beside_its_task() -> None:
    done = subprocess.run([sys.executable, "-c", IMPORTS], capture_output=True, text=True, timeout=60, check=True)
    seen = set(done.stdout.split())
    assert {name.partition(".")[0] for name in seen} & ABSENT == set()
    # What few nodes need, or only later, comes when it is asked for.
    assert not {"dns", "nodeagent.proxy.ipvs.ipvs", "nodeagent.proxy.iptables.iptables", "importlib.metadata"} & seen
    # Of pyroute2 the messages alone: the whole of it is 9 MB.
    assert "pyroute2.netlink.rtnl.ifinfmsg" in seen
    assert not {"pyroute2.iproute", "pyroute2.ndb", "pyroute2.nslink"} & seen
