"""What ``auto`` means in each profile."""

from __future__ import annotations

from dataclasses import asdict

import pytest

from fileproxy.settings import resolve
from fileproxy.settings.schema import Limits, Pool, Sockets, Timeouts

OPTIMIZED = {
    "limit": 200,
    "per_host": 50,
    "keepalive": 60.0,
    "dns_cache": 600.0,
    "buffer": 131072,
    "happy_eyeballs": 0.25,
}
BASELINE = {
    "limit": 100,
    "per_host": 30,
    "keepalive": 30.0,
    "dns_cache": 500.0,
    "buffer": 65536,
    "happy_eyeballs": 0.25,
}


@pytest.mark.parametrize(("profile", "values"), [("optimized", OPTIMIZED), ("baseline", BASELINE)])
def test_the_pool(profile: resolve.Profile, values: dict[str, object]) -> None:
    assert asdict(resolve.pool(profile, Pool())) == values
    own = Pool.model_validate(
        {"limit": 7, "per_host": 8, "keepalive": "9s", "dns_cache": "10s", "buffer": "11KiB", "happy_eyeballs": "off"}
    )
    assert list(asdict(resolve.pool(profile, own)).values()) == [7, 8, 9.0, 10.0, 11264, "off"]


def test_zero_is_a_value_not_auto() -> None:
    assert resolve.pool("optimized", Pool.model_validate({"keepalive": 0, "dns_cache": 0})).keepalive == 0.0


@pytest.mark.parametrize(("profile", "connect"), [("optimized", 15.0), ("baseline", 8.0)])
def test_the_timeouts(profile: resolve.Profile, connect: float) -> None:
    assert asdict(resolve.timeouts(profile, Timeouts())) == {
        "connect": connect,
        "first_byte": 30.0,
        "stall": 10.0,
        "idle": 60.0,
    }
    own = Timeouts.model_validate({"connect": 1, "first_byte": 2, "stall": 3, "idle": 4})
    assert list(asdict(resolve.timeouts(profile, own)).values()) == [1.0, 2.0, 3.0, 4.0]


def test_baseline_sockets_stay_as_the_system_makes_them() -> None:
    assert resolve.sockets("baseline", Sockets()) is None
    assert resolve.sockets("optimized", Sockets()) == Sockets()


@pytest.mark.parametrize(("descriptors", "most"), [(65536, 32640), (20000, 9872), (256, 16), (0, 16)])
def test_connections_follow_the_descriptors(descriptors: int, most: int) -> None:
    assert resolve.connections(Limits(), descriptors) == most
    assert resolve.connections(Limits(connections=3), descriptors) == 3
