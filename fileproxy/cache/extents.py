"""Extents: files of up to 64 blocks of one representation. Blocking.

    0      magic, version, block size, extent number, rid, object size, CRC-32 of these: for who knows only the file
    56     8 random bytes: with the inode they tell this file from every other one of its name
    64     64 slots of 16 bytes: state, length, CRC-32 of the block, CRC-32 of the slot
    4096   the blocks, slot i at 4096 + i * block; what was not written is a hole

A block is committed by writing its data first and then its slot, each by a call of its own (of a run of blocks all
data, then all slots), so writers of different blocks need no lock. Every checksum is seeded with rid, block size and
block number: neither a slot nor a block can be taken for another one, whatever a crash leaves where. A slot lies within
one sector; one that is torn is damage. The head follows from the representation, so every writer writes the same one,
and readers, who know it, do without it.
"""

from __future__ import annotations

import errno
import os
import struct
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from fileproxy.cache.checksum import crc32
from fileproxy.cache.disk_files import Files, Name, extent_name, open_to_write, path_of, remove, taken
from fileproxy.model import Bytes, Meta

BLOCKS = 64  # of an extent
DATA = 4096  # where they begin
HEAD_BYTES = 64
_MARK = 56
_HEAD = struct.Struct("<8sIII16sQ")
_MAGIC = b"FPextent"
_VERSION = 1
_SLOT_BYTES = 16
HEAD_START, HEAD_END = _MARK, HEAD_BYTES + BLOCKS * _SLOT_BYTES  # of mark and slots, all of a head that may change
_EMPTY = bytes(_SLOT_BYTES)
_COMMITTED = 0x4B4C4201
_CHUNK = 256 * 1024
_beginning = threading.Lock()  # two threads that begin a file give it one mark
_CHECKED_AT_ONCE = 8 * 1024 * 1024  # bytes; longer runs would delay the first one


