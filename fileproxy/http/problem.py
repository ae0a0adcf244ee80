"""What a client is told when something goes wrong: problem+json (RFC 9457) and Proxy-Status (RFC 9209)."""

from __future__ import annotations

import msgspec

from fileproxy.http.structured import sf_string, sf_token_or_string

CONTENT_TYPE = "application/problem+json"
_LONGEST_DETAILS = 512  # characters; a header field must stay small whatever the error says


def problem(status: int, title: str, detail: str, request_id: str, instance: str) -> bytes:
    """The JSON body. ``instance`` is the target that was asked for. Bytes that are no UTF-8 are shown as ``?``."""
    return msgspec.json.encode(
        {
            "type": "about:blank",
            "title": _text(title),
            "status": status,
            "detail": _text(detail),
            "instance": _text(instance),
            "request_id": _text(request_id),
        }
    )


def proxy_status(name: str, error: str | None, detail: str, received_status: int | None = None) -> str:
    """The Proxy-Status member of the proxy ``name``.

    ``error`` is a type of RFC 9209 §2.3 (or None), ``detail`` goes into ``details``, ``received_status`` is the status
    the upstream answered with, when it did.
    """
    parts = [sf_token_or_string(name)]
    if error is not None:
        parts.append(f"error={sf_token_or_string(error)}")
    if received_status is not None:
        parts.append(f"received-status={received_status}")
    if detail:
        parts.append(f"details={sf_string(detail[:_LONGEST_DETAILS])}")
    return "; ".join(parts)


def _text(text: str) -> str:
    return text.encode("utf-8", "replace").decode("utf-8")
