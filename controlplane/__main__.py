"""podplane-controlplane: parses the flags, sets up logging, runs the command. Nothing else lives here."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from controlplane import config
from podplane.errors import PodplaneError


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status: 0 done or stopped by SIGTERM, 1 failed (the reason is on stderr), 2 wrong usage."""
    options = config.parse(sys.argv[1:] if argv is None else argv)
    try:
        if options.command == "serve":
            return _serve(config.config_of(options))
        from controlplane import commands

        return commands.run_init(options) if options.command == "init" else commands.run_token(options)
    except (PodplaneError, ValueError, OSError) as error:
        print(f"podplane-controlplane: {error}", file=sys.stderr)
        return 1


def _serve(settings: config.Config) -> int:
    import uvloop

    from controlplane.server import serve
    from podplane.logging import setup

    setup(settings.log_level, settings.log_format)
    return uvloop.run(serve(settings))


if __name__ == "__main__":
    sys.exit(main())
