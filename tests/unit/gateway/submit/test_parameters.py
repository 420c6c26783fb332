"""What is asked, against what the model can do."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.jobs import EffectiveParameters, GenerateOptions
from contracts.refusal import ParameterRefused
from contracts.sizes import nearest_size
from gateway.submit.accept import resolve
from tests.unit.gateway.model_services import VIDEO_MODEL, VL_MODEL

PICTURE = (320, 240)


def resolved(picture: tuple[int, int] | None = PICTURE, **asked: Any) -> EffectiveParameters:
    return resolve(GenerateOptions.model_validate(asked), [VIDEO_MODEL], [VL_MODEL], picture)


def test_nothing_asked_means_the_models_own_defaults_and_a_drawn_seed() -> None:
    first, second = resolved(), resolved()
    assert first.seed != second.seed
    assert first.model_copy(update={"seed": 0}) == EffectiveParameters(
        model="tiny-wan", revision="r1", engine="torch-cpu", profile="plain", width=256, height=192, num_frames=25,
        fps=16, steps=4, sampler="euler", guidance_scale=1.0, seed=0, language="en",
    )


@pytest.mark.parametrize(
    ("asked", "code", "named"),
    [
        ({"model": "sora"}, "unknown_model", "tiny-wan"),
        ({"size": "17x192"}, "size_not_multiple", "64x192"),
        ({"width": 17, "height": 192}, "size_not_multiple", "64x192"),
        ({"size": "250x190"}, "size_not_multiple", "256x192"),
        ({"size": "48x192"}, "size_too_small", "64x"),
        ({"size": "1024x768"}, "size_too_large", "288x224"),
        ({"size": "256x192", "width": 256, "height": 192}, "size_given_twice", "width"),
        ({"width": 256}, "size_incomplete", "height"),
        ({"num_frames": 10_000}, "num_frames_not_usable", "81"),
        ({"num_frames": 24}, "num_frames_not_usable", "21 or 25"),
        ({"num_frames": 1}, "num_frames_not_usable", "5"),
        ({"seconds": 60}, "seconds_out_of_range", "5.06"),
        ({"seconds": 1, "num_frames": 25}, "duration_given_twice", "seconds"),
        ({"fps": 60}, "fps_out_of_range", "8 to 30"),
        ({"steps": 51}, "steps_out_of_range", "1 to 50"),
        ({"steps": 5, "sampler": "ode"}, "steps_out_of_range", "1 to 4"),
        ({"guidance_scale": 11}, "guidance_out_of_range", "1 to 10"),
        ({"guidance_scale": 2, "sampler": "sde"}, "guidance_not_supported", "sde"),
        ({"profile": "gothic"}, "unknown_profile", "plain, wan"),
    ],
)
def test_what_the_model_cannot_do_is_refused_with_what_it_can(asked: dict[str, Any], code: str, named: str) -> None:
    with pytest.raises(ParameterRefused) as refused:
        resolved(**asked)
    assert refused.value.code == code
    assert named in refused.value.detail


def test_a_sampler_the_model_lacks_and_a_task_it_lacks_are_refused() -> None:
    model = VIDEO_MODEL.model_copy(update={"samplers": ["euler"], "tasks": ["i2v"]})
    with pytest.raises(ParameterRefused, match="euler"):
        resolve(GenerateOptions(sampler="unipc"), [model], [], PICTURE)
    with pytest.raises(ParameterRefused, match="send one"):
        resolve(GenerateOptions(prompt="x"), [model], [], None)


@pytest.mark.parametrize(("seconds", "frames"), [(1, 17), (1.5, 25), (2, 33), (0.3, 5), (5, 81)])
def test_seconds_become_the_nearest_4k_plus_1_frames(seconds: float, frames: int) -> None:
    assert resolved(seconds=seconds).num_frames == frames


def test_rcm_samplers_default_to_at_most_four_steps_and_no_guidance() -> None:
    slow = VIDEO_MODEL.model_copy(update={
        "steps": VIDEO_MODEL.steps.model_copy(update={"default": 30}),
        "guidance_scale": VIDEO_MODEL.guidance_scale.model_copy(update={"default": 5.0}),
    })
    got = resolve(GenerateOptions(sampler="ode"), [slow], [], PICTURE)
    assert (got.steps, got.guidance_scale) == (4, 1.0)
    plain = resolve(GenerateOptions(), [slow], [], PICTURE)
    assert (plain.steps, plain.guidance_scale) == (30, 5.0)


def test_the_second_experts_guidance_is_that_asked_for_or_the_firsts_or_the_models_own() -> None:
    scale = VIDEO_MODEL.guidance_scale
    both = VIDEO_MODEL.model_copy(update={
        "guidance_scale": scale.model_copy(update={"default": 4.0}),
        "guidance_scale_2": scale.model_copy(update={"default": 3.0}),
    })
    for asked, expected in (
        ({}, (4.0, 3.0)), ({"guidance_scale": 2.0}, (2.0, 2.0)), ({"guidance_scale_2": 5.0}, (4.0, 5.0)),
        ({"sampler": "sde"}, (1.0, 1.0)),
    ):
        got = resolve(GenerateOptions.model_validate(asked), [both], [], PICTURE)
        assert (got.guidance_scale, got.guidance_scale_2) == expected, asked
    with pytest.raises(ParameterRefused, match="no second expert"):
        resolved(guidance_scale_2=2.0)


def test_any_number_of_frames_is_taken_where_the_model_takes_any() -> None:
    free = VIDEO_MODEL.model_copy(update={"num_frames": VIDEO_MODEL.num_frames.model_copy(update={"step": 1})})
    assert resolve(GenerateOptions(num_frames=24), [free], [], PICTURE).num_frames == 24
    assert resolve(GenerateOptions(seconds=1.26), [free], [], PICTURE).num_frames == 20
    with pytest.raises(ParameterRefused, match=r"takes frames from 5 to 81, such as 25\. Nearest to 90: 81"):
        resolve(GenerateOptions(num_frames=90), [free], [], PICTURE)


@given(width=st.integers(1, 20_000), height=st.integers(1, 20_000))
def test_the_nearest_size_that_is_named_is_always_one_that_is_taken(width: int, height: int) -> None:
    near = nearest_size(width, height, VIDEO_MODEL)
    taken = resolved(size="{}x{}".format(*near))
    assert (taken.width, taken.height) == near


@given(size=st.tuples(st.integers(4, 16), st.integers(4, 16)).map(lambda s: (s[0] * 16, s[1] * 16)))
def test_a_size_that_is_taken_is_its_own_nearest(size: tuple[int, int]) -> None:
    assert nearest_size(*size, VIDEO_MODEL) == size


BUILT = VIDEO_MODEL.model_copy(update={
    "engine": "tensorrt-cuda", "engine_reason": "forced", "sizes": ["256x192", "192x256"],
    "clips": ["256x192x25", "192x256x13", "192x256x9"],
})


def with_engines(**asked: Any) -> EffectiveParameters:
    return resolve(GenerateOptions.model_validate(asked), [BUILT], [VL_MODEL], PICTURE)


def test_where_an_engine_is_forced_what_is_not_asked_for_is_what_was_built() -> None:
    assert (with_engines().width, with_engines().num_frames) == (256, 25)
    assert with_engines(size="192x256").num_frames == 13
    assert with_engines(size="192x256", num_frames=9).num_frames == 9
    assert (with_engines().engine, with_engines().engine_reason) == ("tensorrt-cuda", "forced")


@pytest.mark.parametrize(
    ("asked", "field"),
    [
        ({"size": "192x256", "num_frames": 25}, "num_frames"), ({"size": "192x192"}, "size"),
        ({"seconds": 0.5}, "num_frames"),
    ],
)
def test_a_clip_without_a_forced_engine_is_refused_with_those_there_are(asked: dict[str, Any], field: str) -> None:
    with pytest.raises(ParameterRefused, match=r"it renders 256x192x25, 192x256x13") as caught:
        with_engines(**asked)
    assert (caught.value.code, caught.value.field) == ("clip_not_built", field)
