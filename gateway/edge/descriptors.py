"""How many files and connections this process may have open."""

import resource

_WANTED = 65_536
_RESERVED = 256  # databases, services, files that are served


def raise_descriptor_limit() -> int:
    """Raise the soft limit as far as the hard one allows, and 65,536 at most; returns what is allowed then."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return _WANTED
    allowed = _WANTED if hard == resource.RLIM_INFINITY else min(hard, _WANTED)
    if allowed > soft:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    return max(soft, allowed)


def connections_within(descriptors: int, wanted: int) -> int:
    """How many connections may be open where each may also have a file for what it sends."""
    return max(8, min(wanted, (descriptors - _RESERVED) // 2))
