"""Seccomp programs that search by halves where libseccomp's compare one number after the other. Pure.

The kernel runs a program for every number of a system call as it loads it, with interrupts off, to know which calls are
always allowed (kernel/seccomp.c, seccomp_cache_prepare): a millisecond of a container's start. Here the answers that
follow from the number alone are found once, and a binary search for them is put before the program. What depends on
arguments goes on to the program, which stays as it was: so the two cannot decide differently.
"""

from __future__ import annotations

import platform
import struct
from collections.abc import Mapping, Sequence

NUMBERS = 1024
"""System calls looked at; greater numbers, as those of x32, go on to the program. Linux 6.12 has less than 550."""
MOST = 4096
"""Instructions of a program (BPF_MAXINSNS)."""
ARCHITECTURES: Mapping[str, Sequence[int]] = {
    "x86_64": (0xC000003E, 0x40000003),
    "aarch64": (0xC00000B7, 0x40000028),
}
"""AUDIT_ARCH_* of a machine's own calls and of its 32-bit ones (include/uapi/linux/audit.h)."""
_NUMBER, _ARCHITECTURE = 0, 4
"""Offsets in struct seccomp_data."""
_LOAD, _JUMP, _RETURN = 0x20, 0x05, 0x06
_EQUAL, _GREATER, _AT_LEAST, _ANY_BIT = 0x15, 0x25, 0x35, 0x45
_ALL = (1 << NUMBERS) - 1

Instruction = tuple[int, int, int, int]
"""(code, jump if true, jump if false, constant): struct sock_filter."""


def by_halves(program: bytes, machine: str | None = None) -> bytes:
    """The program with a search before it; as it is where that would be too long, or for an unknown machine."""
    code = list(struct.iter_unpack("=HBBI", program))
    if code[0][0] != _LOAD:  # it would go on with what the search has loaded
        return program
    made = list(code)
    for architecture in ARCHITECTURES.get(machine or platform.machine(), ()):
        made = [*_search(_answers(code, architecture), architecture, len(made) - len(code)), *made]
    return b"".join(struct.pack("=HBBI", *one) for one in made) if len(made) <= MOST else program


def _search(answers: Mapping[int, int], architecture: int, after: int) -> list[Instruction]:
    """The search for one architecture; `after` other instructions stand between it and the program."""
    tree = _tree(_runs(answers), after)
    return [
        (_LOAD, 0, 0, _ARCHITECTURE), (_EQUAL, 1, 0, architecture), (_JUMP, 0, 0, len(tree) + 1),
        (_LOAD, 0, 0, _NUMBER), *tree,
    ]  # fmt: skip


def _tree(runs: Sequence[tuple[int, int | None]], after: int) -> list[Instruction]:
    if len(runs) == 1:
        answer = runs[0][1]
        return [(_JUMP, 0, 0, after) if answer is None else (_RETURN, 0, 0, answer)]
    middle = len(runs) // 2
    right = _tree(runs[middle:], after)
    left = _tree(runs[:middle], after + len(right))
    # A jump of its own, since a condition's reaches no further than 255.
    return [(_AT_LEAST, 0, 1, runs[middle][0]), (_JUMP, 0, 0, len(left)), *left, *right]


def _runs(answers: Mapping[int, int]) -> list[tuple[int, int | None]]:
    """(first number, answer) of neighbours with one answer; None where the program is to be asked."""
    by_number = {
        number: answer for answer, those in answers.items() for number in range(NUMBERS) if those >> number & 1
    }
    runs: list[tuple[int, int | None]] = []
    for number in range(NUMBERS + 1):
        answer = by_number.get(number)
        if not runs or runs[-1][1] != answer:
            runs.append((number, answer))
    return runs


def _answers(code: Sequence[Instruction], architecture: int) -> dict[int, int]:
    """What the program returns by number alone: for each answer the numbers, as bits.

    All numbers go through the program at once: every condition parts them, and no jump goes back.
    """
    found: dict[int, int] = {}
    reach: list[dict[int | None, int]] = [{} for _ in code]  # the numbers by what is loaded: None is the number itself
    reach[0][0] = _ALL

    def go(to: int, loaded: int | None, numbers: int) -> None:
        if numbers and to < len(code):
            reach[to][loaded] = reach[to].get(loaded, 0) | numbers

    for at, (operation, then, otherwise, constant) in enumerate(code):
        for loaded, numbers in reach[at].items():
            if operation == _LOAD and constant in (_NUMBER, _ARCHITECTURE):
                go(at + 1, None if constant == _NUMBER else architecture, numbers)
            elif operation == _JUMP:
                go(at + 1 + constant, loaded, numbers)
            elif operation == _RETURN:
                found[constant] = found.get(constant, 0) | numbers
            elif operation in (_EQUAL, _GREATER, _AT_LEAST, _ANY_BIT):
                meant = _which(operation, constant) if loaded is None else _ALL * _holds(operation, loaded, constant)
                true = numbers & meant
                go(at + 1 + then, loaded, true)
                go(at + 1 + otherwise, loaded, numbers & ~true)
            # Anything else depends on more than the number: no answer for these.
    return found


def _which(operation: int, constant: int) -> int:
    """The numbers of which a condition holds, as bits."""
    first = min(constant, NUMBERS)
    if operation == _EQUAL:
        return (1 << first) & _ALL
    if operation == _ANY_BIT:
        return sum(1 << number for number in range(NUMBERS) if number & constant)
    return _ALL >> first << first if operation == _AT_LEAST else _ALL >> first + 1 << first + 1


def _holds(operation: int, loaded: int, constant: int) -> bool:
    if operation == _EQUAL:
        return loaded == constant
    if operation == _ANY_BIT:
        return loaded & constant != 0
    return loaded >= constant if operation == _AT_LEAST else loaded > constant
