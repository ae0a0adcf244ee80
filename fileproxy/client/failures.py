"""What a download can end with. All are ``FileProxyError``: their ``detail`` is one sentence for a person."""

from __future__ import annotations

from fileproxy.errors import BadAnswer, FileProxyError


class DownloadError(FileProxyError):
    """Base of what the client raises. What was fetched stays in the part file unless the sentence says otherwise."""


class DownloadFailed(DownloadError):
    """No mirror could give the missing bytes, or what came may not be joined to what is here."""

    source = "upstream"
    status = 502


class PartFileError(DownloadError):
    """The file or its part file is in the way, is used by another download, or cannot be continued."""


class ChecksumMismatch(DownloadError):
    """Every byte is here, but together they are not what was promised."""

    source = "upstream"
    status = 502


class Declined(BadAnswer):
    """A mirror answered with an error status, or with bytes that do not belong to this file.

    Attributes:
        answer_status: what it answered.
        changed: it holds another version of the file now, or none.
    """

    def __init__(
        self,
        detail: str,
        answer_status: int,
        *,
        retry_after_s: float | None = None,
        changed: bool = False,
        retryable: bool = True,
    ) -> None:
        super().__init__(detail, retry_after_s=retry_after_s, retryable=retryable)
        self.answer_status = answer_status
        self.changed = changed
