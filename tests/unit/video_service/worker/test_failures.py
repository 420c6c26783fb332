"""Laws of what an exception in a render means."""

import errno

import pytest
import torch

from contracts.refusal import ParameterRefused
from video_service.media.mp4 import VideoWriteFailed
from video_service.worker.program import explain
from web.worker.errors import DeviceBroken
from web.worker.faults import breaks_the_device
from web.worker.image import ImageUnreadable


def cpu_allocation_failure() -> Exception:
    try:
        torch.empty(1 << 60, dtype=torch.uint8)
    except RuntimeError as error:
        return error
    raise AssertionError("an exbibyte was allocated")


def caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize("error", [
    MemoryError(), torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), cpu_allocation_failure(),
    RuntimeError("CUDA error: out of memory"), RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    OSError(errno.ENOMEM, "Cannot allocate memory"), caused(VideoWriteFailed("encoder"), MemoryError()),
])
def test_every_way_to_run_out_of_memory_is_named_and_survived(error: Exception):
    assert explain(error).code == "out_of_memory"
    assert not breaks_the_device(error)


@pytest.mark.parametrize("error", [
    RuntimeError("CUDA error: an illegal memory access was encountered"),
    RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"),
    RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasGemmEx(...)`"),
    caused(VideoWriteFailed("encoder"), RuntimeError("CUDA error: unspecified launch failure")),
])
def test_a_broken_cuda_context_costs_the_process(error: Exception):
    assert explain(error).code == "render_failed"
    assert breaks_the_device(error)


def test_ranks_that_lost_each_other_are_not_the_fault_of_the_render():
    lost = caused(DeviceBroken("a step over several devices failed"), RuntimeError("Timed out waiting 300000ms"))
    assert explain(lost).code == "worker_died", "which the gateway puts once more"
    assert "Timed out" in explain(lost).detail
    assert breaks_the_device(lost)
    assert explain(caused(DeviceBroken("x"), torch.OutOfMemoryError("CUDA out of memory"))).code == "out_of_memory"


def test_a_full_disk_is_named_also_behind_the_encoder():
    for error in (OSError(errno.ENOSPC, "No space"), caused(VideoWriteFailed("x"), OSError(errno.ENOSPC, "No space"))):
        assert explain(error).code == "disk_full"


def test_refusals_name_their_field():
    refused = explain(ParameterRefused("steps_out_of_range", "steps", "use 4"))
    assert refused.errors is not None
    assert (refused.status, refused.errors[0].field) == (422, "body.steps")
    assert explain(ImageUnreadable("no PNG")).code == "unreadable_image"


def test_anything_else_is_a_failed_render_with_its_cause_in_one_line():
    problem = explain(KeyError("a\nb"))
    assert (problem.code, breaks_the_device(KeyError("a"))) == ("render_failed", False)
    assert "KeyError" in problem.detail
    assert "\n" not in problem.detail
