"""The byte form of the world's package data: small files that load fast and come out the same each time.

Integer panels are stored as differences along the days, split into byte planes (all low bytes,
then all second bytes …), because runs of equal bytes are what xz compresses well.
"""

from __future__ import annotations

import base64
import hashlib
import io
import lzma
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import orjson

GAP: Final = -1
"""What a day without a value holds in a panel."""
_XZ: Final[Sequence[Mapping[str, int]]] = ({"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME},)
_FIRST_ID: Final = 2_000_000_000
_ID_SPACE: Final = 147_000_000


def pack_json(value: Any) -> bytes:
    """Return ``value`` as xz-compressed JSON with sorted keys."""
    return _compress(orjson.dumps(value, option=orjson.OPT_SORT_KEYS))


def unpack_json(packed: bytes) -> Any:
    """Return the value that :func:`pack_json` packed."""
    return orjson.loads(lzma.decompress(packed))


def pack_panels(panels: Mapping[str, npt.NDArray[np.integer[Any]]]) -> bytes:
    """Return 2-D integer panels (rows, days) as one xz-compressed ``npz``.

    A gap (:data:`GAP`) is stored as a mask; the level under it is the last known one, so that it costs nothing.
    Values must be -1 or more.
    """
    arrays: dict[str, npt.NDArray[Any]] = {}
    for name, panel in panels.items():
        known = panel != GAP
        if (panel < GAP).any():
            raise ValueError(f"panel {name!r} holds values below {GAP}")
        filled = _carry_forward(np.where(known, panel, 0).astype(np.int64), known)
        steps = np.diff(filled, axis=1, prepend=0)
        zigzag = np.ascontiguousarray(np.where(steps < 0, -2 * steps - 1, 2 * steps), dtype="<u8")
        planes = zigzag.view(np.uint8).reshape(*panel.shape, 8)
        used = max((k + 1 for k in range(8) if planes[..., k].any()), default=1)
        arrays[f"{name}.planes"] = np.ascontiguousarray(np.moveaxis(planes[..., :used], -1, 0))
        arrays[f"{name}.known"] = np.packbits(known, axis=1)
        arrays[f"{name}.dtype"] = np.frombuffer(np.dtype(panel.dtype).str.encode(), dtype=np.uint8)
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]  # keys are array names, none is `allow_pickle`
    return _compress(buffer.getvalue())


def unpack_panels(packed: bytes) -> dict[str, npt.NDArray[Any]]:
    """Return the panels that :func:`pack_panels` packed, read-only, with their dtypes."""
    panels: dict[str, npt.NDArray[Any]] = {}
    with np.load(io.BytesIO(lzma.decompress(packed)), allow_pickle=False) as arrays:
        for key in arrays.files:
            name, _, part = key.rpartition(".")
            if part != "planes":
                continue
            planes = arrays[key]
            used, rows, days = planes.shape
            zigzag = np.zeros((rows, days), dtype=np.uint64)
            for k in range(used):
                zigzag |= planes[k].astype(np.uint64) << np.uint64(8 * k)
            half = (zigzag >> np.uint64(1)).astype(np.int64)
            filled = np.where(zigzag & np.uint64(1), -half - 1, half).cumsum(axis=1)
            known = np.unpackbits(arrays[f"{name}.known"], axis=1, count=days).astype(bool)
            panel = np.where(known, filled, GAP).astype(np.dtype(arrays[f"{name}.dtype"].tobytes().decode()))
            panel.setflags(write=False)
            panels[name] = panel
    return panels


def forge_identities(names: Sequence[str]) -> list[tuple[int, str]]:
    """Make up a (database id, node id) per repository name: the same each time, unique, in GitHub's form.

    The ids lie above 2,000,000,000: well over those that recorded answers show (1,308,970,076 is the highest), and
    still within GraphQL's 32-bit ``databaseId``. A node id is
    ``R_kgDO`` and base64, that is MessagePack of ``[0, database_id]``.
    """
    taken: set[int] = set()
    identities: dict[str, tuple[int, str]] = {}
    for name in sorted(names, key=str.lower):
        digest = hashlib.blake2b(name.lower().encode(), digest_size=8).digest()
        offset = int.from_bytes(digest, "big") % _ID_SPACE
        while offset in taken:
            offset = (offset + 1) % _ID_SPACE
        taken.add(offset)
        database_id = _FIRST_ID + offset
        packed = b"\x92\x00\xce" + database_id.to_bytes(4, "big")
        identities[name] = database_id, "R_" + base64.urlsafe_b64encode(packed).decode().rstrip("=")
    return [identities[name] for name in names]


def _carry_forward(filled: npt.NDArray[np.int64], known: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    latest = np.where(known, np.arange(known.shape[1]), -1)
    latest = np.maximum.accumulate(latest, axis=1)
    carried = np.take_along_axis(filled, np.maximum(latest, 0), axis=1)
    return np.where(latest < 0, 0, carried)


def _compress(raw: bytes) -> bytes:
    return lzma.compress(raw, format=lzma.FORMAT_XZ, check=lzma.CHECK_CRC32, filters=_XZ)
