"""A GPU without a GPU, for what runs engines of `fake.FakeTensorRT`."""

from collections.abc import Callable

import torch

from tests.trt_surface.fake import FakeTensorRT, compute_at


class FakeGpu:
    """Memory and a stream that are numbers; capturing records and does not run, as on a GPU."""

    device = torch.device("cpu")

    def __init__(self, api: FakeTensorRT, free: int = 2**40) -> None:
        self._api, self.free = api, free
        self.waited = 0

    def stream(self) -> int:
        return 88 if self._api.capturing else 77

    def free_bytes(self) -> int:
        return self.free

    def wait(self) -> None:
        self.waited += 1

    def capture(self, work: Callable[[], None]) -> Callable[[], None]:
        self._api.capturing = True
        work()
        self._api.capturing = False
        addresses = dict(self._api.called("IExecutionContext", "set_tensor_address"))
        return lambda: compute_at(self._api.script, addresses)
