"""When the runner works. Time is the loop's own, run ahead of the clock."""

from __future__ import annotations

import asyncio
import contextlib
import selectors
from collections.abc import Awaitable, Callable

from nodeagent.proxy.runner import Outcome, Pace, Runner

DONE, LEFT, FAILED = Outcome.DONE, Outcome.LEFT, Outcome.FAILED
PACE = Pace(interval=1, look=10, retry=2, retry_bound=5)


class _Ahead(asyncio.SelectorEventLoop):
    """A loop whose time jumps to the next timer instead of waiting for it."""

    def __init__(self) -> None:
        super().__init__(selectors.SelectSelector())
        self._ahead = 0.0
        select = self._selector.select  # type: ignore[attr-defined]

        def jump(timeout: float | None = None) -> object:
            if timeout:
                self._ahead += timeout
            return select(0)

        self._selector.select = jump  # type: ignore[attr-defined]

    def time(self) -> float:
        return self._ahead


def history(scenario: Callable[[Runner], Awaitable[None]], *outcomes: Outcome) -> list[tuple[int, bool]]:
    """Run a scenario; returns (second, whether something was asked for) of each work. outcomes: of the first ones."""
    found: list[tuple[int, bool]] = []
    left = list(outcomes)

    async def work(changed: bool) -> Outcome:
        found.append((round(asyncio.get_running_loop().time()), changed))
        return left.pop(0) if left else DONE

    async def run() -> None:
        runner = Runner(work, PACE)
        task = asyncio.create_task(runner.run())
        await scenario(runner)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    with asyncio.Runner(loop_factory=_Ahead) as loop:
        loop.run(run())
    return found


def test_a_change_is_worked_on_at_once_and_changes_meanwhile_are_one() -> None:
    async def scenario(runner: Runner) -> None:
        await asyncio.sleep(3)
        for _ in range(5):
            runner.trigger()
            await asyncio.sleep(0.1)
        await asyncio.sleep(2)

    assert history(scenario) == [(3, True), (4, True)]


def test_what_comes_after_nothing_to_work_on_is_not_put_off() -> None:
    async def scenario(runner: Runner) -> None:
        runner.trigger()
        await asyncio.sleep(0.1)
        runner.trigger()
        await asyncio.sleep(0.1)
        runner.trigger()
        await asyncio.sleep(2)

    assert history(scenario, Outcome.EARLY) == [(0, True), (0, True), (1, True)]


def test_without_changes_it_looks_now_and_then() -> None:
    async def scenario(runner: Runner) -> None:
        await asyncio.sleep(25)

    assert history(scenario) == [(10, False), (21, False)]


def test_a_failure_is_tried_again_after_pauses_that_grow_to_a_bound() -> None:
    async def scenario(runner: Runner) -> None:
        runner.trigger()
        await asyncio.sleep(30)

    # Each pause follows the interval: 1 + 4, then 1 + 5 at most; the success goes back to looking.
    found = history(scenario, FAILED, FAILED, FAILED, DONE)
    assert found == [(0, True), (5, True), (11, True), (17, True), (28, False)]


def test_a_suspicion_is_looked_into_at_once_and_puts_off_no_work_that_is_owed() -> None:
    async def scenario(runner: Runner) -> None:
        await asyncio.sleep(3)
        runner.suspect()
        await asyncio.sleep(10)
        runner.trigger()  # at 13: fails, and is owed at 18
        await asyncio.sleep(3)
        runner.suspect()
        await asyncio.sleep(3)

    assert history(scenario, DONE, FAILED) == [(3, False), (13, True), (16, False), (18, True)]


def test_what_a_look_could_not_do_is_owed() -> None:
    async def scenario(runner: Runner) -> None:
        runner.suspect()
        await asyncio.sleep(6)

    assert history(scenario, FAILED) == [(0, False), (5, True)]


def test_what_a_look_left_is_looked_at_again_and_no_pause_grows() -> None:
    async def scenario(runner: Runner) -> None:
        runner.suspect()
        await asyncio.sleep(18)

    # Each pause follows the interval: 1 + 2; then 1 + 10.
    assert history(scenario, LEFT, LEFT, LEFT) == [(second, False) for second in (0, 3, 6, 9)]
