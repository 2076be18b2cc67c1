"""What skopeo's words mean: RegistryUnavailable or ErrImagePull. Pure; the only place that reads them.

Unavailable: the registry could not be asked (refused, timed out, name not found, TLS) or failed itself (5xx). Whatever
it did answer is ErrImagePull, with its words; so is a connection that was cut in the middle of an answer. Where mirrors
were asked too, one that answered decides.
"""

from __future__ import annotations

import re

from nodeagent.runtime.image import ImageFailure, pull_failed

# Go's url.Error: what happened before there was an answer.
_NOT_ASKED = re.compile(
    r'(?:Get|Head|Post) "[^"]*": (?!stopped after)(?:.*?)'
    r"(?:dial |refused|timeout|Timeout|deadline exceeded|no such host|no route to host|unreachable|reset by peer"
    r"|broken pipe|EOF|tls: |x509: |server gave HTTP response to HTTPS)"
)
_TIMED_OUT = re.compile(r"(?:read|write|dial) tcp [^ ]+(?:->[^ ]+)?: i/o timeout|context deadline exceeded")
_FAILED = re.compile(r"unexpected HTTP status:? 5\d\d|status code from registry:? 5\d\d")
_MIRRORS = re.compile(r"\(Mirrors also failed: (?P<mirrors>.*)\): ")
_MESSAGE = re.compile(r'level=(?:fatal|error) msg="((?:[^"\\]|\\.)*)"')
_WRAPPING = re.compile(r'Error parsing image name "docker://[^"]*": ')
_THROTTLED = re.compile(r"Too many requests to (\S+): sleeping for ([0-9.]+) seconds")


def words(text: str) -> str:
    """What skopeo says at its end, without the wrapping of its log."""
    messages = [re.sub(r'\\(["\\])', r"\1", match.replace("\\n", " ")) for match in _MESSAGE.findall(text)]
    said = messages[-1] if messages else text
    return " ".join(_WRAPPING.sub("", said, count=1).split()) or "skopeo gave no reason"


def failure(image: str, text: str) -> ImageFailure:
    """The failure that skopeo's output stands for."""
    said = words(text)
    found = _MIRRORS.search(said)
    answers = [said.replace(found[0], ""), *found["mirrors"].split("] [")] if found else [said]
    reason = "RegistryUnavailable" if all(map(_is_unavailable, answers)) else "ErrImagePull"
    return pull_failed(image, said, reason)


def throttled(text: str) -> str | None:
    """What a registry answered with 429 when it was asked for, as skopeo's debug log has it: a URL; None: nothing."""
    found = _THROTTLED.search(text)
    return found[1] if found else None


def _is_unavailable(answer: str) -> bool:
    return any(pattern.search(answer) for pattern in (_NOT_ASKED, _TIMED_OUT, _FAILED))
