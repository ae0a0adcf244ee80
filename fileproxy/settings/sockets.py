"""Options of TCP connections, to clients and to upstreams alike."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Ge, Le
from pydantic import Field, StringConstraints, Tag

from fileproxy.settings.types import Auto, Duration, Meaning, Off, OrOff, Row, Size, Switch, Whole

# setsockopt takes whole seconds and a C int.
KernelSeconds = Annotated[Duration, Ge(1), Le(32767), Meaning("a time of whole seconds like 60s"), Field(multiple_of=1)]
KernelBytes = Annotated[Size, Ge(1024), Le(1024**3)]


class KeepAlive(Row):
    idle: KernelSeconds = Field(60.0, description="Silence before the kernel asks whether the peer is still there.")
    interval: KernelSeconds = Field(10.0, description="Time between two such probes.")
    count: Whole = Field(6, ge=1, le=127, description="Probes without an answer until the connection counts as dead.")


class Sockets(Row):
    """TCP options of one side. `auto` leaves a value to the kernel, which tunes buffers better than a fixed size."""

    nodelay: Switch = Field(True, description="Send small segments at once (TCP_NODELAY).")
    quickack: Switch = Field(True, description="Acknowledge at once at the start of a connection (TCP_QUICKACK).")
    keepalive: Annotated[Annotated[KeepAlive, Tag("group")] | Annotated[Off, Tag("off")], OrOff] = Field(
        KeepAlive(), description="Probe silent peers (SO_KEEPALIVE), or `off`."
    )
    send_buffer: KernelBytes | Auto = Field("auto", description="SO_SNDBUF in bytes; a fixed size stops autotuning.")
    receive_buffer: KernelBytes | Auto = Field("auto", description="SO_RCVBUF in bytes; a fixed size stops autotuning.")
    notsent_lowat: KernelBytes | Auto = Field(
        "auto",
        description="Unsent bytes kept in the kernel for a connection (TCP_NOTSENT_LOWAT); auto = towards clients by"
        " the quality of their path, else the kernel's.",
    )
    congestion: Annotated[
        str, Meaning("a kernel's name like bbr, or auto"), StringConstraints(pattern=r"^[a-z0-9_-]{1,15}$")
    ] = Field(
        "auto",
        description="Congestion control: auto = the system's, but bbr towards clients that are far or lose packets;"
        " system = always the system's; or a kernel's name; unknown: kept as it was.",
    )
