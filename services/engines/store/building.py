"""An engine is built once, whoever else is building and whatever was killed before. Imports no model library."""

from collections.abc import Callable
from pathlib import Path

from engines.store.manifest import Manifest, Recipe
from engines.store.store import EngineStore

Make = Callable[[Path], tuple[Path, Manifest]]
"""Builds in the folder that it is given, and returns the folder of the engine's files (in there) and its manifest."""


def build_once(
    store: EngineStore, recipe: Recipe, make: Make, *, wait_s: float, enough: Callable[[Manifest], bool]
) -> tuple[Manifest, bool]:
    """The engine of `recipe`, and true if it was there: whole, and `enough` of it. Else `make` builds it now.

    One process builds at a time; the others wait and find it. What a killed process left half done is not found.

    Raises:
        StoreBusy: another process has been building it for `wait_s`.
    """
    with store.lock(recipe, wait_s):
        found = store.whole(recipe)
        if found is not None and enough(found):
            return found, True
        with store.work_folder() as work:
            built, manifest = make(work)
            return store.put(built, manifest), False
