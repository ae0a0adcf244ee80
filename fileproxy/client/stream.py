"""Files that are one answer only: no strong validator, or no size. One stream from the first byte to the proved end.

When it breaks nothing can be continued: what came may be of another version than what would come. The part file is
removed and the break is told.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from fileproxy.client.contact import Opened
from fileproxy.client.failures import DownloadFailed
from fileproxy.client.partfile import PartFile
from fileproxy.client.rate import RateLimit
from fileproxy.clock import Clock
from fileproxy.errors import UpstreamError


async def stream(
    opened: Opened,
    part: PartFile,
    *,
    limit: RateLimit | None,
    clock: Clock,
    timeout_s: float,
    accept_unframed: bool,
    report: Callable[[], None],
) -> int:
    """The whole body into the part file; its length. Closes the body.

    Raises:
        DownloadFailed: it broke, was silent for ``timeout_s``, or only the close of the connection ended it (which
            proves nothing, law 2) and that is not accepted.
    """
    body, at = opened.answer.body, 0
    pieces = body.__aiter__()
    try:
        while True:
            async with asyncio.timeout(timeout_s):
                piece = await anext(pieces, None)
            if piece is None:
                break
            assert isinstance(piece, bytes)
            part.write(piece, at)
            part.done.add(at, at + len(piece))
            at += len(piece)
            opened.mirror.delivered(len(piece))
            if limit is not None:
                await limit.take(len(piece))
            report()
    except (UpstreamError, TimeoutError) as error:
        said = error.detail if isinstance(error, UpstreamError) else f"nothing came for {timeout_s:g} s"
        raise DownloadFailed(f"{said}; the server names no version of the file, so it cannot be continued") from error
    finally:
        await body.aclose()
    if not body.framed and not accept_unframed:
        raise DownloadFailed(
            f"{opened.mirror.url.partition('?')[0]}: only the close of the connection ended the file, which proves "
            "nothing; give its --checksum, or take it with --accept-unframed"
        )
    return at
