"""Options of a route: what it serves, to whom, in which codings, and what is kept of it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints, Tag, field_validator, model_validator

from fileproxy.http.coding import Coding
from fileproxy.settings.types import HOST, Auto, Duration, Meaning, Off, OrOff, Row, Size, Switch, Text, Token

MediaType = Annotated[
    str,
    Meaning("a media type like text/html, text/* or *+json"),
    StringConstraints(pattern=r"^([A-Za-z0-9.+-]+/([A-Za-z0-9.+-]+|\*)|\*\+[A-Za-z0-9.-]+)$", to_lower=True),
]


class Cors(Row):
    origins: list[
        Annotated[
            str,
            Meaning("a web origin like https://example.org, or *"),
            StringConstraints(pattern=rf"^(\*|[a-z][a-z0-9+.-]*://{HOST}(:[0-9]{{1,5}})?)$"),
        ]
    ] = Field(min_length=1, description="Web origins that may read these files, or `*`.")
    methods: list[Token] = Field(["GET", "HEAD"], description="Methods allowed to them.")
    headers: list[Token] = Field(["Range", "If-Range"], description="Request headers allowed to them, or `*`.")
    expose: list[Token] = Field(
        ["Content-Range", "Accept-Ranges", "ETag", "Content-Disposition", "Content-Length"],
        description="Response headers their scripts may read.",
    )
    credentials: Switch = Field(False, description="Allow cookies and Authorization.")
    max_age: Duration = Field(600.0, description="How long a browser may remember a preflight.")

    @model_validator(mode="after")
    def _no_credentials_for_everybody(self) -> Cors:
        if self.credentials and "*" in self.origins:
            raise ValueError("credentials cannot be allowed to every origin; name the origins")
        return self


class Compress(Row):
    """Answers in a content coding that the client takes (docs/compression.md)."""

    codings: list[Coding] = Field(
        ["zstd", "br", "gzip"], min_length=1, description="Codings offered; the first wins where a client has no wish."
    )
    types: list[MediaType] = Field(
        [
            "text/*", "*+json", "*+xml", "application/json", "application/x-ndjson", "application/xml",
            "application/javascript", "application/wasm", "application/yaml", "application/toml", "application/x-sh",
            "font/ttf", "font/otf", "image/bmp", "image/x-icon",
        ],
        description="Media types that are worth it: text/html, text/*, *+json.",
    )  # fmt: skip
    min_size: Size = Field(1024, description="Shorter files are sent as they are.")
    siblings: list[Coding] = Field(
        [], description="Codings in which the origin keeps files beside them: FILE.zst, FILE.br, FILE.gz are used then."
    )

    @field_validator("codings", "siblings")
    @classmethod
    def _once(cls, codings: list[Coding]) -> list[Coding]:
        if len(set(codings)) < len(codings):
            raise ValueError("each coding is named once")
        return codings


class Key(Row):
    """What tells two files of a route apart."""

    ignore_query: list[Text] = Field(
        [], description="Query parameters that do not matter (`utm_*` too; `*` = the whole query)."
    )
    per_user: Token | None = Field(
        None,
        description="Request header whose value keeps users apart (Authorization): makes private answers storable.",
    )


class Route(Row):
    path: str = Field("/", description="Prefix of the paths it serves; begins and ends at a `/`.")
    hosts: list[
        Annotated[
            str,
            Meaning("a host name without port, or *.example.org"),
            StringConstraints(pattern=rf"^(\*\.)?{HOST}$", to_lower=True),
        ]
    ] = Field([], description="Host names it serves (`*.example.org` too); empty = all.")
    upstream: Text = Field("files", description="Name of the upstream that holds the files.")
    methods: list[Literal["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]] = Field(
        ["GET", "HEAD"], min_length=1, description="Methods passed on; others get 405."
    )
    strip_prefix: Switch = Field(False, description="Take `path` away before asking the upstream.")
    cors: Annotated[Annotated[Cors, Tag("group")] | Annotated[Off, Tag("off")], OrOff] = Field(
        "off", description="Which web pages on other origins may read the files."
    )
    compress: Annotated[Annotated[Compress, Tag("group")] | Annotated[Off, Tag("off")], OrOff] = Field(
        Compress(), description="Answers in a content coding that the client takes, or `off` (as in the baseline)."
    )
    cache: Auto | Off | Duration = Field(
        "auto",
        description="auto = as the answers say (RFC 9111); off; or a time that answers stay fresh, whatever they say.",
    )
    key: Key = Field(Key(), description="Cache key: what of a request tells files apart.")
    ignore_request: Switch = Field(
        False,
        description="Ignore Cache-Control and Pragma of requests: a browser's reload costs the origin nothing.",
    )
    negative: Duration = Field(
        0.0,
        description="How long 404, 405, 410, 414 and 501 without a lifetime of their own stay fresh; 0 = not kept.",
    )
    max_object: Size | Off = Field("off", description="Larger files are passed through and not kept.")

    @field_validator("path")
    @classmethod
    def _prefix(cls, path: str) -> str:
        if not (path.startswith("/") and path.endswith("/")):
            raise ValueError(f"{path!r} must begin and end with a /")
        if path.startswith("/-/"):
            raise ValueError("/-/ is reserved for FileProxy itself")
        if any(ord(c) <= 0x20 or ord(c) >= 0x7F or c in '\\?#%"<>' for c in path) or "//" in path:
            raise ValueError(f"{path!r} must be plain ASCII without %, ?, #, \\, quotes or empty segments")
        if any(segment in (".", "..") for segment in path.split("/")):
            raise ValueError(f"{path!r} must not hold dot segments")
        return path
