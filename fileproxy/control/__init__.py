"""PACE: how fast and how many at once, towards origins and clients. Pure: samples and time go in, decisions come out.

* ``limiter.py``  requests a second to an upstream, by its errors; requests at a time, by its response time
* ``line.py``     who of those that wait is next: one of each client in turn
"""
