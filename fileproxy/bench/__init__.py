"""BENCH: a load on a running service, and what came of it. ``fileproxy bench load`` and ``bench stress``.

* ``plan.py``         what is asked for: how many clients, how long, which files and ranges (pure)
* ``hosts.py``        where it may go: loopback, or what its owner vouches for; resolved once
* ``wire.py``         answers of HTTP/1.1, read without I/O: framing, not headers, says where one ends
* ``client.py``       one client and its connections; slow readers
* ``run.py``          many clients for a while: closed loop, or open loop at a rate
* ``tally.py``        figures: histograms, endings by kind (pure)
* ``consistent.py``   the same URL gives the same bytes (pure)
* ``ladder.py``       stress: the next step, the knee, whether it came back (pure)
* ``report.py``       text, Markdown, HTML

Laws kept here:

* It is bounded: in time, clients, memory. It goes only to the hosts in the URLs, follows no redirect, and stops at ^C.
* In the open loop a request's time begins when it was due, not when a client was free to send it: a service that
  stands still is seen by all who would have come meanwhile (no coordinated omission).
* Nothing is left out of the figures because it had not ended: in the open loop what is under way at the end counts
  with the time it has taken so far.
"""
