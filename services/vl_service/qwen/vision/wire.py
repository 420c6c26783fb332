"""`POST /v1/features`: the bytes of a picture in, a safetensors file out (see `vl_service.qwen.vision.features`)."""

FEATURES_PATH = "/v1/features"
CACHE_HEADER = "X-Feature-Cache"
"""On the answer: `memory`, `disk` or `miss`."""
FORMATS = ("PNG", "JPEG", "PPM")
"""PPM: what a language role sends, its picture being decoded already."""
