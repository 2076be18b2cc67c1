"""podctl completion: a script that makes bash complete verbs, flags, kinds and names."""

from __future__ import annotations

from argparse import Namespace
from importlib import import_module

from podctl.failure import UsageFailure
from podctl.flags import Parser, add_global_flags

USAGE = "bash"
EXAMPLES = """
  podctl completion bash > /etc/bash_completion.d/podctl
  source <(podctl completion bash)
"""

_SCRIPT = """\
# bash completion for podctl
_podctl_names() {
    podctl get "$1" -o name --request-timeout 2s ${_podctl_namespace:+-n "$_podctl_namespace"} 2>/dev/null
}

_podctl() {
    local current=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD-1]} verb='' kind='' index
    local _podctl_namespace=''
    for ((index = 1; index < COMP_CWORD; index++)); do
        case ${COMP_WORDS[index]} in
            -n | --namespace) ((index++)); _podctl_namespace=${COMP_WORDS[index]} ;;
            -*) ;;
            *) if [[ -z $verb ]]; then verb=${COMP_WORDS[index]}; else kind=${kind:-${COMP_WORDS[index]}}; fi ;;
        esac
    done
    case $previous in
        -n | --namespace)
            COMPREPLY=($(compgen -W "$(_podctl_names namespaces | sed 's,.*/,,')" -- "$current"))
            return ;;
        -f | --filename | --token-file | --certificate-authority) COMPREPLY=($(compgen -f -- "$current")); return ;;
    esac
    if [[ -z $verb ]]; then
        COMPREPLY=($(compgen -W "@VERBS@" -- "$current"))
        return
    fi
    if [[ $current == -* ]]; then
        case $verb in
@FLAGS@
        esac
        return
    fi
    case $verb in
        logs | exec | attach | port-forward | cp | timeline)
            [[ -z $kind ]] && COMPREPLY=($(compgen -W "$(_podctl_names pods | sed 's,.*/,,')" -- "$current")) ;;
        cordon | uncordon | drain)
            COMPREPLY=($(compgen -W "$(_podctl_names nodes | sed 's,.*/,,')" -- "$current")) ;;
        get | describe | delete | label | annotate | patch | wait | scale | expose | edit)
            if [[ -z $kind ]]; then
                COMPREPLY=($(compgen -W "@KINDS@" -- "$current"))
            else
                COMPREPLY=($(compgen -W "$(_podctl_names "$kind" | sed 's,.*/,,')" -- "$current"))
            fi ;;
        why)
            if [[ -z $kind ]]; then
                COMPREPLY=($(compgen -W "service" -- "$current"))
            else
                COMPREPLY=($(compgen -W "$(_podctl_names services | sed 's,.*/,,')" -- "$current"))
            fi ;;
        rollout | set)
            [[ -n $kind ]] && COMPREPLY=($(compgen -W "$(_podctl_names deployments)" -- "$current")) ;;
    esac
}
complete -o default -F _podctl podctl
"""


def configure(parser: Parser) -> None:
    parser.add_argument("shell", nargs="?", help="bash")


def run(args: Namespace) -> int:
    if args.shell != "bash":
        raise UsageFailure(f"unsupported shell type {args.shell or 'none'}: bash is supported", "completion")
    from podctl.cli import known_verbs
    from podplane.kinds import KINDS

    verbs = known_verbs()
    flags = "\n".join(
        f'            {verb}) COMPREPLY=($(compgen -W "{" ".join(_flags(verb))}" -- "$current")) ;;' for verb in verbs
    )
    script = _SCRIPT.replace("@VERBS@", " ".join(verbs)).replace("@FLAGS@", flags)
    print(script.replace("@KINDS@", " ".join(sorted(kind.plural for kind in KINDS.values()))), end="")
    return 0


def _flags(verb: str) -> list[str]:
    parser = Parser(verb, "", "", "")
    import_module(f"podctl.verbs.{verb.replace('-', '_')}").configure(parser)
    add_global_flags(parser)
    return parser.long_flags()
