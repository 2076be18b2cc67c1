"""The file that says which control plane to talk to, and as whom: contexts, as in a kubeconfig.

Owns finding, reading and writing that file; never opens a connection. The file is YAML; files written here are
JSON, which is YAML too and is read without the 30 ms that importing a YAML parser costs. Fails with Invalid,
naming the file and what to do.

    apiVersion: podplane.io/v1
    kind: Config
    currentContext: local
    contexts:
    - name: local
      server: 127.0.0.1:7443
      certificateAuthority: ca.pem          # or certificateAuthorityData: the PEM text itself
      tokenFile: admin.token                # or token; paths are relative to this file
      namespace: default
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from podplane.errors import Invalid, NotFound

_KEYS = {
    "name": "name",
    "server": "server",
    "certificateAuthority": "certificate_authority",
    "certificateAuthorityData": "certificate_authority_data",
    "token": "token",
    "tokenFile": "token_file",
    "namespace": "namespace",
}


@dataclass(frozen=True, slots=True)
class Context:
    """One control plane and one identity. Empty strings mean unset; paths are absolute once read."""

    name: str
    server: str = ""
    certificate_authority: str = ""
    certificate_authority_data: str = ""
    token: str = field(default="", repr=False)
    token_file: str = ""
    namespace: str = ""

    def authority(self) -> bytes | None:
        """The PEM that the server's certificate must chain to; None for the system's own. Raises Invalid."""
        if self.certificate_authority_data:
            return self.certificate_authority_data.encode()
        if not self.certificate_authority:
            return None
        return _read(Path(self.certificate_authority), "the certificate authority").encode()

    def bearer(self) -> str:
        """The token, empty where there is none. Raises Invalid where its file cannot be read or is empty."""
        if not self.token_file:
            return self.token
        token = _read(Path(self.token_file), "the token").strip()
        if not token:
            raise Invalid(f"cannot use the token file {self.token_file}: it is empty")
        return token


@dataclass(frozen=True, slots=True)
class ContextFile:
    """The contexts of one file, by name, and the one in use."""

    path: Path
    current: str = ""
    contexts: Mapping[str, Context] = field(default_factory=dict)

    def context(self, name: str | None = None) -> Context:
        """The context of that name, or the current one; NotFound says what there is."""
        wanted = name or self.current
        if not wanted:
            raise NotFound(f"no current context in {self.path}: choose one with 'podctl config use-context NAME'")
        try:
            return self.contexts[wanted]
        except KeyError:
            known = ", ".join(self.contexts) or "none"
            raise NotFound(f'context "{wanted}" does not exist in {self.path}; it has: {known}') from None


def find(environment: Mapping[str, str] | None = None, start: Path | None = None) -> Path | None:
    """The file to use, None where there is none.

    $PODPLANE_CONFIG (also where it is missing, so that a typo is seen), then ~/.config/podplane/config, then
    .run/config in `start` or a directory above it, then .run/config beside the virtual environment.
    """
    environment = os.environ if environment is None else environment
    if named := environment.get("PODPLANE_CONFIG"):
        return Path(named).expanduser()
    here = (start or Path.cwd()).resolve()
    places = [
        default_path(environment),
        *(directory / ".run" / "config" for directory in (here, *here.parents)),
        Path(sys.prefix).parent / ".run" / "config",
    ]
    return next((place for place in places if place.is_file()), None)


def default_path(environment: Mapping[str, str] | None = None) -> Path:
    """Where a person's own file is: $XDG_CONFIG_HOME/podplane/config or ~/.config/podplane/config."""
    environment = os.environ if environment is None else environment
    base = environment.get("XDG_CONFIG_HOME")
    return (Path(base) if base else Path.home() / ".config") / "podplane" / "config"


def read(path: Path) -> ContextFile:
    """The file's contents. Raises Invalid where it cannot be read or has a wrong shape."""
    text = _read(path, "the config file")
    document = _parse(path, text)
    unknown = set(document) - {"apiVersion", "kind", "currentContext", "current-context", "contexts", "preferences"}
    if unknown:
        raise Invalid(f"cannot use the config file {path}: unknown field {sorted(unknown)[0]}")
    entries = document.get("contexts") or []
    if not isinstance(entries, list):
        raise Invalid(f"cannot use the config file {path}: contexts is not a list")
    contexts = [_context(path, index, entry) for index, entry in enumerate(entries)]
    current = document.get("currentContext") or document.get("current-context") or ""
    return ContextFile(path, str(current), {context.name: context for context in contexts})


def write(file: ContextFile) -> None:
    """Replace the file at once, readable by its owner alone; directories are made as needed."""
    file.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    text = json.dumps(document(file), indent=2) + "\n"
    descriptor, temporary = tempfile.mkstemp(dir=file.path.parent, prefix=f".{file.path.name}.")  # mode 0600
    try:
        with os.fdopen(descriptor, "w") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(descriptor)
        os.replace(temporary, file.path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def with_context(file: ContextFile, context: Context, *, use: bool = True) -> ContextFile:
    """The file with that context added or replaced, and made the current one."""
    contexts = {**file.contexts, context.name: context}
    return ContextFile(file.path, context.name if use else file.current, contexts)


def document(file: ContextFile, *, secrets: bool = True) -> dict[str, Any]:
    """The file's shape; without `secrets` a token is shown as REDACTED."""
    entries = []
    for context in file.contexts.values():
        entry = {key: value for key, name in _KEYS.items() if (value := getattr(context, name))}
        if "token" in entry and not secrets:
            entry["token"] = "REDACTED"
        entries.append(entry)
    return {"apiVersion": "podplane.io/v1", "kind": "Config", "currentContext": file.current, "contexts": entries}


def _read(path: Path, what: str) -> str:
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise Invalid(f"cannot read {what} {path}: {reason}") from None


def _parse(path: Path, text: str) -> dict[str, Any]:
    try:
        found = json.loads(text) if text.lstrip().startswith("{") else _yaml(text)
    except ValueError as error:
        raise Invalid(f"cannot parse the config file {path}: {error}") from None
    if not isinstance(found, dict) or found.get("kind", "Config") != "Config":
        raise Invalid(f"cannot use the config file {path}: it is not of kind Config")
    return found


def _yaml(text: str) -> Any:
    import yaml  # here, because importing it costs more than a whole `podctl config current-context` otherwise

    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(str(error).replace("\n", " ")) from None


def _context(path: Path, index: int, entry: object) -> Context:
    where = f"cannot use the config file {path}: contexts[{index}]"
    if not isinstance(entry, dict):
        raise Invalid(f"{where} is not a mapping")
    unknown = [key for key in entry if key not in _KEYS]
    if unknown:
        raise Invalid(f"{where} has the unknown field {unknown[0]}; there are {', '.join(_KEYS)}")
    values = {name: str(entry.get(key) or "") for key, name in _KEYS.items()}
    if not values["name"]:
        raise Invalid(f"{where} has no name")
    for name in ("certificate_authority", "token_file"):
        if values[name]:
            values[name] = str(path.parent.absolute() / Path(values[name]).expanduser())
    return Context(**values)
