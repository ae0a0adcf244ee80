"""Which transports have a descriptor that takes the bytes of files as they are."""

from __future__ import annotations

import socket
from typing import Any

from fileproxy.server import sendfile


def test_not_where_bytes_are_encrypted_or_gone() -> None:
    class Transport:
        def __init__(self, **extra: Any) -> None:
            self._extra = extra

        def is_closing(self) -> bool:
            return "closing" in self._extra

        def get_extra_info(self, name: str) -> Any:
            return self._extra.get(name)

    with socket.socket() as sock:
        found = [
            sendfile.descriptor_of(transport)  # type: ignore[arg-type]
            for transport in (
                Transport(socket=sock), Transport(socket=sock, sslcontext=object()), Transport(), None,
                Transport(socket=sock, closing=True),
            )
        ]  # fmt: skip
        assert found == [sock.fileno(), None, None, None, None]
