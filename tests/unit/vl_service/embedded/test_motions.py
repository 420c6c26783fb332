"""The motion vocabulary: what it says it also reads, and what people write is read as they mean it."""

from typing import get_args

from contracts.describe import Language
from vl_service.embedded.text.motions import Motion, Speed, motion_names, read_request
from vl_service.prompts.quotes import quoted_parts

FIXED_SPEED = {"hold_still", "handheld"}
ALL = [(Motion(name=name, speed=speed), language)
       for name in motion_names() for speed in get_args(Speed) for language in get_args(Language)
       if speed == "normal" or name not in FIXED_SPEED]


def test_every_canonical_sentence_is_read_back_as_the_motion_it_says() -> None:
    for motion, language in ALL:
        sentence = motion.sentence(language, "虎斑猫" if language == "zh" else "the tabby cat")
        found = read_request(sentence).motions
        assert [one.name for one in found] == [motion.name], sentence
        assert motion.name in FIXED_SPEED or found[0].speed == motion.speed, sentence


WRITTEN = (
    ("slow zoom out", [("zoom_out", "slow")]), ("zoom in", [("zoom_in", "normal")]),
    ("pan left", [("pan_left", "normal")]), ("pan right", [("pan_right", "normal")]),
    ("pan up", [("tilt_up", "normal")]), ("pan down", [("tilt_down", "normal")]),
    ("rotate", [("rotate_clockwise", "normal")]), ("hold still", [("hold_still", "normal")]),
    ("Slowly rotate counter-clockwise", [("rotate_counterclockwise", "slow")]),
    ("no camera movement", [("hold_still", "normal")]), ("static shot", [("hold_still", "normal")]),
    ("the camera moves closer, quickly", [("zoom_in", "normal")]), ("quick tilt up", [("tilt_up", "quick")]),
    ("the camera pans slowly to the left", [("pan_left", "slow")]), ("handheld camera", [("handheld", "normal")]),
    ("make it bounce", [("bounces", "normal")]), ("the boat drifts gently to the right", [("drifts_right", "slow")]),
    ("the leaves are falling", [("falls", "normal")]), ("the water ripples", [("ripples", "normal")]),
    ("make the boat drift left and zoom in", [("drifts_left", "normal"), ("zoom_in", "normal")]),
    ("show me more of the room", [("zoom_out", "normal")]), ("slowly step back", [("zoom_out", "slow")]),
    ("a closer look at the eyes", [("zoom_in", "normal")]), ("enlarge the flower", [("zoom_in", "normal")]),
    ("Please look to the left", [("pan_left", "normal")]), ("a slow rightward slide", [("pan_right", "slow")]),
    ("raise the lens", [("tilt_up", "normal")]), ("lower the view quickly", [("tilt_down", "quick")]),
    ("leave it just as it is", [("hold_still", "normal")]), ("请看左边", [("pan_left", "normal")]),
    ("镜头缓缓推近", [("zoom_in", "slow")]), ("镜头拉远", [("zoom_out", "normal")]),
    ("镜头向左平移", [("pan_left", "normal")]),
    ("画面快速顺时针旋转", [("rotate_clockwise", "quick")]), ("让它缓缓向左移动", [("drifts_left", "slow")]),
    ("镜头固定不动", [("hold_still", "normal")]), ("水面泛起涟漪", [("ripples", "normal")]),
)


def test_what_people_write_is_read_as_they_mean_it() -> None:
    for words, expected in WRITTEN:
        assert [(motion.name, motion.speed) for motion in read_request(words).motions] == expected, words


DESCRIPTIONS = (
    "a cat on a sofa, golden light", "a wide street, a man on the right",
    "a still life with fruit", "autumn in the fall colours", "rocks on a beach",
    "an open book on a desk", "a stop sign in the snow", "a rock, a leaf and a rose", "a race car",
    "green land, a close friend", "a reading lamp",
    "一只猫坐在沙发上", "动物的照片", "机场的飞机", "走廊里的转椅", "玩具熊", "",
)


def test_words_that_only_describe_ask_for_no_motion() -> None:
    for words in DESCRIPTIONS:
        request = read_request(words)
        assert (request.motions, request.says_motion) == ((), False), words


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


def test_any_word_of_motion_or_of_stillness_is_noticed() -> None:
    assert [words for words in OWN_WORDS if not read_request(words).says_motion] == []


def test_motion_in_words_of_its_own_is_noticed() -> None:
    for words in (
        "the cat turns its head", "the cat looks left", "let it shrink into the distance", "she smiles",
        "一只猫在路上走",
    ):
        request = read_request(words)
        assert request.says_motion
        assert not request.motions


def test_a_motion_ruled_out_is_not_asked_for() -> None:
    assert read_request("do not zoom in").refused == {"zoom_in", "zoom_out"}
    assert read_request("do not zoom in, zoom out").refused == {"zoom_in"}
    assert read_request("don't zoom in, pan right").motions == (Motion(name="pan_right"),)
    assert read_request("不要推近").refused == {"zoom_in", "zoom_out"}


def test_what_stands_in_quotation_marks_is_not_a_request() -> None:
    request = read_request('A sign says "zoom in" and “pan left”')
    assert request.motions == ()
    assert quoted_parts('A sign says "zoom in" and “pan left”') == ['"zoom in"', "“pan left”"]


def test_only_motion_is_told_from_motion_with_content() -> None:
    assert read_request("please make the camera slowly zoom in").only_motion
    assert not read_request("the cat and the camera zooms in").only_motion
    assert read_request("请让镜头缓缓推近").only_motion
    assert not read_request("猫咪望向窗外，镜头推近").only_motion
    assert read_request("don’t zoom!").only_motion


CONTENT = (
    "кот", "ねこ", "قطة", "고양이", "חתול", "बिल्ली", "แมว", "γάτα", "🐈", "7", "é", "!!!", "zoom in 🐈",
    "камера zoom in", "zoom in, 猫が跳ぶ",
    "the camera pans left: שלום",
)


def test_what_is_not_recognised_is_content_in_every_script() -> None:
    assert [words for words in CONTENT if read_request(words).only_motion] == []
