"""Laws of progress, time to the end, and when to try again."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.videos import RenderResult, RenderStage
from video_service.queue.measures import Clock, Pace, Work, retry_after_s

WORK = Work(model="m", voxels=1000, passes=10)


def result(denoise_s: float, total_s: float) -> RenderResult:
    return RenderResult(
        width=64, height=64, num_frames=9, fps=16, steps=10, sampler="euler", guidance_scale=1.0, seed=1, model="m",
        revision="r", engine="e", dtype="float32", num_bytes=1, sha256="0",
        timings={"denoise": denoise_s, "total": total_s},
    )


def test_before_a_step_was_measured_nothing_is_claimed():
    clock = Clock(work=WORK, started_s=0.0)
    clock.advance("text", 1, 1, 0.5)
    clock.advance("denoise", 0, 10, 1.0)
    assert clock.remaining_s(Pace(), 1.0) is None


@pytest.mark.parametrize("announces_its_start", [True, False])
def test_the_time_to_the_end_follows_from_measured_steps(announces_its_start: bool):
    clock = Clock(work=WORK, started_s=0.0)
    clock.advance("condition", 1, 1, 1.0)
    if announces_its_start:
        clock.advance("denoise", 0, 10, 1.0)
    clock.advance("denoise", 1, 10, 3.0)
    clock.advance("denoise", 2, 10, 5.0)
    assert clock.remaining_s(Pace(), 5.0) == pytest.approx(16.0)
    assert clock.remaining_s(Pace(), 6.0) == pytest.approx(15.0)


def test_what_was_learnt_covers_the_stages_that_are_yet_to_come():
    pace = Pace()
    pace.learn(WORK, result(denoise_s=20.0, total_s=25.0))
    assert pace.total_s(WORK) == pytest.approx(25.0)
    assert pace.total_s(Work(model="m", voxels=2000, passes=5)) == pytest.approx(30.0)
    clock = Clock(work=WORK, started_s=0.0)
    assert clock.remaining_s(pace, 0.0) == pytest.approx(25.0)
    clock.advance("denoise", 0, 10, 0.0)
    clock.advance("denoise", 10, 10, 20.0)
    assert clock.remaining_s(pace, 20.0) == pytest.approx(5.0)
    clock.advance("decode", 0, 9, 20.0)
    clock.advance("decode", 3, 9, 22.0)
    assert clock.remaining_s(pace, 22.0) == pytest.approx(4.0)


reports = st.lists(
    st.tuples(st.sampled_from(["text", "condition", "denoise", "decode", "write"]), st.integers(0, 8)), max_size=40
)


@given(reports)
def test_progress_never_goes_back_and_ends_below_one(sequence: list[tuple[RenderStage, int]]):
    clock, before = Clock(work=WORK, started_s=0.0), 0.0
    for index, (stage, done) in enumerate(sequence):
        clock.advance(stage, done, 8, float(index))
        assert before <= clock.progress < 1.0
        before = clock.progress
        remaining_s = clock.remaining_s(Pace(), float(index))
        assert remaining_s is None or remaining_s >= 0


def test_a_full_queue_is_told_when_the_running_render_ends():
    pace = Pace()
    clock = Clock(work=WORK, started_s=0.0)
    assert retry_after_s(clock, pace, 7.2) == 8  # nothing measured: as long again
    clock.advance("denoise", 0, 10, 8.0)
    clock.advance("denoise", 1, 10, 10.0)
    assert retry_after_s(clock, pace, 10.0) == 18
    assert retry_after_s(clock, pace, 1000.0) == 1
    assert retry_after_s(None, pace, 0.0) == 1


def measured(pace: Pace, clips: int, denoise_s: float) -> None:
    pace.learn(WORK, result(denoise_s, denoise_s).model_copy(update={"batch": clips}))


def test_as_many_go_as_one_as_measured_steps_say_and_none_before_one_was_measured_alone() -> None:
    pace = Pace()
    assert pace.batch_of(WORK, 4) == 1
    measured(pace, 1, 10.0)
    assert [pace.batch_of(WORK, most) for most in (1, 2, 4)] == [1, 2, 4], "what was never tried is tried"
    measured(pace, 4, 39.0)
    assert pace.batch_of(WORK, 4) == 3, "a fortieth is not worth the wait"
    measured(pace, 3, 15.0)
    assert pace.batch_of(WORK, 4) == 3
    pace.avoid(WORK, 3)
    assert pace.batch_of(WORK, 4) == 2
    measured(pace, 2, 21.0)
    assert pace.batch_of(WORK, 4) == 1


def test_a_batch_says_nothing_of_how_long_one_takes() -> None:
    pace = Pace()
    measured(pace, 1, 10.0)
    alone_s = pace.total_s(WORK)
    measured(pace, 4, 16.0)
    assert pace.total_s(WORK) == alone_s
