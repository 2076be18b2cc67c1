"""What may be a name, a label, an environment variable: Kubernetes' syntaxes, and its words for what is wrong.

Pure. Every function takes a value and gives what is wrong with it, nothing where it is right. Source: apimachinery's
util/validation.
"""

from __future__ import annotations

import re
from collections.abc import Callable

Check = Callable[[str], list[str]]

_LABEL = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_SUBDOMAIN = rf"{_LABEL}(\.{_LABEL})*"
_LABEL_1035 = "[a-z]([-a-z0-9]*[a-z0-9])?"
_QUALIFIED = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]"
_ENV = "[-._a-zA-Z][-._a-zA-Z0-9]*"
_CONFIG_KEY = "[-._a-zA-Z0-9]+"

_LABEL_WORDS = (
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end "
    f"with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '{_LABEL}')"
)
_SUBDOMAIN_WORDS = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start "
    f"and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '{_SUBDOMAIN}')"
)
_LABEL_1035_WORDS = (
    "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, "
    "and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', "
    f"regex used for validation is '{_LABEL_1035}')"
)
_QUALIFIED_WORDS = (
    "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character "
    f"(e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '{_QUALIFIED}')"
)
_LABEL_VALUE_WORDS = (
    "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start "
    "and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', "
    f"regex used for validation is '({_QUALIFIED})?')"
)
_ENV_WORDS = (
    "a valid environment variable name must consist of alphabetic characters, digits, '_', '-', or '.', and must not "
    "start with a digit (e.g. 'my.env-name',  or 'MY_ENV.NAME',  or 'MyEnvName1', "
    f"regex used for validation is '{_ENV}')"
)
_CONFIG_KEY_WORDS = (
    "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  "
    f"or 'key-name', regex used for validation is '{_CONFIG_KEY}')"
)


def _syntax(pattern: str, words: str, longest: int) -> Check:
    compiled = re.compile(pattern)

    def check(value: str) -> list[str]:
        wrong = [] if len(value) <= longest else [_too_long(longest)]
        return wrong if compiled.fullmatch(value[: longest + 1]) else [*wrong, words]

    return check


def _too_long(longest: int) -> str:
    return f"must be no more than {longest} characters"


dns_label = _syntax(_LABEL, _LABEL_WORDS, 63)
"""RFC 1123 label: names of containers, volumes and namespaces."""

dns_subdomain = _syntax(_SUBDOMAIN, _SUBDOMAIN_WORDS, 253)
"""RFC 1123 subdomain: names of most objects."""

dns_1035_label = _syntax(_LABEL_1035, _LABEL_1035_WORDS, 63)
"""RFC 1035 label: names of services."""

env_name = _syntax(_ENV, _ENV_WORDS, 1 << 20)
"""Names of environment variables."""

_label_value = _syntax(f"({_QUALIFIED})?", _LABEL_VALUE_WORDS, 63)
_name_part = _syntax(_QUALIFIED, _QUALIFIED_WORDS, 63)
_config_key = _syntax(_CONFIG_KEY, _CONFIG_KEY_WORDS, 253)


def label_value(value: str) -> list[str]:
    """Values of labels."""
    return _label_value(value)


def qualified_name(value: str) -> list[str]:
    """Keys of labels, annotations, taints and resources: `name` or `prefix.example/name`."""
    prefix, slash, name = value.rpartition("/")
    if "/" in prefix:
        return [f"a qualified name {_QUALIFIED_WORDS} with an optional DNS subdomain prefix and '/'"]
    wrong: list[str] = []
    if slash and not prefix:
        wrong.append("prefix part must be non-empty")
    elif slash:
        wrong += [f"prefix part {problem}" for problem in dns_subdomain(prefix)]
    if not name:
        return [*wrong, "name part must be non-empty"]
    return wrong + [f"name part {problem}" for problem in _name_part(name)]


def config_key(value: str) -> list[str]:
    """Keys of ConfigMaps and Secrets: they become file names."""
    wrong = _config_key(value)
    if value == ".":
        wrong.append("must not be '.'")
    elif value == "..":
        wrong.append("must not be '..'")
    elif value.startswith(".."):
        wrong.append("must not start with '..'")
    return wrong


def port_name(value: str) -> list[str]:
    """Names of ports (IANA service names, RFC 6335)."""
    wrong: list[str] = [] if len(value) <= 15 else [_too_long(15)]
    if not re.fullmatch("[-a-z0-9]+", value):
        wrong.append("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)")
    if not re.search("[a-z]", value):
        wrong.append("must contain at least one letter (a-z)")
    if "--" in value:
        wrong.append("must not contain consecutive hyphens")
    if value.startswith("-") or value.endswith("-"):
        wrong.append("must not begin or end with a hyphen")
    return wrong
