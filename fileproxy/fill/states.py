"""Where a flight can stand, and from where it can go where. Pure."""

from __future__ import annotations

import enum


class State(enum.Enum):
    """Where a flight stands."""

    CONNECTING = "the request for its bytes is on its way"
    STREAMING = "bytes land"
    PAUSED = "a window ahead of its fastest reader"
    RESUMING = "its connection broke; it goes on at the next missing byte"
    DONE = "all its bytes have landed"
    FAILED = "it could not go on; readers are told why"
    STOPPED = "nobody reads it any more"

    __hash__ = object.__hash__  # as each member is one object: Enum's takes its time


EDGES: dict[State, frozenset[State]] = {
    State.CONNECTING: frozenset({State.STREAMING, State.RESUMING, State.FAILED, State.STOPPED}),
    State.STREAMING: frozenset({State.PAUSED, State.RESUMING, State.DONE, State.FAILED, State.STOPPED}),
    State.PAUSED: frozenset({State.STREAMING, State.FAILED, State.STOPPED}),
    State.RESUMING: frozenset({State.CONNECTING, State.FAILED, State.STOPPED}),
    State.DONE: frozenset(),
    State.FAILED: frozenset(),
    State.STOPPED: frozenset(),
}
OVER = frozenset({State.DONE, State.FAILED, State.STOPPED})
