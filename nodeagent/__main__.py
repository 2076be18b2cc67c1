"""`podplane-nodeagent run | shutdown | cleanup`. Reads the flags, sets up logging, runs."""

from __future__ import annotations

import os
import sys

# Before anything imports grpc: a fork handler of gRPC's would freeze the loop when a child is started.
os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"

from nodeagent import agent, cleanup, config, shutdown
from podplane import logging

COMMANDS = {"run": agent.serve, "shutdown": shutdown.shut_down, "cleanup": cleanup.clean}


def main() -> int:
    """The program."""
    options = config.parse(sys.argv[1:])
    logging.setup(options.log_level, options.log_format)
    return agent.main(options, COMMANDS[options.command])


if __name__ == "__main__":
    sys.exit(main())
