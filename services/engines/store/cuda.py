"""The GPU of this machine, asked of the driver without importing torch."""

import ctypes
import functools

_COMPUTE_CAPABILITY_MAJOR = 75  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR
_COMPUTE_CAPABILITY_MINOR = 76


def cuda_capability() -> str | None:
    """Compute capability of device 0 such as `SM89`, or None without one."""
    found = cuda_version()
    return None if found is None else f"SM{found[0]}{found[1]}"


@functools.cache
def cuda_name() -> str | None:
    """Name of device 0 such as `NVIDIA H200`, or None without one."""
    if cuda_version() is None:
        return None
    driver, name = ctypes.CDLL("libcuda.so.1"), ctypes.create_string_buffer(256)
    return None if driver.cuDeviceGetName(name, len(name), 0) else name.value.decode(errors="replace")


@functools.cache
def cuda_version() -> tuple[int, int] | None:
    """Compute capability of device 0, or None without one; asks the driver and opens no context."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None
    count, major, minor = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
    if driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count)) or count.value == 0:
        return None
    for value, attribute in ((major, _COMPUTE_CAPABILITY_MAJOR), (minor, _COMPUTE_CAPABILITY_MINOR)):
        if driver.cuDeviceGetAttribute(ctypes.byref(value), attribute, 0):
            return None
    return major.value, minor.value
