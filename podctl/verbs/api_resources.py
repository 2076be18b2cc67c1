"""podctl api-resources: the kinds there are, from the schema that podctl was built with."""

from __future__ import annotations

from argparse import Namespace

from podctl.flags import Parser
from podctl.tabwriter import Columns
from podplane.kinds import KINDS

USAGE = "[-o name|wide] [--namespaced=true|false] [--no-headers]"
EXAMPLES = """
  podctl api-resources
  podctl api-resources -o name
  podctl api-resources --namespaced=false
"""


def configure(parser: Parser) -> None:
    parser.add_argument("-o", "--output", choices=("name",), help="name: plurals only")
    parser.switch("--no-headers", help="print no header line")
    parser.add_argument(
        "--namespaced", choices=("true", "false"), help="only kinds that are, or are not, in namespaces"
    )


def run(args: Namespace) -> int:
    kinds = sorted(KINDS.values(), key=lambda kind: (kind.group, kind.plural))
    if args.namespaced:
        kinds = [kind for kind in kinds if kind.namespaced == (args.namespaced == "true")]
    if args.output == "name":
        for kind in kinds:
            print(f"{kind.plural}.{kind.group}" if kind.group else kind.plural)
        return 0
    rows = [] if args.no_headers else [["NAME", "SHORTNAMES", "APIVERSION", "NAMESPACED", "KIND"]]
    rows += [
        [kind.plural, ",".join(kind.short_names), kind.api_version, str(kind.namespaced).lower(), kind.name]
        for kind in kinds
    ]
    print("\n".join(Columns().lines(rows)))
    return 0
