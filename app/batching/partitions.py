"""Kafka's default partitioner, so that a key reaches the same partition whoever sends it."""

from struct import Struct

_SEED = 0x9747B28C
_MULTIPLIER = 0x5BD1E995
_UINT32 = 0xFFFFFFFF
# The keys of this program are shorter than this; a longer one has its format compiled on the way.
_WORDS = [Struct(f"<{words}I") for words in range(33)]


def murmur2(data: bytes) -> int:
    """Return the 32-bit MurmurHash2 of `data`, as the Java client computes it."""
    size = len(data)
    words, rest = divmod(size, 4)
    layout = _WORDS[words] if words < len(_WORDS) else Struct(f"<{words}I")
    state = _SEED ^ size
    for word in layout.unpack_from(data):
        mixed = word * _MULTIPLIER & _UINT32
        mixed ^= mixed >> 24
        # Masked once: the product of `mixed` only needs its low 32 bits, as does that of the state.
        state = (state * _MULTIPLIER ^ mixed * _MULTIPLIER) & _UINT32
    if rest:
        state = (state ^ int.from_bytes(data[-rest:], "little")) * _MULTIPLIER & _UINT32
    state = (state ^ state >> 13) * _MULTIPLIER & _UINT32
    return state ^ state >> 15


def partition_for(key: bytes, partitions: int) -> int:
    """Return the partition, 0 to `partitions` - 1, to which Kafka's default partitioner sends `key`.

    Examples
    --------
    >>> [partition_for(key, 8) for key in (b"", b"a", b"11144477735")]
    [1, 6, 4]
    """
    return (murmur2(key) & 0x7FFFFFFF) % partitions
