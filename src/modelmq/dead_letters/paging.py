"""How many letters to take from the broker at one time, so that neither side holds many large ones. Pure."""

from __future__ import annotations

FIRST_PAGE = 32
LARGEST_PAGE = 256
PAGE_BYTES = 64 * 2**20


def next_page(size: int, largest_bytes: int) -> int:
    """How many to take after a page of `size`, when the largest letter so far had so many bytes."""
    return max(1, min(size * 2, LARGEST_PAGE, PAGE_BYTES // max(largest_bytes, 1)))
