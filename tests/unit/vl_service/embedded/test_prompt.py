"""The prompt of a decoder that has learnt its texts: in every profile and language, within its limits, as asked."""

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.describe import Language
from tests.unit.vl_service.embedded.scripted import SCENES, Scripted, answers_of, shipped_words
from tests.unit.vl_service.prompts.test_polish import USER_WORDS
from tests.unit.vl_service.scenes import prompt_task
from vl_service.embedded.text.motions import motion_names, read_request
from vl_service.embedded.text.prompt import write_prompt
from vl_service.prompts.polish import in_language, length
from vl_service.prompts.profiles import profiles, read_library
from vl_service.worker.describe import _polish

LANGUAGES: tuple[Language, ...] = ("en", "zh")
OWN_WORDS = (
    "we soar over the rooftops", "a drone shot along the coast", "the horse gallops off",
    "the candle gutters and smokes",
    "petals unfurl", "a wave crashes on the shore", "the crowd disperses", "she kneels and waves", "he sits down",
    "time-lapse of the clouds", "parallax effect on the mountains", "the dog fetches and catches the stick",
    "the ink dissolves in the water", "a bird takes flight", "the leaves rustle", "the sun sets over the bay",
    "the lens orbits the statue", "crane up over the trees", "rack focus to the door", "slow motion of the splash",
    "the cat stays in place", "she pauses at the door", "the lake lies in complete stillness", "shot from a tripod",
    "nothing stirs in the forest", "the guard remains at rest", "the train comes to rest",
    "马群奔驰而过", "她转身离开", "花朵绽放", "航拍海岸线", "云层翻涌的延时摄影", "老人鞠躬",
    "火焰升腾燃烧", "雪花漫天飘舞", "环绕雕像", "猫停下脚步", "她静静地站着", "森林纹丝不动", "墨水在水中散开",
    "小狗扑向皮球",
)
EVERYTHING = list(itertools.product(SCENES, profiles(), LANGUAGES))


def camera_moves(text: str) -> set[str]:
    return {motion.name for motion in read_request(text).motions if motion.kind == "camera"}


def finished(scene: str | None, **task: object) -> str:
    resolved = prompt_task(**task)  # pyright: ignore[reportArgumentType]
    answers = None if scene is None else answers_of(Scripted(scene))
    return _polish(resolved, write_prompt(answers, resolved, shipped_words().knows))


def test_every_profile_gets_its_language_its_length_and_no_camera_move_that_it_does_not_invent() -> None:
    for scene, profile, language in EVERYTHING:
        style = profiles()[profile]
        written = style.language_for(language)
        text = finished(scene, profile=profile, language=language)
        assert in_language(text, written), text
        assert 3 < length(text, written) <= (style.max_words if written == "en" else style.max_chars), text
        assert text[-1] in ".。"
        assert ".." not in text
        assert "  " not in text
        moves = camera_moves(text) - {"hold_still"}
        assert len(moves) <= style.invents_camera, text


def test_the_embedded_profile_says_a_subject_and_one_trained_motion() -> None:
    """Whatever the decoder says moves, the sentence is one of the motion vocabulary."""
    for scene, language, seed in itertools.product(SCENES, LANGUAGES, range(4)):
        text = finished(scene, language=language, seed=seed)
        motions = read_request(text).motions
        assert len(motions) == 1, text
        assert motions[0].name in motion_names()
        assert text.count("." if language == "en" else "。") == 2
        assert motions[0].kind == "object" or motions[0].sentence(language, "") in text


ASKED = ["zoom in", "slow zoom out", "pan left", "tilt up", "hold still", "quickly rotate counterclockwise", "handheld",
         "镜头拉远", "镜头缓缓向左平移", "画面静止不动"]


def test_the_motion_asked_for_is_the_only_camera_move() -> None:
    for asked, profile, language, scene in itertools.product(ASKED, profiles(), LANGUAGES, ("cat", "ship at sea")):
        wanted = read_request(asked).motions[0]
        text = finished(scene, user_prompt=asked, profile=profile, language=language)
        assert camera_moves(text) == {wanted.name}, text
        found = next(motion for motion in read_request(text).motions if motion.name == wanted.name)
        assert found.speed == wanted.speed or wanted.name in ("hold_still", "handheld"), text


def test_a_motion_that_was_ruled_out_is_not_written() -> None:
    for seed in range(8):
        assert "zoom_in" not in camera_moves(finished("cat", user_prompt="do not zoom in", seed=seed))
        moves = camera_moves(finished("cat", user_prompt="a cat on a red sofa, don’t zoom", seed=seed))
        assert moves
        assert not moves & {"zoom_in", "zoom_out"}
    text = finished("cat", user_prompt="no zoom, just let the whiskers twitch")
    assert "just let the whiskers twitch" in text
    assert not camera_moves(text)


def test_the_users_words_stay_to_the_letter_in_every_script_profile_and_language() -> None:
    """Unless a sentence of the vocabulary says all that they say."""
    for words, profile, language in itertools.product(USER_WORDS, profiles(), LANGUAGES):
        for scene in ("cat", None):
            text = finished(scene, user_prompt=f" {words}\n", profile=profile, language=language)
            assert words in text or read_request(words).only_motion, (words, text)


