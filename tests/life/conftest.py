from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest

from tests.origin import OriginThread

if TYPE_CHECKING:
    from tests.service import Service

Start = Callable[..., "Service"]


@pytest.fixture
def threaded() -> Iterator[OriginThread]:
    """A scripted origin in a thread of its own."""
    with OriginThread() as origin:
        yield origin
