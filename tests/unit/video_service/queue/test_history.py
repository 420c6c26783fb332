"""Laws of following one render."""

import asyncio

from contracts.videos import RenderState, RenderStatus
from video_service.queue.render import MAX_KEPT_EVENTS, StatusHistory


def status(state: RenderState, step: int = 0) -> RenderStatus:
    return RenderStatus(id="r", state=state, step=step)


async def collect(history: StatusHistory, after: int | None = None) -> list[tuple[int, RenderStatus]]:
    return [event async for event in history.follow(after)]


async def test_a_follower_sees_the_present_then_every_change_in_order_and_the_end():
    history = StatusHistory(status("queued"))
    following = asyncio.create_task(collect(history))
    await asyncio.sleep(0)
    changes = [status("running", step) for step in range(5)] + [status("completed", 5)]
    for change in changes:
        history.append(change)
        await asyncio.sleep(0)
    events = await asyncio.wait_for(following, 1)
    assert [seen for _, seen in events] == [status("queued"), *changes]
    ids = [event_id for event_id, _ in events]
    assert ids == sorted(set(ids))


async def test_a_burst_between_two_reads_loses_nothing():
    history = StatusHistory(status("queued"))
    events = history.follow()
    assert (await anext(events))[1].state == "queued"
    for step in range(10):
        history.append(status("running", step))
    history.append(status("failed"))
    assert [seen.step async for _, seen in events] == [*range(10), 0]


async def test_a_follower_that_comes_back_gets_what_it_missed_and_nothing_twice():
    history = StatusHistory(status("queued"))
    for step in range(4):
        history.append(status("running", step))
    history.append(status("completed"))
    everything = await collect(history, after=0)
    last_seen = everything[1][0]
    assert await collect(history, after=last_seen) == everything[2:]


async def test_an_id_from_the_future_is_answered_with_the_present():
    history = StatusHistory(status("completed"))
    assert [seen.state for _, seen in await collect(history, after=2**60)] == ["completed"]


async def test_what_is_kept_is_bounded():
    history = StatusHistory(status("queued"))
    for step in range(2 * MAX_KEPT_EVENTS):
        history.append(status("running", step))
    history.append(status("completed"))
    assert len(await collect(history, after=0)) == MAX_KEPT_EVENTS


async def test_an_equal_status_is_no_change():
    history = StatusHistory(status("running", 1))
    history.append(status("running", 1))
    history.append(status("completed"))
    assert len(await collect(history, after=0)) == 2


async def test_closing_ends_every_follower():
    history = StatusHistory(status("queued"))
    following = asyncio.create_task(collect(history))
    await asyncio.sleep(0)
    history.close()
    assert len(await asyncio.wait_for(following, 1)) == 1
    assert len(await asyncio.wait_for(collect(history), 1)) == 1


async def test_only_the_latest_status_carries_a_picture() -> None:
    history = StatusHistory(status("running", 1))
    for step in (2, 3):
        history.append(status("running", step).model_copy(update={"preview": f"jpeg {step}"}))
    assert history.latest.preview == "jpeg 3"
    history.append(status("completed"))
    assert [one.preview for _, one in await collect(history, after=0)] == [None] * 4
