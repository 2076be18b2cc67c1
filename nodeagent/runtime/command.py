"""How the node's programs are found, and how their lives are tied to ours. Pure, and light to import."""

from __future__ import annotations

SEARCH_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
DIES_WITH_US = ("setpriv", "--pdeathsig", "KILL", "--")
"""Before a command: the kernel kills it when whoever started it has ended, even by SIGKILL. Containers must not."""
