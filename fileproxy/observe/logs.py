"""Log lines: one JSON object each, whatever a header or an exception holds.

Laws kept here:

* A line cannot be forged or broken by what it holds (``lines.py``).
* Logging never fails a request. A line that cannot be written is counted (``logs.dropped``) and ``problems`` says why
  until it works again (``stream.py``, ``sink.py``).
* Access lines wait at most 100 ms or for 64 KiB and go out in one write. Error lines go out at once.
* Secrets in URLs are masked (``masks.py``).
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, MutableMapping
from datetime import UTC, datetime
from typing import Any

import structlog

from fileproxy.clock import Clock, SystemClock
from fileproxy.model import Counters
from fileproxy.observe.lines import encode
from fileproxy.observe.masks import mask_url
from fileproxy.observe.stream import Stream
from fileproxy.settings import schema

LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40, "critical": 50}
_URLS = frozenset({"target", "url", "referer", "location"})


class Logs:
    """The access log and the error log of one process.

    ``facts`` (pid, worker …) are put into every error line. Making one never fails: what cannot be opened goes to
    stderr, is named in ``problems``, and is tried again later.
    """

    def __init__(
        self,
        settings: schema.Logs,
        *,
        counters: Counters | None = None,
        facts: Mapping[str, object] = {},
        clock: Clock | None = None,
    ) -> None:
        self._clock = clock or SystemClock()
        self._facts = dict(facts)
        self._threshold = LEVELS[settings.level]
        self._captured: list[tuple[logging.Logger, list[logging.Handler], int, bool]] = []
        self._error = Stream(settings.error, counters, self._clock)
        self._access = None if settings.access == "off" else Stream(settings.access, counters, self._clock)
        self._audit = None if settings.audit == "off" else Stream(settings.audit, counters, self._clock)
        self.logger: structlog.typing.FilteringBoundLogger = structlog.wrap_logger(
            _Lines(self._error),
            processors=[self._drop_minor, structlog.processors.format_exc_info, self._render],
            wrapper_class=structlog.make_filtering_bound_logger(logging.NOTSET),
        )
        for name, problem in self.problems.items():
            self.event("error", "log target not usable", log=name, problem=problem)

    @property
    def problems(self) -> dict[str, str]:
        """What is wrong now, by log (``access``, ``error``). Empty when all is well."""
        streams = {"access": self._access, "error": self._error, "audit": self._audit}
        return {name: stream.problem for name, stream in streams.items() if stream and stream.problem}

    def access(self, **fields: object) -> None:
        """One line for one request. The time is added, URLs are masked."""
        if self._access is not None:
            self._access.put(self._line(fields))

    def part(self, **fields: object) -> bytes:
        """These fields as they stand within an access line: for lines that are made of parts (``access_batch``)."""
        return encode(_masked(fields))[1:-2]

    def access_start(self) -> bytes | None:
        """How the lines of requests begin that end now, up to the text of their id; None when there is no log."""
        return None if self._access is None else b'{"time":"%b","id":"' % self._time().encode()

    def access_batch(self, lines: bytes) -> None:
        """Whole lines, made of ``access_start`` and parts."""
        if self._access is not None:
            self._access.put(lines)

    def audit(self, line: bytes) -> None:
        """One whole line of the audit log: who did what through the admin API."""
        if self._audit is not None:
            self._audit.put_now(line)

    def event(self, level: str, event: str, **fields: object) -> None:
        """One line in the error log, if ``level`` is not below ``logs.level``."""
        self.logger.log(LEVELS[level], event, **fields)

    def flush(self) -> None:
        """Write what waits."""
        for stream in (self._access, self._error, self._audit):
            if stream is not None:
                stream.flush()

    def reopen(self) -> list[str]:
        """Open files by their names again, after rotation. What fails keeps its old file, is logged and returned."""
        problems: list[str] = []
        for name, stream in (("access", self._access), ("error", self._error), ("audit", self._audit)):
            if stream is not None and (problem := stream.reopen()):
                problems.append(f"logs.{name}: {problem}")
                self.event("error", "log target not reopened", log=name, problem=problem)
        return problems

    def apply(self, settings: schema.Logs) -> list[str]:
        """Take over new settings. A target that cannot be opened leaves the old one in use; said, and returned."""
        problems: list[str] = []
        self._threshold = LEVELS[settings.level]
        self._access = self._redirected("access", self._access, settings.access, problems)
        self._audit = self._redirected("audit", self._audit, settings.audit, problems)
        if problem := self._error.redirect(settings.error):
            problems.append(f"logs.error: {problem}")
        for problem in problems:
            self.event("error", "log target not changed", problem=problem)
        self._set_captured_level()
        return problems

    def _redirected(self, name: str, stream: Stream | None, target: str, problems: list[str]) -> Stream | None:
        """A log that may be ``off``, sent to ``target``; what goes wrong is added to ``problems``."""
        if target == "off":
            if stream is not None:
                stream.close()
            return None
        if stream is None:
            stream = Stream(target, self._error.counters, self._clock)
            problem = stream.problem
        else:
            problem = stream.redirect(target)
        if problem:
            problems.append(f"logs.{name}: {problem}")
        return stream

    def capture(self, *names: str) -> None:
        """Route the stdlib loggers of these names (default: all) into the error log. ``close`` gives them back."""
        for name in names or ("",):
            logger = logging.getLogger(name)
            self._captured.append((logger, logger.handlers[:], logger.level, logger.propagate))
            logger.handlers[:] = [_Bridge(self)]
            logger.propagate = False
        self._set_captured_level()

    def _set_captured_level(self) -> None:
        for logger, *_ in self._captured:
            logger.setLevel(self._threshold)

    def close(self) -> None:
        """Write what waits, close the files, give back captured loggers. May be called twice."""
        while self._captured:
            logger, handlers, level, propagate = self._captured.pop()
            logger.handlers[:] = handlers
            logger.setLevel(level)
            logger.propagate = propagate
        for stream in (self._access, self._error, self._audit):
            if stream is not None:
                stream.close()

    def _drop_minor(self, _: object, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        if LEVELS[method] < self._threshold:
            raise structlog.DropEvent
        event["level"] = method
        return event

    def _render(self, _: object, __: str, event: MutableMapping[str, Any]) -> bytes:
        head = {"level": event.pop("level"), "event": event.pop("event")}
        return self._line({**head, **self._facts, **event})

    def _line(self, fields: Mapping[str, object]) -> bytes:
        return encode(_masked({"time": self._time(), **fields}))

    def _time(self) -> str:
        now = datetime.fromtimestamp(self._clock.time(), UTC).isoformat(timespec="milliseconds")
        return f"{now[:-6]}Z"


def _masked(fields: Mapping[str, object]) -> dict[str, object]:
    """The fields without the secrets of their URLs."""
    line = dict(fields)
    for name in _URLS.intersection(line):
        if isinstance(value := line[name], str):
            line[name] = mask_url(value)
    return line


class _Lines:
    """What structlog hands a rendered line to."""

    def __init__(self, stream: Stream) -> None:
        self.debug = self.info = self.warning = self.error = self.critical = stream.put_now


class _Bridge(logging.Handler):
    """Records of Python's logging (asyncio, aiohttp, gunicorn) as lines of ours."""

    def __init__(self, logs: Logs) -> None:
        super().__init__()
        self._logs = logs

    def emit(self, record: logging.LogRecord) -> None:
        level = next((name for name, number in reversed(LEVELS.items()) if number <= record.levelno), "debug")
        try:
            message = record.getMessage()
        except (TypeError, ValueError) as error:  # the caller's arguments do not fit its own format
            message = f"{record.msg} ({error})"
        fields: dict[str, object] = {"logger": record.name}
        if record.exc_info and record.exc_info[0] is not None:
            fields["exc_info"] = record.exc_info
        self._logs.event(level, message, **fields)
