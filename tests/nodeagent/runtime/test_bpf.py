"""A search put before a seccomp program changes none of its answers, and finds most of them itself."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodeagent.runtime.bpf import ARCHITECTURES, MOST, Instruction, by_halves
from tests.support.seccomp import answer

NATIVE, COMPAT = ARCHITECTURES["x86_64"]
ALLOW, DENY, KILL = 0x7FFF0000, 0x00050001, 0
LOAD_NUMBER, LOAD_ARCHITECTURE, LOAD_ARGUMENT = (0x20, 0, 0, 0), (0x20, 0, 0, 4), (0x20, 0, 0, 16)


def assembled(*code: Instruction) -> bytes:
    return b"".join(struct.pack("=HBBI", *one) for one in code)


def one_by_one(allowed: range) -> bytes:
    """Allows a row of numbers, number 1 by its first argument; kills what is not of this architecture."""
    return assembled(
        LOAD_ARCHITECTURE, (0x15, 1, 0, NATIVE), (0x06, 0, 0, KILL),
        LOAD_NUMBER, (0x15, 0, 3, 1), LOAD_ARGUMENT, (0x15, 0, 1, 7), (0x06, 0, 0, ALLOW),
        *(step for number in allowed for step in ((0x15, 0, 1, number), (0x06, 0, 0, ALLOW))),
        (0x06, 0, 0, DENY),
    )  # fmt: skip


def test_every_number_has_its_answer_with_its_arguments() -> None:
    before = one_by_one(range(3, 400, 2))
    after = by_halves(before, "x86_64")
    for architecture in (NATIVE, COMPAT, 0xC00000B7):
        for number in (*range(1100), 0x40000001, 0x40000003, 0xFFFFFFFF):
            for argument in (0, 7):
                said = answer(after, architecture, number, [argument])
                assert said == answer(before, architecture, number, [argument]), (architecture, number, argument)
    assert answer(after, NATIVE, 1, [7]) == ALLOW
    assert answer(after, NATIVE, 1, [8]) == DENY


def test_neighbours_with_one_answer_are_one_leaf_of_the_search() -> None:
    before = one_by_one(range(3, 400))
    added = (len(by_halves(before, "x86_64")) - len(before)) // 8
    # Six leaves of this architecture's numbers, two of the other's, two instructions between two; four to come there.
    assert added == (6 + 2 * 5 + 4) + (2 + 2 * 1 + 4)


def test_a_program_that_would_be_too_long_stays_as_it_is() -> None:
    before = one_by_one(range(3, 1000, 2)) + assembled((0x06, 0, 0, KILL)) * (MOST - 1200)
    assert by_halves(before, "x86_64") == before


@pytest.mark.parametrize("machine", ["x86_64", "aarch64", "riscv64"])
def test_only_known_machines_have_a_search(machine: str) -> None:
    before = one_by_one(range(3, 400))
    assert (by_halves(before, machine) != before) == (machine in ARCHITECTURES)


VALUES = st.sampled_from([0, 1, 2, 3, 64, 255, 256, 511, 1023, 1024, 0x40000000, NATIVE, COMPAT, 0xFFFFFFFF])


@st.composite
def programs(draw: st.DrawFn) -> bytes:
    """Any program that the kernel would take, of the operations that libseccomp uses."""
    length = draw(st.integers(1, 25))
    code: list[Instruction] = []
    for at in range(length):
        reach = st.integers(0, length - at - 1)
        operation = draw(st.sampled_from([0x20, 0x54, 0x05, 0x06, 0x15, 0x25, 0x35, 0x45]))
        if operation == 0x20:
            code.append((operation, 0, 0, draw(st.sampled_from([0, 4, 16, 20]))))
        elif operation == 0x05:
            code.append((operation, 0, 0, draw(reach)))
        elif operation in (0x54, 0x06):
            code.append((operation, 0, 0, draw(VALUES)))
        else:
            code.append((operation, draw(reach), draw(reach), draw(VALUES)))
    return assembled(draw(st.sampled_from([LOAD_ARCHITECTURE, LOAD_NUMBER, code[0]])), *code, (0x06, 0, 0, ALLOW))


@given(programs(), st.sampled_from([NATIVE, COMPAT, 5]), VALUES, st.lists(VALUES, max_size=2))
def test_no_program_answers_otherwise(program: bytes, architecture: int, number: int, arguments: list[int]) -> None:
    found = answer(by_halves(program, "x86_64"), architecture, number, arguments)
    assert found == answer(program, architecture, number, arguments)
