"""Files as wandb writes them, put together as their format says."""

from __future__ import annotations

import zlib

from hpcft.tracking.offline import BLOCK, CHUNK, FIRST, HEADER, LAST, MIDDLE, WHOLE


def written(records: list[bytes]) -> bytes:
    """A file with these records, put together as the format says."""
    content = bytearray(HEADER)
    for record in records:
        rest, first = record, True
        while first or rest:
            room = BLOCK - len(content) % BLOCK
            if room < CHUNK.size:
                content += bytes(room)
                continue
            data, rest = rest[: room - CHUNK.size], rest[room - CHUNK.size :]
            kind = (WHOLE if not rest else FIRST) if first else (LAST if not rest else MIDDLE)
            content += CHUNK.pack(zlib.crc32(bytes([kind]) + data), len(data), kind) + data
            first = False
    return bytes(content)
