"""A cache before whatever sees pictures: an equal picture is looked at once."""

import hashlib
import logging
from dataclasses import replace

import torch

from vl_service.backend import Deadline
from vl_service.images import DecodedImage
from vl_service.qwen.vision.cache import ByteCache
from vl_service.qwen.vision.disk import DiskCache
from vl_service.qwen.vision.features import (
    NEVER,
    Expected,
    Features,
    FeaturesRefusedError,
    Vision,
    read_features,
    write_features,
)
from vl_service.settings import Settings

log = logging.getLogger(__name__)

CPU = torch.device("cpu")


class CachedVision:
    """Keeps features in main memory, and on disk where a folder is set."""

    def __init__(self, vision: Vision, expected: Expected, device: torch.device, settings: Settings) -> None:
        """`device`: where features are wanted."""
        self._vision, self._expected, self._device = vision, expected, device
        second = None
        if settings.feature_cache_dir is not None:
            files = DiskCache(settings.feature_cache_dir, settings.feature_cache_disk_bytes)
            second = _OnDisk(files, expected)
        self._cache: ByteCache[Features] = ByteCache(
            max_bytes=settings.feature_cache_bytes, size_of=lambda features: features.num_bytes, second=second)

    @property
    def engine(self) -> str:
        return self._vision.engine

    @property
    def reason(self) -> str:
        return self._vision.reason

    def features_of(self, picture: DecodedImage, deadline: Deadline = NEVER) -> Features:
        """See `features.Vision`. Of equal calls at one time one looks, and its failure is everybody's."""
        own: list[Features] = []

        def look() -> Features:
            own.append(self._vision.features_of(picture, deadline))
            return own[0].to(CPU)

        key = self._key(picture)
        kept, found = self._cache.get(key, look)
        if own:  # as they came; what a vision service had kept was no look, either
            return replace(own[0].to(self._device), names=(key,))
        return replace(kept.to(self._device), names=(key,), cache=found)

    def _key(self, picture: DecodedImage) -> str:
        """Of the pixels and of all that makes features of them."""
        expected = self._expected
        digest = hashlib.sha256(picture.rgb.tobytes())
        facts = (picture.rgb.size, expected.processor, expected.revision, str(expected.dtype), self._vision.engine)
        digest.update(repr(facts).encode())
        return digest.hexdigest()


class _OnDisk:
    """`cache.SecondLevel` in safetensors files."""

    def __init__(self, files: DiskCache, expected: Expected) -> None:
        self._files, self._expected = files, expected

    def get(self, key: str) -> Features | None:
        body = self._files.get(key)
        try:
            return None if body is None else read_features(body, self._expected)
        except FeaturesRefusedError as error:  # of another version of this program
            log.warning("kept features are not read", extra={"reason": str(error)})
            return None

    def put(self, key: str, value: Features) -> None:
        self._files.put(key, write_features(value))
