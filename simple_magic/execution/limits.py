"""Limits as users write and change them: sizes such as "64M", and one cell's own limits."""

from __future__ import annotations

import re
from dataclasses import replace

from ..backends.base import Limits

UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
_SIZE = re.compile(r"(\d+)\s*([kmgt]?)(?:i?b)?", re.IGNORECASE)


def parse_size(size: int | str) -> int:
    """Return a number of bytes or characters; k, m, g and t stand for powers of 1024. Raises: ValueError.

    >>> parse_size("64M")
    67108864
    """
    match = _SIZE.fullmatch(str(size).strip())
    if match is None or isinstance(size, bool) or not int(match[1]):
        raise ValueError(f"{size!r} is not a size: write a number above 0, such as 4096, 64M or 1G")
    return int(match[1]) * UNITS[match[2].lower()]


def changed_limits(limits: Limits, **changes: int | None) -> Limits:
    """Return limits with those changes that are not None. The interpreter counts frames: with another stack it gets them in proportion."""
    given = {name: value for name, value in changes.items() if value is not None}
    if "stack" in given and "frames" not in given:
        given["frames"] = max(1, Limits.frames * given["stack"] // Limits.stack)
    return replace(limits, **given)
