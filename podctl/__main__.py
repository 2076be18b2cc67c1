"""The entry point: runs one verb and turns how it ended into an exit status.

Owns nothing but the last word: Ctrl-C ends with 130 and a closed pipe with 141, as a shell shows them, without a trace.
"""

from __future__ import annotations

import os
import sys


def main() -> None:
    """Run the command line and exit."""
    # gRPC's C core would write its own notes on failed handshakes beside our one line.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    try:
        from podctl.cli import run

        status = run(sys.argv[1:])
        sys.stdout.flush()
    except KeyboardInterrupt:
        status = 130
    except BrokenPipeError:
        status = 141
    # The interpreter's own flush at exit must not complain about a pipe that nobody reads any more.
    try:
        sys.stdout.flush()
    except (BrokenPipeError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    sys.exit(status)


if __name__ == "__main__":
    main()
