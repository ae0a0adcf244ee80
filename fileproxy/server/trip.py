"""What is noted of one request while it is served, for the counters and the access line."""

from __future__ import annotations

from fileproxy.model import Answer, Ask
from fileproxy.server.reply import Reply
from fileproxy.server.running import Held
from fileproxy.server.service import Service
from fileproxy.settings.schema import Route


class Trip:
    """Notes of one request. ``finish`` counts them once and writes the access line."""

    __slots__ = (
        "__weakref__", "_first_byte_at", "_ours", "_sent", "_service", "_started", "answer", "ask", "cut", "ending",
        "held", "how", "reply", "route", "status",
    )  # fmt: skip

    def __init__(self, service: Service, started: float) -> None:
        self._service = service
        self._started = started  # clock.now() when the head was complete
        self._first_byte_at: float | None = None
        self._sent = 0
        self._ours = False  # the failure is a 5xx of ours, not one passed on
        self.ask: Ask | None = None
        self.route: Route | None = None
        self.answer: Answer | None = None
        self.reply: Reply | None = None
        self.status = 0
        self.how = ""  # what X-Cache said
        self.ending = "completed"
        self.cut = False  # broken off after the first byte
        self.held = Held()  # whom it waits for

    @property
    def id(self) -> str:
        return "" if self.ask is None else self.ask.id

    @property
    def target(self) -> str:
        return "" if self.ask is None else str(self.ask.target)

    @property
    def started(self) -> float:
        """``clock.now()`` when the head was complete."""
        return self._started

    @property
    def delivered(self) -> int:
        """Bytes of the body handed to the client so far."""
        return self._sent

    @property
    def started_sending(self) -> bool:
        """A byte of the answer is out; from now on a failure can only show as a cut."""
        return self._first_byte_at is not None

    def first_byte(self) -> None:
        self._first_byte_at = self._service.clock.now()
        if self.reply is not None:
            self.status = self.reply.status

    def failed(self, ending: str, *, ours: bool = False) -> None:
        """It did not end as asked; ``ours`` when that counts as an error of the service."""
        self.ending = ending
        self._ours = ours

    def sent(self, length: int) -> None:
        self._sent += length
        self._service.counters.traffic(length)

    def finish(self) -> None:
        """Count the ending and write the access line."""
        counters, now = self._service.counters, self._service.clock.now()
        failed = self._ours or self.cut
        counters.add(f"ending.{self.ending}")
        counters.add("requests")
        if self.cut:
            counters.add("downloads.cut")
        if failed:
            counters.add("errors")
        if self._first_byte_at is not None:
            counters.observe("response_time", self._first_byte_at - self._started)
        if self.route is not None:
            label = ",".join(self.route.hosts) + self.route.path
            counters.add("route.requests", label=label)
            counters.add("route.bytes", self._sent, label=label)
            if failed:
                counters.add("route.errors", label=label)
            if self._first_byte_at is not None:
                counters.observe("route.response_time", self._first_byte_at - self._started, label=label)
        if self.ask is not None:
            # What is stored, or shared by many, was not fetched by this request alone.
            fetched = None if self.answer is None or self.answer.stored else self.answer
            self._service.logs.access(
                id=self.ask.id,
                client=self.ask.client,
                method=self.ask.method,
                host=self.ask.authority,
                target=str(self.ask.target),
                status=self.status,
                bytes=self._sent,
                seconds=round(now - self._started, 6),
                first_byte=None if self._first_byte_at is None else round(self._first_byte_at - self._started, 6),
                ending=self.ending,
                cache=self.how or None,
                route=None if self.route is None else self.route.path,
                mirror=fetched.mirror if fetched is not None else None,
                tries=fetched.tries if fetched is not None else None,
            )
