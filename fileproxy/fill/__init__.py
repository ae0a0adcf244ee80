"""FILL: what is missing gets fetched once, and is handed to everybody who waits for it while it lands.

* ``filler.py``   an ask becomes an opened entry: look up, judge, contact, join, pass on
* ``contact.py``  the first answer for a key, shared by all who ask for it meanwhile
* ``entry.py``    one representation while somebody reads or fills it;  ``reader.py``  a body over it
* ``flight.py``   one segment being filled: one fill, many readers;  ``states.py``  where it can stand
* ``landed.py``   its bytes in memory
* ``window.py``   how far ahead a flight may run
* ``plan.py``     which blocks a new flight takes (pure);  ``join.py``  law 1: which bytes may be joined (pure)
* ``origin.py``   answers and segments from an upstream;  ``peer.py``  the same from the worker that owns the key
* ``owner.py``    which worker owns a key (pure)

It knows the store and the upstreams only as Protocols (``values.py``).
"""
