"""PACE: how fast and how many at once, towards origins and clients. Pure: samples and time go in, decisions come out.

* ``limiter.py``     requests a second to an upstream, by its errors; requests at a time, by its response time
* ``line.py``        who of those that wait is next: one of each client in turn
* ``quality.py``     how good a path is, by round trip, loss, first byte and goodput
* ``controller.py``  what an upstream's idle time and the writes to clients are for a path of that quality
* ``segments.py``, ``growth.py``, ``patience.py``  how many parts a download is asked for in, and when one is too late
"""
