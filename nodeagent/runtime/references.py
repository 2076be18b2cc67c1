"""Image references, as docker and Kubernetes read them. Pure.

`nginx:1.20` is docker.io/library/nginx:1.20; a first component with a dot, a colon or `localhost` is a registry.
Raises ImageFailure("InvalidImageName"). Grammar: distribution/reference.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from nodeagent.runtime.image import ImageFailure

_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_PATH = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_LABEL = r"[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?"
_DOMAIN = re.compile(rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[a-fA-F0-9:]+\])(?::[0-9]+)?")
_TAG = re.compile(r"\w[\w.-]{0,127}", re.ASCII)
_DIGEST = re.compile(r"sha256:[a-f0-9]{64}|sha512:[a-f0-9]{128}")


@dataclass(frozen=True, slots=True)
class Reference:
    """A reference in full: registry, repository, and a tag or a digest."""

    registry: str
    repository: str
    tag: str = ""
    digest: str = ""

    @property
    def name(self) -> str:
        """Registry and repository."""
        return f"{self.registry}/{self.repository}"

    def __str__(self) -> str:
        return f"{self.name}@{self.digest}" if self.digest else f"{self.name}:{self.tag}"


def _invalid(image: str, why: str) -> ImageFailure:
    return ImageFailure("InvalidImageName", f'couldn\'t parse image name "{image}": invalid reference format: {why}')


def _split_domain(name: str) -> tuple[str, str]:
    first, slash, rest = name.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost" or first != first.lower()):
        domain, path = first, rest
    else:
        domain, path = "docker.io", name
    if domain == "index.docker.io":
        domain = "docker.io"
    if domain == "docker.io" and "/" not in path:
        path = f"library/{path}"
    return domain, path


def parse(image: str) -> Reference:
    """Read a reference; without tag and digest the tag is `latest`."""
    rest, _, digest = image.partition("@")
    if "@" in image and not _DIGEST.fullmatch(digest):
        raise _invalid(image, f"{digest!r} is not a digest")
    head, colon, tag = rest.rpartition(":")
    if not colon or "/" in tag:
        head, tag = rest, ""
    elif not _TAG.fullmatch(tag):
        raise _invalid(image, f"{tag!r} is not a tag")
    domain, path = _split_domain(head)
    if not _PATH.fullmatch(path):
        raise _invalid(image, "repository name must be lowercase letters, digits and separators")
    if not _DOMAIN.fullmatch(domain):
        raise _invalid(image, f"{domain!r} is not a registry")
    if len(f"{domain}/{path}") > 255:
        raise _invalid(image, "repository name is longer than 255 characters")
    return Reference(domain, path, tag if tag or digest else "latest", digest)
