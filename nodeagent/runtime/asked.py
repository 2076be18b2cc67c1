"""What a registry says with a 429, as a program: `python -m nodeagent.runtime.asked URL`.

skopeo does not tell before it has waited several times. Asks once, without credentials or redirects, and prints the
registry's words; nothing where they cannot be had. A process of its own: the agent itself loads no TLS for this.
"""

from __future__ import annotations

import json
import sys
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import Any
from urllib.parse import urlsplit

PATIENCE = 5.0
MOST = 1 << 16


def said(body: bytes) -> str:
    """The errors of a body as the distribution specification has them, in one line. Pure."""
    try:
        errors = json.loads(body)["errors"]
        found = [f"{str(error['code']).lower()}: {error['message']}" for error in errors]
    except (ValueError, KeyError, TypeError, RecursionError):
        return ""
    return " ".join("; ".join(found).split())[:500]


def ask(url: str) -> str:
    """The words of a 429; empty for any other answer."""
    parts = urlsplit(url)
    made: Any = HTTPSConnection if parts.scheme == "https" else HTTPConnection
    connection: HTTPConnection = made(parts.netloc, timeout=PATIENCE)
    try:
        connection.request("GET", f"{parts.path}?{parts.query}".rstrip("?"))
        answer = connection.getresponse()
        return said(answer.read(MOST)) if answer.status == 429 else ""
    finally:
        connection.close()


def main(argv: list[str]) -> int:
    """Print the words, where there are any."""
    try:
        print(ask(argv[0]))
    except (OSError, HTTPException, ValueError):
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
