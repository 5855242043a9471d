"""Reads the log files of servers, packed ones too: their ends, since a time, and as they grow.

Needs no runtime. Files may be rotated, packed and deleted meanwhile: what was opened stays
readable, and the newer ones are found by going back to what is known.
"""

import contextlib
import heapq
import os
import re
import time
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from octave.runtime.log_files import LogFile, open_all

POLL_S = 0.2
ROUND_BYTES = 256 * 1024
"""Read of one log before the next one, and a look for newer files, is due."""
_BLOCK_BYTES = 64 * 1024
"""How far a reader steps back at once when it looks for the last lines."""
GAP = b"lines were deleted before they could be shown"

_LINE = re.compile(rb"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z) (err|out|octave) (.*)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of a log."""

    at: str
    """RFC 3339 in UTC; empty for a line without a time at the head of a damaged file."""
    server: str
    stream: str
    line: bytes
    """The server's own bytes, without the line end. Foreign: escape before showing."""


def read(path: Path, last_lines: int | None = None, since: str | None = None) -> Iterator[Entry]:
    """Yield the entries of a log, oldest first; nothing when there is no file.

    Of the `last_lines` last lines (None: all), those not older than `since` (as `logs.stamp`
    gives it). Only what is asked for is read.
    """
    with _Tail(path) as tail:
        yield from tail.last(last_lines, since)
        yield from tail.rest()


def merge(*entries: Iterable[Entry]) -> Iterator[Entry]:
    """Yield the entries of several logs by time; those of each in their own order."""
    return heapq.merge(*entries, key=lambda entry: entry.at)


def follow(
    paths: Sequence[Path],
    last_lines: int | None = 0,
    since: str | None = None,
    *,
    choose: Callable[[Iterable[Entry]], Iterable[Entry]] = lambda entries: entries,
    pause: Callable[[], object] = lambda: time.sleep(POLL_S),
) -> Iterator[Entry]:
    """Yield what `choose` takes of what `read` gives, merged by time, then all that is appended.

    No line is lost or shown twice between the two, or when files are rotated; an entry of the
    stream `octave` says so when files were deleted before they could be read. Waits for a file
    that is not there yet. `pause` is called when there is nothing new.
    """
    with contextlib.ExitStack() as files:
        tails = [files.enter_context(_Tail(path)) for path in paths]
        yield from choose(merge(*(tail.last(last_lines, since) for tail in tails)))
        while True:
            fresh = list(merge(*(tail.fresh() for tail in tails)))
            yield from fresh
            if not fresh:
                pause()


class _Lines:
    """One open file, line by line."""

    def __init__(self, file: LogFile, server: str, at: str = "") -> None:
        self.file = file
        self.at = at
        """The time of the last line."""
        self._server = server
        self._partial = b""

    def entries(self, limit_bytes: int | None = None) -> Iterator[Entry]:
        """Yield the next whole lines: all there are, or a little more than `limit_bytes`."""
        count_bytes = 0
        while piece := self._readline():
            self._partial += piece
            count_bytes += len(piece)
            if self._partial.endswith(b"\n"):
                whole, self._partial = self._partial[:-1], b""
                yield self._entry(whole)
            if limit_bytes is not None and count_bytes >= limit_bytes:
                return

    def rest(self) -> Iterator[Entry]:
        """Yield the line that was never ended, if there is one."""
        if self._partial:
            whole, self._partial = self._partial, b""
            yield self._entry(whole)

    def last(self, count: int | None, since: str | None) -> Iterator[Entry]:
        """Yield, of the `count` last whole lines, those not older than `since`."""
        content = self.file.content
        if not self.file.is_packed:
            end = content.seek(0, os.SEEK_END)
            content.seek(_start_of_last(content, end, count, since))
        found: Iterable[Entry] = self.entries()
        if count is not None:
            found = deque(found, maxlen=count)
        return (entry for entry in found if since is None or entry.at >= since)

    def begins_before(self, since: str) -> bool:
        """Whether its first line is older than `since`; to be asked before it is read."""
        found = _LINE.match(self._readline())
        self.file.content.seek(0)
        return found is not None and found[1].decode() < since

    def begin_anew(self) -> None:
        """Read the file from its start again: it was emptied."""
        self.file.content.seek(0)
        self._partial = b""

    def _readline(self) -> bytes:
        try:
            return self.file.content.readline()
        except (EOFError, zlib.error, OSError):
            if not self.file.is_packed:
                raise
            # Damaged; what comes after that place cannot be unpacked.
            return b""

    def _entry(self, line: bytes) -> Entry:
        found = _LINE.fullmatch(line)
        if found is None:
            # The rest of a line torn by a full disk.
            return Entry(self.at, self._server, "err", line)
        self.at = found[1].decode()
        return Entry(self.at, self._server, found[2].decode(), found[3])


class _Tail:
    """A log that is read on while it grows and is rotated."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._server = path.stem
        self._open: deque[_Lines] = deque()
        """Oldest first; the last one is still written to, as far as is known."""
        self._has_gap = False

    def __enter__(self) -> "_Tail":
        return self

    def __exit__(self, *_: object) -> None:
        while self._open:
            self._open.pop().file.close()

    def last(self, last_lines: int | None, since: str | None) -> Iterator[Entry]:
        """Yield the whole lines at the end of the log as it is now."""
        with contextlib.ExitStack() as old:
            files = [_Lines(file, self._server) for file in open_all(self._path)]
            self._open.extend(files[:1])
            for lines in files[1:]:
                old.callback(lines.file.close)
            if last_lines is None:
                yield from _all_of(files, since)
            else:
                yield from _last_of(files, last_lines, since)

    def rest(self) -> Iterator[Entry]:
        """Yield the line that was never ended, if there is one."""
        for lines in self._open:
            yield from lines.rest()

    def fresh(self) -> Iterator[Entry]:
        """Yield whole lines appended since, `ROUND_BYTES` at most; none when there is no file."""
        self._look()
        while self._open:
            lines = self._open[0]
            found = list(lines.entries(ROUND_BYTES))
            yield from found
            if found or len(self._open) == 1:
                return
            yield from lines.rest()
            self._open.popleft().file.close()
            self._open[0].at = lines.at
            if self._has_gap:
                self._has_gap = False
                yield Entry(lines.at, self._server, "octave", GAP)

    def _look(self) -> None:
        """Open the files that came after the last one that is known."""
        known = self._open[-1] if self._open else None
        # Between a rotation and the next line there is no file of that name.
        with contextlib.suppress(FileNotFoundError):
            found = self._path.stat()
            if known is not None and not known.file.is_packed:
                own = os.fstat(known.file.raw.fileno())
                if (own.st_ino, own.st_dev) == (found.st_ino, found.st_dev):
                    if len(self._open) == 1 and own.st_size < known.file.content.tell():
                        known.begin_anew()
                    return
        self._open_newer(known)

    def _open_newer(self, known: _Lines | None) -> None:
        newer: list[LogFile] = []
        identity = None if known is None else known.file.identity
        is_known = known is None
        for file in open_all(self._path):
            if known is not None and file.identity == identity:
                file.close()
                is_known = True
                break
            newer.append(file)
        self._has_gap = self._has_gap or (bool(newer) and not is_known)
        self._open.extend(_Lines(file, self._server) for file in reversed(newer))


def _all_of(files: list[_Lines], since: str | None) -> Iterator[Entry]:
    """Yield what is not older than `since` of all files, which come newest first."""
    wanted: list[_Lines] = []
    for lines in files:
        wanted.append(lines)
        if since is not None and lines.begins_before(since):
            break
    at = ""
    for lines in reversed(wanted):
        lines.at = at
        yield from lines.last(None, since)
        if lines is not files[0]:
            yield from lines.rest()
        at = lines.at


def _last_of(files: list[_Lines], count: int, since: str | None) -> Iterator[Entry]:
    """Yield, of the last `count` lines of all files, which come newest first, those `since`."""
    chosen: list[list[Entry]] = []
    for lines in files:
        is_oldest = since is not None and lines.begins_before(since)
        found = list(lines.last(count, since))
        if lines is not files[0]:
            found = [*found, *lines.rest()][-count:]
        chosen.append(found)
        count -= len(found)
        if is_oldest or count == 0:
            break
    for found in reversed(chosen):
        yield from found


def _start_of_last(file: IO[bytes], end: int, last_lines: int | None, since: str | None) -> int:
    """Return an offset, at the start of a line, from which all that is asked for can be read."""
    if last_lines is None and since is None:
        return 0
    if last_lines == 0:
        file.seek(max(end - 1, 0))
        is_whole = end == 0 or file.read(1) == b"\n"
        return end if is_whole else _start_of_last(file, end, 1, None)
    wanted, offset = last_lines, end
    while offset > 0:
        step = min(_BLOCK_BYTES, offset)
        file.seek(offset - step)
        block = file.read(step)
        # The line end at the very end of the file ends the last line, it does not begin another.
        body = block[:-1] if offset == end else block
        if wanted is not None:
            ends = body.count(b"\n")
            if ends >= wanted:
                return offset - step + _after_nth_last_end(body, wanted)
            wanted -= ends
        offset -= step
        if since is not None and _is_before(body, since):
            return offset + body.index(b"\n") + 1
    return 0


def _after_nth_last_end(body: bytes, count: int) -> int:
    position = len(body)
    for _ in range(count):
        position = body.rindex(b"\n", 0, position)
    return position + 1


def _is_before(body: bytes, since: str) -> bool:
    """Whether the first whole line that begins in `body` is older than `since`."""
    start = body.find(b"\n") + 1
    found = _LINE.match(body, start) if start else None
    return found is not None and found[1].decode() < since
