"""What an upstream would be asked for is made once, and only when it is asked."""

from __future__ import annotations

from typing import cast

from fileproxy.cache.freshness import AUTO
from fileproxy.fill.need import need_of
from fileproxy.fill.values import Later, Source
from fileproxy.model import Ask, Fields, Target, Want

ASK = Ask(
    id="id",
    method="HEAD",
    target=Target("/f"),
    authority="files.test",
    scheme="http",
    client="192.0.2.7",
    peer="192.0.2.7",
    trusted_peer=False,
    headers=Fields((("If-None-Match", '"a"'),)),
)


def test_a_want_is_made_once_and_only_when_it_is_looked_at() -> None:
    made: list[Want] = []

    def make() -> Want:
        made.append(Want("HEAD", ASK.target, (("If-None-Match", '"a"'), ("Accept", "*/*"))))
        return made[-1]

    need = need_of(ASK, Later(make), "files//f", b"k" * 16, AUTO, cast(Source, None))
    assert need.conditional
    assert not need.for_origin
    assert not made
    assert need.want == Want("GET", ASK.target, (("Accept", "*/*"),))
    assert need.want is need.want
    assert len(made) == 1
