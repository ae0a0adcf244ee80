"""The token that every admin call needs: a file its owner may read, made at the first start."""

from __future__ import annotations

import hmac
import secrets
from pathlib import Path
from typing import Literal

from fileproxy.keyfile import made_once
from fileproxy.model import Headers, header_values

Standing = Literal["granted", "missing", "wrong"]


class TokenUnusable(Exception):
    """Nobody can be let in. The text is a sentence for the operator."""


class Token:
    """The token in ``path``. The file is read for each call, so that changing it needs no restart."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.problem: str | None = None  # why no admin call can be allowed, or None
        try:
            self._read()
        except TokenUnusable:
            return  # said in ``problem``, and tried again with each call

    def check(self, headers: Headers) -> Standing:
        """Does ``Authorization: Bearer …`` (RFC 6750 §2.1) carry the token? Raises TokenUnusable."""
        token = self._read()
        given = header_values(headers, "authorization")
        if not given:
            return "missing"
        scheme, _, value = given[0].strip().partition(" ")
        told = value.strip().encode("utf-8", "surrogateescape")
        same = hmac.compare_digest(told, token)  # takes as long whatever is wrong with it
        return "granted" if same and scheme.lower() == "bearer" and len(given) == 1 else "wrong"

    def _read(self) -> bytes:
        try:
            token = made_once(self._path, lambda: secrets.token_urlsafe(32).encode() + b"\n").strip()
        except OSError as error:
            self.problem = f"The admin token file {self._path} cannot be used: {error.strerror or error}."
            raise TokenUnusable(self.problem) from error
        self.problem = None
        return token
