"""A server's log file: the runtime's side appends to it; `log_reader` has the other side.

One line per line: RFC 3339 time in UTC with milliseconds, the stream (`err`, `out` for what does
not belong on stdout, `octave` for the runtime's own events), then the bytes as they came. Writing
never raises: what the disk does not take is counted. A full file is rotated and packed.
"""

import asyncio
import os
import threading
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from octave.runtime import log_files

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
ROTATE_BYTES = 100 * 10**6
KEEP = 5
PACK_RETRY_S = 60.0
"""After rotating or packing failed (full disk, another process): either may read 100 MB in vain."""
_LINES_AT_ONCE = 1000
"""Joined at once: an endless stream of empty lines would grow thirtyfold."""


def stamp(at_s: float) -> str:
    """Return the wall-clock time `at_s` (seconds since 1970) as log lines carry it.

    The texts sort as the times do.
    """
    return datetime.fromtimestamp(at_s, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"


class ServerLog:
    """The writing end. Belongs to one event loop; the file is opened at the first write.

    At most `FLUSH_BYTES` and one partial line per stream wait in memory. Lines that cannot be
    written (full disk, missing folder) are dropped and counted, and the file says so once it
    takes lines again. At `rotate_bytes` a new file is begun and the old one packed in a thread,
    `keep` of them; while the one before is being packed, it may grow longer.
    """

    def __init__(
        self,
        path: Path,
        wall_s: Callable[[], float] = time.time,
        *,
        rotate_bytes: int = ROTATE_BYTES,
        keep: int = KEEP,
    ) -> None:
        self.path = path
        self.dropped = 0
        """Lines lost so far."""
        self.noise_lines = 0
        """Lines of noise so far, kept or not."""
        self._wall_s = wall_s
        self._partial: dict[tuple[Stream, int], bytearray] = {}
        self._waiting: list[bytes] = []
        self._waiting_bytes = 0
        self._file: int | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._unsaid = 0
        self._is_torn = False
        self._noise_window = (0.0, 0)
        self._rotate_bytes = rotate_bytes
        self._keep = keep
        self._packing: asyncio.Future[bool] | None = None
        self._is_closed = threading.Event()
        self._retry_at_s = 0.0

    @property
    def is_packing(self) -> bool:
        """Whether an old file is being packed."""
        return self._packing is not None

    def feed(self, stream: Stream, chunk: bytes, source: int = 0) -> None:
        """Append bytes of a stream; only whole lines, or 64 KiB of one, go on to the file.

        Processes that write at the same time have a `source` each, so that no line is mixed.
        """
        *lines, rest = chunk.split(b"\n")
        key = stream, source
        partial = self._partial.get(key)
        if partial:
            first = lines[0] if lines else rest
            partial += first
            if lines:
                lines[0] = bytes(partial)
                self._partial[key] = bytearray(rest)
        elif rest:
            self._partial[key] = bytearray(rest)
        if lines:
            self._add(stream, lines)
        self._split_partial(key)

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

    def end_lines(self, source: int | None = None) -> None:
        """Write everything now, partial lines of `source` (None: all) too: its process is gone."""
        for key in [key for key in self._partial if source in (None, key[1])]:
            partial = self._partial.pop(key)
            if partial:
                self._add(key[0], [bytes(partial)])
        self.flush()

    def rest(self) -> None:
        """Write everything and let the file go until `feed` or `event` opens it again.

        Open files are scarce, and most servers sleep most of the time. Packing goes on.
        """
        self.end_lines()
        self._close_file()

    def close(self) -> None:
        """Write everything and close the file; `feed` opens it again.

        What is being packed then is left for the next time the file is opened.
        """
        self.end_lines()
        self._close_file()
        self._is_closed.set()

    def flush(self) -> None:
        """Write the whole lines that wait."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        content = b"".join(self._waiting)
        self._waiting, self._waiting_bytes = [], 0
        if not content:
            return
        head = self._head() if self._is_open() else b""
        unwritten = self._write(head + content)
        if len(unwritten) <= len(content):
            self._unsaid = 0
        lost = unwritten[-len(content) :].count(b"\n")
        self.dropped += lost
        self._unsaid += lost
        self._rotate_when_full()

    def _split_partial(self, key: tuple[Stream, int]) -> None:
        partial = self._partial.get(key)
        while partial is not None and len(partial) >= LINE_LIMIT_BYTES:
            self._add(key[0], [bytes(partial[:LINE_LIMIT_BYTES])])
            del partial[:LINE_LIMIT_BYTES]

    def _add(self, stream: Stream, lines: Sequence[bytes]) -> None:
        if max(map(len, lines)) > LINE_LIMIT_BYTES:
            lines = [piece for line in lines for piece in _pieces(line)]
        prefix = f"{stamp(self._wall_s())} {stream} ".encode()
        between = b"\n" + prefix
        for start in range(0, len(lines), _LINES_AT_ONCE):
            whole = prefix + between.join(lines[start : start + _LINES_AT_ONCE]) + b"\n"
            self._waiting.append(whole)
            self._waiting_bytes += len(whole)
            if self._waiting_bytes >= FLUSH_BYTES:
                self.flush()
        if self._waiting and self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(FLUSH_AFTER_S, self.flush)

    # The file.

    def _head(self) -> bytes:
        """Return what must be written before anything else."""
        lead = b"\n" if self._is_torn else b""
        if not self._unsaid:
            return lead
        text = f"{stamp(self._wall_s())} octave {self._unsaid} lines could not be written\n"
        return lead + text.encode()

    def _write(self, content: bytes) -> bytes:
        """Return what could not be written."""
        if self._file is None:
            return content
        written = 0
        try:
            while written < len(content):
                written += os.write(self._file, memoryview(content)[written:])
            self._is_torn = False
        except OSError:
            self._is_torn = (
                self._is_torn if written == 0 else content[written - 1 : written] != b"\n"
            )
        return content[written:]

    def _is_open(self) -> bool:
        """Open the file unless it is open; False when that is impossible."""
        if self._file is not None and os.fstat(self._file).st_nlink:
            return True
        # Somebody deleted it, or it is the first time.
        self._close_file()
        try:
            self._file = log_files.open_to_append(self.path)
            self._is_torn = log_files.is_torn(self._file)
        except OSError:
            return False
        self._is_closed = threading.Event()
        if log_files.is_unpacked(self.path):
            self._pack()
        return True

    def _close_file(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None

    # Rotation.

    def _rotate_when_full(self) -> None:
        if self._file is None or os.fstat(self._file).st_size < self._rotate_bytes:
            return
        if self._packing is not None or not self._may_try():
            return
        try:
            is_rotated = log_files.rotate(self.path, self._file)
        except OSError:
            is_rotated = False
        self._close_file()
        if is_rotated or log_files.is_unpacked(self.path):
            self._pack()
        else:
            self._try_later()

    def _pack(self) -> None:
        if self._packing is None and self._may_try():
            try:
                packing = asyncio.get_running_loop().run_in_executor(None, self._is_packed)
            except RuntimeError:  # no thread is to be had
                self._try_later()
                return
            packing.add_done_callback(self._packed)
            self._packing = packing

    def _is_packed(self) -> bool:
        is_closed = self._is_closed
        try:
            log_files.pack(self.path, self._keep, is_closed.is_set)
        except OSError:
            return False
        return is_closed.is_set() or not log_files.is_unpacked(self.path)

    def _packed(self, packing: asyncio.Future[bool]) -> None:
        self._packing = None
        if packing.cancelled() or not packing.result():
            self._try_later()

    def _may_try(self) -> bool:
        return asyncio.get_running_loop().time() >= self._retry_at_s

    def _try_later(self) -> None:
        self._retry_at_s = asyncio.get_running_loop().time() + PACK_RETRY_S


def _pieces(line: bytes) -> list[bytes]:
    return [line[n : n + LINE_LIMIT_BYTES] for n in range(0, len(line) or 1, LINE_LIMIT_BYTES)]
