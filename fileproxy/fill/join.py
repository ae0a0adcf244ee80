"""Law 1: which bytes may be joined to which. Pure.

Two responses belong to one representation only when a strong validator says so: the same strong ETag, or the same
Last-Modified that is strong (RFC 9110 §8.8.2.2), and with either the same total size and Content-Encoding. What cannot
be shown does not join.

``size_and_time`` (``mirrors_match: size+mtime``) is the operator's word that files of one size and one strong
Last-Modified are the same on all mirrors, whatever their ETags: servers often make these of an inode, or of chance.
"""

from __future__ import annotations

from dataclasses import dataclass

from fileproxy.http.dates import format_date, last_modified_is_strong, parse_date
from fileproxy.http.etags import parse_etag, strong_equal, weak_equal
from fileproxy.http.ranges import parse_content_range
from fileproxy.model import Headers, Meta, header, header_list


@dataclass(frozen=True, slots=True)
class Joins:
    """The answer's bytes belong to the entry; the first ``skip`` of them come before the wanted one."""

    skip: int = 0
    end: int | None = None  # exclusive end of what it holds, within the representation


@dataclass(frozen=True, slots=True)
class Differs:
    """The answer's bytes do not belong to the entry, or nothing shows that they do."""

    reason: str
    changed: bool = False  # the file is another one now, so what is kept of the old one is of no use


def is_pinned(headers: Headers, now: float) -> bool:
    """Whether an answer with these headers carries a strong validator."""
    etag = parse_etag(header(headers, "ETag"))
    if etag is not None:
        return not etag.weak
    return _strong_time(headers, now) is not None


def _strong_time(headers: Headers, now: float) -> int | None:
    """Last-Modified where it alone tells versions apart."""
    modified, date = (parse_date(header(headers, name), now) for name in ("Last-Modified", "Date"))
    return modified if last_modified_is_strong(modified, int(now) if date is None else date) else None


def if_range(meta: Meta, *, size_and_time: bool = False) -> str | None:
    """The validator for If-Range (§13.1.5); None when the entry is not pinned.

    With ``size_and_time`` that is the date, where it is strong: any mirror may be asked, and an ETag is one's own.
    """
    if not meta.pinned:
        return None
    if size_and_time and (time := _strong_time(meta.headers, meta.received_at)) is not None:
        return format_date(time)
    etag = parse_etag(header(meta.headers, "ETag"))
    if etag is not None and not etag.weak:
        return str(etag)
    modified = parse_date(header(meta.headers, "Last-Modified"), meta.received_at)
    return None if modified is None else format_date(modified)


def same_representation(
    meta: Meta, headers: Headers, size: int | None, now: float, *, size_and_time: bool = False
) -> bool:
    """Whether an answer of ``size`` bytes altogether is of the representation that ``meta`` names."""
    if not meta.pinned or size != meta.size or _coding(headers) != _coding(meta.headers):
        return False
    if size_and_time:
        time = _strong_time(headers, now)
        if time is not None and time == _strong_time(meta.headers, meta.received_at):
            return True
    etag = parse_etag(header(meta.headers, "ETag"))
    if etag is not None and not etag.weak:
        return strong_equal(etag, parse_etag(header(headers, "ETag")))
    modified = parse_date(header(meta.headers, "Last-Modified"), now)
    return modified is not None and modified == parse_date(header(headers, "Last-Modified"), now)


def judge(
    meta: Meta,
    status: int,
    headers: Headers,
    length: int | None,
    first: int,
    last: int,
    now: float,
    *,
    size_and_time: bool = False,
) -> Joins | Differs:
    """Whether the answer to a request for bytes ``first`` to ``last`` (inclusive) of the entry may be joined to it.

    Args:
        length: bytes of the answer's body, None when its framing does not tell.
    """
    if status == 206:
        part = parse_content_range(header(headers, "Content-Range") or "")
        if part is None:
            return Differs("a part without a valid Content-Range")
        if part.size != meta.size:
            return Differs(f"a part of a file of {part.size} bytes instead of {meta.size}", part.size is not None)
        if part.first != first or part.last > last:
            return Differs(f"bytes {part.first}-{part.last} instead of {first}-{last}")
        if length is not None and length != part.length:
            return Differs("a Content-Range that contradicts Content-Length")
        if not same_representation(meta, headers, part.size, now, size_and_time=size_and_time):
            return Differs("a part of another version of the file", _names_another(meta, headers, size_and_time))
        return Joins(0, part.last + 1)
    if status == 200:
        if same_representation(meta, headers, length, now, size_and_time=size_and_time):
            return Joins(first, meta.size)
        changed = length != meta.size or _names_another(meta, headers, size_and_time)
        return Differs("another version of the file", changed)
    if status in (404, 410, 412, 416):
        return Differs(f"status {status}: the file is not what it was", changed=True)
    return Differs(f"status {status}")


def _names_another(meta: Meta, headers: Headers, size_and_time: bool) -> bool:
    """Whether the answer says by its own validator that it is another version (not merely that it says nothing)."""
    etag = parse_etag(header(headers, "ETag"))
    if etag is not None and not (size_and_time and header(headers, "Last-Modified") is not None):
        return not weak_equal(etag, parse_etag(header(meta.headers, "ETag")))  # a weakened tag proves nothing
    modified = header(headers, "Last-Modified")
    return modified is not None and modified != header(meta.headers, "Last-Modified")


def _coding(headers: Headers) -> str:
    return (header_list(headers, "Content-Encoding") or "").lower().replace(" ", "")
