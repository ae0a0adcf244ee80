"""KEEP: entries of checksummed blocks over a ladder of tiers. Passive: it never fetches anything.

* ``store.py``      find an entry, read a block, begin, commit or abandon a write over the tiers
* ``storing.py`` ``freshness.py`` ``validation.py``  RFC 9111 as pure functions;  ``key.py``  cache identity (pure)
* ``memory.py`` ``admission.py``  the first tier, and what may enter it;  ``pressure.py``  its budget
* ``disk.py`` ``extents.py`` …   the third tier: extents of checksummed blocks
* ``redis.py`` ``sealed.py``  the second tier: small objects in the store that machines share
* ``ban.py`` ``bans.py``  purges as an ordered list that nobody misses;  ``banfile.py`` ``banlist.py``  on disk;
  ``banfeed.py``    between machines
* ``records.py``    records as bytes
"""
