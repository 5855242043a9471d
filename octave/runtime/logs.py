"""A server's log file: the runtime's side appends to it, `octave logs` reads it.

One line per line: RFC 3339 time in UTC with milliseconds, the stream (`err`, `out` for what does
not belong on stdout, `octave` for the runtime's own events), then the bytes as they came. Writing
never raises: what the disk does not take is counted. Reading needs no runtime.
"""

import asyncio
import contextlib
import heapq
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Literal

Stream = Literal["err", "out", "octave"]

LINE_LIMIT_BYTES = 64 * 1024
"""A longer line is split, so that a server that never ends one costs no memory."""
FLUSH_AFTER_S = 0.2
"""What a person watching `logs -f` does not notice, and a burst of lines shares one write in."""
FLUSH_BYTES = 64 * 1024
"""So much is written at once without waiting; small enough not to be felt by the event loop."""
NOISE_LINES = 100
NOISE_WINDOW_S = 10.0
"""So many lines of noise are kept in such a time: enough to see what it is."""
POLL_S = 0.2
_BLOCK_BYTES = 64 * 1024
"""How far a reader steps back at once when it looks for the last lines."""

_LINE = re.compile(rb"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z) (err|out|octave) (.*)", re.DOTALL)


def stamp(at_s: float) -> str:
    """Return the wall-clock time `at_s` (seconds since 1970) as log lines carry it.

    The texts sort as the times do.
    """
    return datetime.fromtimestamp(at_s, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"


class ServerLog:
    """The writing end. Belongs to one event loop; the file is opened at the first write.

    At most `FLUSH_BYTES` and one partial line per stream wait in memory. Lines that cannot be
    written (full disk, missing folder) are dropped and counted, and the file says so once it
    takes lines again.
    """

    def __init__(self, path: Path, wall_s: Callable[[], float] = time.time) -> None:
        self.path = path
        self.dropped = 0
        """Lines lost so far."""
        self.noise_lines = 0
        """Lines of noise so far, kept or not."""
        self._wall_s = wall_s
        self._partial: dict[Stream, bytearray] = {}
        self._waiting: list[bytes] = []
        self._waiting_bytes = 0
        self._file: int | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._unsaid = 0
        self._is_torn = False
        self._noise_window = (0.0, 0)

    def feed(self, stream: Stream, chunk: bytes) -> None:
        """Append bytes of a stream; only whole lines, or 64 KiB of one, go on to the file."""
        *lines, rest = chunk.split(b"\n")
        partial = self._partial.get(stream)
        if partial:
            first = lines[0] if lines else rest
            partial += first
            if lines:
                lines[0] = bytes(partial)
                self._partial[stream] = bytearray(rest)
        elif rest:
            self._partial[stream] = bytearray(rest)
        if lines:
            self._add(stream, lines)
        self._split_partial(stream)

    def noise(self, line: bytes) -> None:
        """Append a line of stdout that is no message; `NOISE_LINES` of a burst, then no more."""
        self.noise_lines += 1
        now_s = self._wall_s()
        began_s, lines = self._noise_window
        if not 0 <= now_s - began_s < NOISE_WINDOW_S:
            began_s, lines = now_s, 0
        if lines < NOISE_LINES:
            self.feed("out", line + b"\n")
        self._noise_window = (began_s, lines + 1)

    def event(self, text: str) -> None:
        """Append a line of the runtime's own."""
        self._add("octave", [text.replace("\n", " ").encode()])

    def end_lines(self) -> None:
        """Write everything now, partial lines too: the process is gone."""
        for stream, partial in self._partial.items():
            if partial:
                self._add(stream, [bytes(partial)])
                partial.clear()
        self.flush()

    def close(self) -> None:
        """Write everything and close the file; `feed` opens it again."""
        self.end_lines()
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def flush(self) -> None:
        """Write the whole lines that wait."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        content = b"".join(self._waiting)
        self._waiting, self._waiting_bytes = [], 0
        if not content:
            return
        unwritten = self._write(self._remark() + content)
        if len(unwritten) <= len(content):
            self._unsaid = 0
        lost = unwritten[-len(content) :].count(b"\n")
        self.dropped += lost
        self._unsaid += lost

    def _split_partial(self, stream: Stream) -> None:
        partial = self._partial.get(stream)
        while partial is not None and len(partial) >= LINE_LIMIT_BYTES:
            self._add(stream, [bytes(partial[:LINE_LIMIT_BYTES])])
            del partial[:LINE_LIMIT_BYTES]

    def _add(self, stream: Stream, lines: Iterable[bytes]) -> None:
        prefix = f"{stamp(self._wall_s())} {stream} ".encode()
        for line in lines:
            for start in range(0, len(line) or 1, LINE_LIMIT_BYTES):
                whole = prefix + line[start : start + LINE_LIMIT_BYTES] + b"\n"
                self._waiting.append(whole)
                self._waiting_bytes += len(whole)
                if self._waiting_bytes >= FLUSH_BYTES:
                    self.flush()
        if self._waiting and self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(FLUSH_AFTER_S, self.flush)

    def _remark(self) -> bytes:
        if not self._unsaid:
            return b""
        # The last write may have ended in the middle of a line.
        lead = "\n" if self._is_torn else ""
        text = f"{lead}{stamp(self._wall_s())} octave {self._unsaid} lines could not be written\n"
        return text.encode()

    def _write(self, content: bytes) -> bytes:
        """Return what could not be written."""
        written = 0
        try:
            if self._file is None:
                flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
                self._file = os.open(self.path, flags, 0o600)
            while written < len(content):
                written += os.write(self._file, memoryview(content)[written:])
        except OSError:
            self._is_torn = self._is_torn or written > 0
        else:
            self._is_torn = False
        return content[written:]


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of a log file."""

    at: str
    """RFC 3339 in UTC; empty for a line without a time at the head of a damaged file."""
    server: str
    stream: str
    line: bytes
    """The server's own bytes, without the line end. Foreign: escape before showing."""


def read(path: Path, last_lines: int | None = None, since: str | None = None) -> Iterator[Entry]:
    """Yield the entries of a log, oldest first; nothing when there is no file.

    Of the `last_lines` last lines (None: all), those not older than `since` (as `stamp` gives
    it). Only what is asked for is read.
    """
    with _Tail(path) as tail:
        yield from tail.last(last_lines, since)
        yield from tail.rest()


def merge(*entries: Iterable[Entry]) -> Iterator[Entry]:
    """Yield the entries of several logs by time; each must be ordered by itself."""
    return heapq.merge(*entries, key=lambda entry: entry.at)


def follow(
    paths: Sequence[Path],
    last_lines: int | None = 0,
    since: str | None = None,
    pause: Callable[[], object] = lambda: time.sleep(POLL_S),
) -> Iterator[Entry]:
    """Yield as `read` does, merged by time, then go on for ever with what is appended.

    No line is lost or shown twice between the two. Goes on with the new file when a path is
    renamed away or truncated; waits for a file that is not there yet. `pause` is called when
    there is nothing new.
    """
    with contextlib.ExitStack() as files:
        tails = [files.enter_context(_Tail(path)) for path in paths]
        yield from merge(*(tail.last(last_lines, since) for tail in tails))
        while True:
            fresh = sorted((e for tail in tails for e in tail.fresh()), key=lambda e: e.at)
            yield from fresh
            if not fresh:
                pause()


@dataclass(slots=True)
class _Tail:
    """A log file that is read on while it grows."""

    path: Path
    _file: IO[bytes] | None = None
    _partial: bytes = b""
    _at: str = ""
    _inode: int = -1

    def __enter__(self) -> "_Tail":
        self._open()
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def last(self, last_lines: int | None, since: str | None) -> Iterator[Entry]:
        """Yield the whole lines at the end of the file as it is now."""
        if self._file is None:
            return
        end = self._file.seek(0, os.SEEK_END)
        self._file.seek(_start_of_last(self._file, end, last_lines, since))
        for entry in self._entries():
            if since is None or entry.at >= since:
                yield entry

    def rest(self) -> Iterator[Entry]:
        """Yield the line that was never ended, if there is one."""
        if self._partial:
            yield self._entry(self._partial)

    def fresh(self) -> Iterator[Entry]:
        """Yield the whole lines appended since; none when there is no file."""
        yield from self._entries()
        if self._is_replaced():
            # Once more: lines written between the first look and the rename.
            yield from self._entries()
            yield from self.rest()
            self._close()
            self._open()
            yield from self._entries()

    def _entries(self) -> Iterator[Entry]:
        while self._file is not None and (read := self._file.readline()):
            self._partial += read
            if self._partial.endswith(b"\n"):
                whole, self._partial = self._partial[:-1], b""
                yield self._entry(whole)

    def _entry(self, line: bytes) -> Entry:
        found = _LINE.fullmatch(line)
        if found is None:
            # The rest of a line torn by a full disk.
            return Entry(self._at, self.path.stem, "err", line)
        self._at = found[1].decode()
        return Entry(self._at, self.path.stem, found[2].decode(), found[3])

    def _is_replaced(self) -> bool:
        try:
            found = self.path.stat()
        except OSError:
            return False
        if self._file is None or found.st_ino != self._inode:
            return True
        return found.st_size < self._file.tell()

    def _open(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            self._file = self.path.open("rb")
            self._inode = os.fstat(self._file.fileno()).st_ino

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
        self._file, self._partial = None, b""


def _start_of_last(file: IO[bytes], end: int, last_lines: int | None, since: str | None) -> int:
    """Return an offset, at the start of a line, from which all that is asked for can be read."""
    if last_lines is None and since is None:
        return 0
    if last_lines == 0:
        return end
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
