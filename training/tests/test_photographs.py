"""Only pictures whose licence allows shipping what was learnt from them are in the training table."""

import re
import struct
import zlib

import pytest

from training.ingredients.fetch import PACKAGES
from training.ingredients.photographs import read_table
from training.ingredients.qt_resources import read_resources

PERMITTED = re.compile(r"public domain|CC0-1\.0|CC-BY-[1-4]\.[05]")


def test_every_photograph_has_an_author_a_caption_and_a_licence_without_share_alike() -> None:
    table = read_table()
    assert len(table) > 90
    assert len({photograph.name for photograph in table}) == len(table)
    for photograph in table:
        assert PERMITTED.fullmatch(photograph.licence), photograph
        assert photograph.author, photograph
        assert photograph.caption, photograph


def test_every_photograph_comes_from_a_fetched_package_and_none_from_the_evaluation_set() -> None:
    fetched = {package.name for package in PACKAGES}
    used = {photograph.package for photograph in read_table()}
    assert used <= fetched
    assert not {"scikit-image", "opencv-python", "opencv-python-headless"} & fetched


def test_files_of_a_qt_resource_are_read_whole_and_inflated() -> None:
    name, plain = "a.txt", b"moving pictures " * 20
    packed = zlib.compress(plain)
    data = struct.pack(">I", len(packed) + 4) + struct.pack(">I", len(plain)) + packed
    names = struct.pack(">HI", len(name), 0) + name.encode("utf-16-be")
    root = struct.pack(">IHII", 0, 2, 1, 1)
    child = struct.pack(">IHHHI", 0, 1, 0, 0, 0)
    tree = 20
    header = struct.pack(">4I", 1, tree, tree + 28, tree + 28 + len(data))
    assert list(read_resources(b"qres" + header + root + child + data + names)) == [("/a.txt", plain)]


def test_bytes_that_are_no_qt_resource_are_refused() -> None:
    with pytest.raises(ValueError, match="not a Qt resource"):
        next(read_resources(b"PK\x03\x04" + bytes(40)))
