"""`python -m benchmarks.link poor --congestion cubic --spokes 2`: a star to try things in by hand, until ^C."""

from __future__ import annotations

import argparse
import contextlib
import signal
import sys

from benchmarks.link.scenario import CONGESTIONS, SCENARIOS
from benchmarks.link.tun import Star, missing


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("scenario", choices=SCENARIOS)
    parser.add_argument("--spokes", type=int, default=1)
    parser.add_argument("--congestion", choices=CONGESTIONS)
    options = parser.parse_args()
    if lacks := missing():
        print("\n".join(lacks), file=sys.stderr)
        return 1
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    scenario = SCENARIOS[options.scenario]
    with (
        contextlib.suppress(KeyboardInterrupt),
        Star([scenario.shape] * options.spokes, congestion=options.congestion) as star,
    ):
        print(f"{scenario.sentence}. The hub: ip netns exec {star.hub} bash")
        for spoke in star.spokes:
            print(f"{spoke.address} (sees the hub as {spoke.hub_address}): ip netns exec {spoke.namespace} bash")
        print("^C removes it all.", flush=True)
        signal.pause()
    return 0


if __name__ == "__main__":
    sys.exit(main())
