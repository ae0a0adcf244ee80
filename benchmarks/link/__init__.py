"""The link lab: real kernels' TCP over links as bad as one likes, on one machine.

A :class:`~benchmarks.link.tun.Star` is one network namespace, the hub, joined with each of its spokes by a link of its
own. Both ends of a link are tun devices; one process in user space, the ferry, carries the packets between them with
delay, jitter, loss, rate and a queue. No kernel module is needed (no netem), but root is, and `/dev/net/tun`.

* ``pipe.py``      what one direction does to a packet: a pure function of size and time
* ``ferry.py``     the process that carries the packets of all links, pinned to one processor
* ``tun.py``       namespaces, devices, routes; made, named and removed
* ``scenario.py``  normal, poor and very poor, and which side is the bad one
* ``__main__.py``  `python -m benchmarks.link poor`: a star to try things in by hand
"""
