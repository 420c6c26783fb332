"""Every motion can be asked for in both languages, and the sentences that the service writes are among them."""

import random

import pytest

from training.video.prompts import CHINESE, ENGLISH, PromptWriter, motion_phrase, service_sentence
from training.video.scenes import MOTIONS, SPEEDS
from vl_service.embedded.text.motions import Motion


def test_every_motion_that_is_drawn_can_be_asked_for_in_both_languages() -> None:
    assert set(ENGLISH) == set(CHINESE) == set(MOTIONS)
    for motion in MOTIONS:
        for speed in SPEEDS:
            assert motion_phrase(motion, speed, "the cat", random.Random(0))
            assert not motion_phrase(motion, speed, "猫", random.Random(0), "zh").isascii()


@pytest.mark.parametrize(("ours", "theirs"), [("zoom_in", "zoom_in"), ("hold", "hold_still"), ("sway", "sways")])
def test_training_says_a_motion_as_the_vision_language_service_does(ours: str, theirs: str) -> None:
    slow, quick = Motion(name=theirs, speed="slow"), Motion(name=theirs, speed="quick")
    assert service_sentence(ours, "slow", "the cat", "en") == slow.sentence("en", "the cat")
    assert service_sentence(ours, "fast", "猫", "zh") == quick.sentence("zh", "猫")


def test_prompts_repeat_for_a_seed_and_vary_within_it() -> None:
    first, second = (PromptWriter(["cat", "dog"], seed=7) for _ in range(2))
    some = [first.photo(("zoom_in",), "slow", None) for _ in range(50)]
    assert some == [second.photo(("zoom_in",), "slow", None) for _ in range(50)]
    assert len(set(some)) > 30


def test_a_pair_of_motions_is_asked_for_in_one_prompt() -> None:
    writer = PromptWriter(["cat"], seed=0)
    prompts = [writer.photo(("zoom_in", "rain"), "normal", None).lower() for _ in range(200)]
    assert all("rain" in prompt or "雨" in prompt for prompt in prompts)
