"""Randomness without state: every number is a function of a key, so nothing depends on what was drawn before.

`hashed` serves where a whole batch is drawn at once; `generator` where a long stream belongs to one key.
Reference: Steele, Lea and Flood 2014 (SplitMix64); Salmon et al. 2011 (Philox).

    hashed(seed, epoch, np.arange(8))     # eight 64-bit numbers, the same on every machine
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float64, UInt64

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_WORD = 2**64 - 1


def hashed(*words: int | np.ndarray) -> UInt64[np.ndarray, "..."]:
    """Return 64 random bits for every key.

    Args:
        words: the parts of the key, broadcast against each other; integers are taken modulo 2**64.
    """
    state = np.zeros(1, dtype=np.uint64)
    for word in words:
        part = word.astype(np.uint64) if isinstance(word, np.ndarray) else np.uint64(word & _WORD)
        state = _mix((state ^ part) + _GOLDEN)
    return state


def below(bits: UInt64[np.ndarray, "..."], limit: int) -> UInt64[np.ndarray, "..."]:
    """Turn 64 random bits into a number in [0, limit), for a limit up to 2**32."""
    return ((bits >> np.uint64(32)) * np.uint64(limit)) >> np.uint64(32)


def uniform(bits: UInt64[np.ndarray, "..."]) -> Float64[np.ndarray, "..."]:
    """Turn 64 random bits into a number in [0, 1)."""
    return (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53


def generator(*key: int) -> np.random.Generator:
    """Return a Philox generator that belongs to a key."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence([word & _WORD for word in key])))


def _mix(state: UInt64[np.ndarray, "..."]) -> UInt64[np.ndarray, "..."]:
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    state ^= state >> np.uint64(31)
    return state
