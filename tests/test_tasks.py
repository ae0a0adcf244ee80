from __future__ import annotations

import asyncio

import pytest

from fileproxy.tasks import Tasks

pytestmark = pytest.mark.loops("asyncio", "uvloop")


class Failures(list[tuple[str, BaseException]]):
    def __call__(self, name: str, error: BaseException) -> None:
        self.append((name, error))


async def test_a_task_has_a_name_and_a_result() -> None:
    tasks = Tasks(Failures())

    async def work() -> str:
        task = asyncio.current_task()
        assert task is not None
        return task.get_name()

    assert await tasks.start(work(), "sweep") == "sweep"
    await asyncio.sleep(0)  # its callback
    assert len(tasks) == 0


async def test_a_failure_is_told_once_with_the_name() -> None:
    failures = Failures()
    tasks = Tasks(failures)
    error = ValueError("broken")

    async def work() -> None:
        raise error

    task = tasks.start(work(), "sweep")
    await asyncio.wait([task])
    await tasks.close()
    assert failures == [("sweep", error)]


async def test_closing_cancels_what_runs_and_waits_for_its_end() -> None:
    failures = Failures()
    tasks = Tasks(failures)
    steps: list[str] = []

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            steps.append("cancelled")
            await asyncio.sleep(0)
            steps.append("ended")

    running = [tasks.start(work(), f"work-{number}") for number in range(2)]
    await asyncio.sleep(0)
    assert len(tasks) == 2
    await tasks.close()
    assert steps == ["cancelled"] * 2 + ["ended"] * 2
    assert all(task.cancelled() for task in running)
    assert (len(tasks), failures) == (0, [])


async def test_a_task_that_fails_while_it_is_cancelled_is_told() -> None:
    failures = Failures()
    tasks = Tasks(failures)

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            raise ValueError("in the end")

    tasks.start(work(), "sweep")
    await asyncio.sleep(0)
    await tasks.close()
    await asyncio.sleep(0)
    assert [name for name, _ in failures] == ["sweep"]


async def test_closing_without_tasks_is_nothing() -> None:
    await Tasks(Failures()).close()


async def test_closing_insists_where_a_cancellation_is_swallowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fileproxy.tasks.CANCEL_AGAIN_S", 0.01)
    swallowed = 0

    async def deaf() -> None:
        nonlocal swallowed
        while swallowed < 2:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                swallowed += 1
        await asyncio.Event().wait()

    tasks = Tasks(lambda name, error: None)
    tasks.start(deaf(), "deaf")
    await asyncio.sleep(0)
    async with asyncio.timeout(10):
        await tasks.close()
    assert (swallowed, len(tasks)) == (2, 0)