@dataclass(frozen=True, slots=True)
class Extent:
    """Extent ``number`` of a representation: all that its file's format depends on."""

    rid: bytes
    block: int
    size: int  # of the whole object
    number: int

    @property
    def name(self) -> str:
        return extent_name(self.rid, self.number)

    @property
    def blocks(self) -> int:
        """How many blocks it is for."""
        return max(0, min(BLOCKS, -(-self.size // self.block) - self.number * BLOCKS))

    def length_of(self, slot: int) -> int:
        """Bytes of the block in this slot."""
        return min(self.block, self.size - (self.number * BLOCKS + slot) * self.block)

    def offset_of(self, slot: int) -> int:
        """Where in the file it lies."""
        return DATA + slot * self.block

    def head(self) -> bytes:
        """What the file begins with."""
        head = _HEAD.pack(_MAGIC, _VERSION, self.block, self.number, self.rid, self.size)
        return (head + crc32(head).to_bytes(4, "little")).ljust(_MARK, b"\0")

    def seed(self, slot: int) -> int:
        """What the checksums of this slot begin with."""
        return crc32(struct.pack("<IQ", self.block, self.number * BLOCKS + slot), crc32(self.rid))

    def slot(self, slot: int, crc: int) -> bytes:
        """The slot of a committed block with this checksum."""
        body = struct.pack("<III", _COMMITTED, self.length_of(slot), crc)
        return body + crc32(body, self.seed(slot)).to_bytes(4, "little")

    def committed(self, slots: bytes, slot: int) -> int | None:
        """The checksum in a slot; None when it is empty, -1 when it says what was never written."""
        raw = slots[slot * _SLOT_BYTES : (slot + 1) * _SLOT_BYTES]
        if not raw.strip(b"\0"):
            return None
        crc = int.from_bytes(raw[8:12], "little")
        return crc if raw == self.slot(slot, crc) else -1

    def crc_on_disk(self, descriptor: int, slot: int) -> int:
        """The checksum of a block as it lies there; -2 when it cannot be read."""
        crc, offset, left = self.seed(slot), self.offset_of(slot), self.length_of(slot)
        while left:
            try:
                chunk = os.pread(descriptor, min(left, _CHUNK), offset)
            except OSError as error:
                if error.errno != errno.EIO:
                    raise
                return -2  # a bad sector is damage like any other
            if not chunk:
                return -2
            crc, offset, left = crc32(chunk, crc), offset + len(chunk), left - len(chunk)
        return crc


def extent_of(meta: Meta, number: int) -> Extent:
    return Extent(meta.rid, meta.block, meta.size, number)


@dataclass(frozen=True, slots=True)
class Run:
    """What a read found. ``descriptor`` is the caller's; None when the first block is damaged."""

    descriptor: int | None
    offset: int
    length: int
    identity: int  # of the file
    verified: int  # a bit for each slot of the extent whose data was checked, now or before
    damaged: int  # a bit for each slot found damaged now


@dataclass(frozen=True, slots=True)
class Known:
    """What the caller knows of a file: which one it was and what slots (bits) of it were checked; which are bad."""

    identity: int = -1
    verified: int = 0
    bad: int = 0


def read_run(files: Files, folder: str, extent: Extent, first: int, most: int, known: Known) -> Run | None:
    """The committed blocks from slot ``first``, at most ``most``; None when that one is not there. Raises OSError."""
    descriptor = _open(files, folder, extent)
    if descriptor is None:
        return None
    keep = False
    try:
        start = os.pread(descriptor, HEAD_END - HEAD_START, HEAD_START)
        mark, slots = start[: HEAD_BYTES - _MARK], start[HEAD_BYTES - _MARK :]
        # An inode alone may be that of an older file that is gone.
        identity = int.from_bytes(mark, "little") << 64 | os.fstat(descriptor).st_ino
        verified = known.verified if known.identity == identity else 0
        length = damaged = checked = 0
        for slot in range(first, min(first + most, extent.blocks)):
            bit = 1 << slot
            crc = extent.committed(slots, slot)
            if crc is None or known.bad & bit or checked >= _CHECKED_AT_ONCE:
                break
            if not verified & bit:
                checked += extent.length_of(slot)
            if crc < 0 or not (verified & bit or extent.crc_on_disk(descriptor, slot) == crc):
                damaged = bit
                break
            verified |= bit
            length += extent.length_of(slot)
        if not length and not damaged:
            return None
        keep = length > 0
        return Run(descriptor if keep else None, extent.offset_of(first), length, identity, verified, damaged)
    finally:
        if not keep:
            files.close(descriptor)


def write_block(files: Files, folder: str, meta: Meta, index: int, data: bytes) -> int | None:
    """Store one block. Returns by how many bytes the disk is fuller; None: it stays as it is, see ``Written``. Raises
    OSError.
    """
    written = write_run(files, folder, meta, index, (data,))
    if written.error is not None:
        raise written.error
    return written.grown if written.stored else None


@dataclass(frozen=True, slots=True)
class Written:
    """What became of a run of blocks. ``grown``: by so many bytes the disk is fuller; ``stored``: indexes of those that
    are there now.

    The others are not because of ``error``; or because other bytes are under the same name, and stay (law 1): the
    caller has them from where it should not.
    """

    grown: int
    stored: frozenset[int]
    error: OSError | None = None


def write_run(files: Files, folder: str, meta: Meta, first: int, blocks: Sequence[Bytes]) -> Written:
    """Store blocks ``first`` and those behind it, all of one extent, with few calls. Where one fails the run ends.

    Raises OSError when the extent cannot be opened or begun; all else that fails is in ``Written.error``.
    """
    number, slot = divmod(first, BLOCKS)
    extent = extent_of(meta, number)
    head, grown = extent.head(), 0
    crcs, stored = dict[int, int](), set[int]()  # by slot what was written; the slots that are committed
    error: OSError | None = None
    descriptor = open_to_write(files, path_of(folder, extent.name), os.O_RDWR)
    try:
        start = os.pread(descriptor, DATA, 0)
        if start[:_MARK] != head:
            with _beginning:
                start = os.pread(descriptor, DATA, 0)
                if start[:_MARK] != head:
                    files.write(descriptor, head + os.urandom(HEAD_BYTES - _MARK), 0)
                    grown += 0 if start else DATA
        try:
            for at, data in enumerate(blocks, slot):  # each written while its checksum has it in the processor's cache
                crc = crc32(data, extent.seed(at))
                there = extent.committed(start[HEAD_BYTES:], at)
                if there is not None and there >= 0 and there != crc:
                    continue
                if there == crc and extent.crc_on_disk(descriptor, at) == crc:
                    stored.add(at)
                    continue
                files.write(descriptor, data, extent.offset_of(at))
                crcs[at] = crc
                grown += taken(len(data)) if there is None else 0
        except OSError as why:
            error = why.with_traceback(None)  # which would keep this frame, and with it the blocks
        try:
            for at, end in _runs(list(crcs)):
                slots = b"".join(extent.slot(one, crcs[one]) for one in range(at, end))
                files.write(descriptor, slots, HEAD_BYTES + at * _SLOT_BYTES)
                stored.update(range(at, end))
        except OSError as why:
            error = error or why.with_traceback(None)
    finally:
        files.close(descriptor)
    return Written(grown, frozenset(number * BLOCKS + at for at in stored), error)


def _runs(numbers: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Ascending numbers as runs without a gap: first, and end (exclusive)."""
    begin = 0
    for at in range(1, len(numbers) + 1):
        if at == len(numbers) or numbers[at] != numbers[at - 1] + 1:
            yield numbers[begin], numbers[at - 1] + 1
            begin = at


def held(files: Files, folder: str, meta: Meta) -> set[int]:
    """The blocks that are committed; their data is not looked at. Raises OSError."""
    found = set()
    for number in range(-(-meta.blocks // BLOCKS)):
        extent = extent_of(meta, number)
        descriptor = _open(files, folder, extent)
        if descriptor is None:
            continue
        try:
            slots = _slots(descriptor)
        finally:
            files.close(descriptor)
        for slot in range(extent.blocks):
            crc = extent.committed(slots, slot)
            if crc is not None and crc >= 0:
                found.add(number * BLOCKS + slot)
    return found


def quarantine(files: Files, folder: str, name: str, slots: int) -> None:
    """Mark these slots (bits) of an extent's file absent. Raises OSError."""
    try:
        descriptor = files.open(path_of(folder, name), os.O_WRONLY)
    except FileNotFoundError:
        return
    try:
        for slot in range(BLOCKS):
            if slots >> slot & 1:
                files.write(descriptor, _EMPTY, HEAD_BYTES + slot * _SLOT_BYTES)
    finally:
        files.close(descriptor)


def remove_all(files: Files, folder: str, meta: Meta) -> list[tuple[str, int]]:
    """Unlink every extent of a representation. Returns names and the bytes each gave back. Raises OSError."""
    freed = []
    for number in range(-(-meta.blocks // BLOCKS)):
        name = extent_name(meta.rid, number)
        if size := remove(files, path_of(folder, name)):
            freed.append((name, size))
    return freed


def identify(files: Files, folder: str, name: Name) -> tuple[Extent, int] | None:
    """For who knows only the file: what it is, and which slots (bits) are not empty; None when it is gone.

    Raises ValueError when its head is not right, OSError.
    """
    descriptor = _open(files, folder, Extent(name.id, 1, 0, name.number))
    if descriptor is None:
        return None
    try:
        start = os.pread(descriptor, DATA, 0)
    finally:
        files.close(descriptor)
    if len(start) < HEAD_BYTES:
        raise ValueError("no head")
    _, _, block, number, rid, size = _HEAD.unpack_from(start)
    extent = Extent(rid, block, size, number)
    if (rid, number) != (name.id, name.number) or not block or start[:_MARK] != extent.head():
        raise ValueError("not the head of this extent")
    bits = sum(
        1 << slot for slot in range(BLOCKS) if start[HEAD_BYTES + slot * _SLOT_BYTES :][:_SLOT_BYTES].strip(b"\0")
    )
    return extent, bits


def check_slot(files: Files, folder: str, extent: Extent, slot: int) -> tuple[int, bool]:
    """Read one block again, for the scrubber: bytes read, and whether it is what was committed. Raises OSError."""
    descriptor = _open(files, folder, extent)
    if descriptor is None:
        return 0, True
    try:
        crc = extent.committed(_slots(descriptor), slot)
        if crc is None:
            return 0, True
        if crc < 0:
            return 0, False
        length = extent.length_of(slot)
        # What is on the disk, not what was.
        os.posix_fadvise(descriptor, extent.offset_of(slot), length, os.POSIX_FADV_DONTNEED)
        return length, extent.crc_on_disk(descriptor, slot) == crc
    finally:
        files.close(descriptor)


def _open(files: Files, folder: str, extent: Extent) -> int | None:
    try:
        return files.open(path_of(folder, extent.name), os.O_RDONLY)
    except (FileNotFoundError, NotADirectoryError):
        return None


def _slots(descriptor: int) -> bytes:
    return os.pread(descriptor, BLOCKS * _SLOT_BYTES, HEAD_BYTES)