def test_what_nobody_can_read_gets_no_camera_move_that_might_be_against_it() -> None:
    for words in ("медленно приближается камера, кот", "ねこがとぶ", "la cámara se acerca lentamente a la mesa"):
        for profile in profiles():
            assert camera_moves(finished("cat", user_prompt=words, profile=profile)) == set()
    assert camera_moves(finished("cat", user_prompt="zoom in, 猫が跳ぶ")) == {"zoom_in"}


QUOTABLE = st.characters(
    codec="utf-8", categories=("L", "M", "N", "P", "S"), exclude_characters='"“”„«»「」『』《》‘’\'')


@given(words=st.text(QUOTABLE, min_size=1, max_size=40), quoted=st.booleans(),
       profile=st.sampled_from(sorted(profiles())), language=st.sampled_from(LANGUAGES))
@settings(max_examples=60, deadline=None)
def test_any_words_survive(words: str, quoted: bool, profile: str, language: Language) -> None:
    own = f'a banner that reads "{words}" waves' if quoted else f"{words} ☂"
    assert own in finished("coffee", user_prompt=own, profile=profile, language=language)


def test_words_that_tell_of_motion_or_stillness_get_no_camera_move_beside_their_own() -> None:
    for words, profile, scene in itertools.product(OWN_WORDS, profiles(), ("cat", None)):
        moves = camera_moves(finished(scene, user_prompt=words, profile=profile))
        assert moves <= camera_moves(words) | {"hold_still"}, words
    assert finished("cat", user_prompt="the cat turns its head") == "the cat turns its head."


def test_a_camera_that_moves_in_the_users_words_is_not_held_still() -> None:
    for words, profile in itertools.product(
            ("we soar over the rooftops", "a drone shot along the coast", "航拍海岸线"), profiles()):
        assert "hold_still" not in camera_moves(finished("ship at sea", user_prompt=words, profile=profile))


def test_a_thing_that_moves_in_the_users_words_is_not_the_subject() -> None:
    words = "white snowflakes fall softly all around the garden"
    assert finished("cat", user_prompt=words) == f"{words}."
    assert "falls" not in finished("cat", user_prompt="雪花飘落")


def test_a_motion_said_in_one_language_is_not_said_again_in_the_other() -> None:
    assert finished("cat", user_prompt="小猫眨眼，镜头缓缓推近") == "小猫眨眼，镜头缓缓推近。"


def test_asking_for_any_motion_or_for_none_gets_a_fitting_one() -> None:
    for words in ("make it move", "animate this", "please bring this photo to life, it should move", "让画面动起来",
                  "Golden morning in a quiet cafe, crumbs on the table."):
        text = finished("coffee", user_prompt=words)
        assert len(read_request(text).motions) == 1, text


def test_words_alone_make_a_prompt_without_a_picture() -> None:
    for profile, language in itertools.product(profiles(), LANGUAGES):
        text = finished(None, user_prompt="a red balloon over the sea", profile=profile, language=language)
        assert "red balloon over the sea" in text
    assert finished(None, user_prompt="slow zoom out") == "The camera slowly zooms out."
    moves = {frozenset(camera_moves(finished(None, user_prompt="a red balloon", seed=seed))) for seed in range(20)}
    assert len(moves) > 2
    assert all(len(move) == 1 for move in moves)


def test_an_instruction_sets_mood_speed_or_motion() -> None:
    assert finished("cat", instruction="slow zoom out").endswith("The camera slowly zooms out.")
    assert read_request(finished("cat", instruction="fast and energetic")).motions[0].speed == "quick"
    assert "dramatic" in finished("cat", instruction="make it dramatic", profile="wan2.1")


def test_a_template_is_said_and_gives_way_to_a_motion_of_the_users() -> None:
    for scene, profile, language in itertools.product(SCENES, profiles(), LANGUAGES):
        for name, template in read_library().templates.items():
            words = template.words[profiles()[profile].language_for(language)]
            text = finished(scene, template=words, profile=profile, language=language)
            moves = camera_moves(words) - {"hold_still"}
            assert moves == camera_moves(text) if moves else words in text, (name, profile, text)
    assert finished("cat", template="It flips", user_prompt="A cat in a hat.").endswith("A cat in a hat. It flips.")
    push = read_library().templates["slow push in"].words["en"]
    assert finished("cat", template=push, user_prompt="slow zoom out").endswith("The camera slowly zooms out.")
    assert "zoom_in" not in camera_moves(finished("cat", template=push, user_prompt="a cat, do not zoom in"))


def test_the_seed_draws_the_motion_and_nothing_else() -> None:
    texts = [finished("cat", seed=seed) for seed in range(6)]
    assert texts == [finished("cat", seed=seed) for seed in range(6)]
    assert len(set(texts)) > 1
    assert {text.partition(". ")[0] for text in texts} == {"A photo of a tabby cat"}


def test_the_thing_that_was_seen_moves_as_asked() -> None:
    assert finished("three cats", user_prompt="spin") == (
        "A photo of three tabby cats. Each of the three tabby cats spins.")
    assert finished("cat", user_prompt="旋转", language="zh") == "一只虎斑猫的照片。虎斑猫旋转。"
    assert finished("unsure", user_prompt="spin").endswith("The subject spins.")


def test_an_unsure_scene_names_no_subject() -> None:
    for scene, profile, language in itertools.product(("unsure", "some kind"), profiles(), LANGUAGES):
        text = finished(scene, profile=profile, language=language)
        assert not any(name in text for name in ("cat", "猫")), text
