"""Laws of what every cache bounded in bytes stands on."""

from hypothesis import given
from hypothesis import strategies as st

from web.lru import LeastRecentFirst

_CALLS = st.lists(st.tuples(st.sampled_from("abcd"), st.integers(0, 9)), max_size=20)


@given(calls=_CALLS, max_bytes=st.integers(0, 20))
def test_what_was_used_last_is_kept_within_its_bytes(calls: list[tuple[str, int]], max_bytes: int) -> None:
    """What is kept is always the end of the order of use, and one more than it would not have fitted."""
    kept, model = LeastRecentFirst[str, str](), dict[str, int]()
    for key, num_bytes in calls:
        if (kept.use(key) is not None) != (key in model):
            raise AssertionError(f"{key} is kept, or is not")
        model[key] = model.pop(key, num_bytes)
        if key not in kept:
            kept.put(key, key * 2, num_bytes)
        kept.drop_to(max_bytes)
        while sum(model.values()) > max_bytes:
            del model[next(iter(model))]
        assert list(kept) == list(model)
        assert kept.num_bytes == sum(model.values())


def test_what_is_put_again_counts_once_and_what_is_dropped_no_more() -> None:
    kept = LeastRecentFirst[str, str]()
    for key, num_bytes in (("a", 4), ("b", 3), ("a", 5)):
        kept.put(key, key, num_bytes)
    assert (list(kept), kept.num_bytes, kept.size_of("a")) == (["b", "a"], 8, 5)
    kept.drop("a")
    kept.drop("absent")
    assert (list(kept), kept.num_bytes) == (["b"], 3)
