"""HTTP rules as pure functions; any room may use them. Nothing here does I/O or knows the time by itself.

* ``fields.py``      lists, tokens, quoted strings; which header fields end at this hop
* ``structured.py``  structured field values (RFC 9651), read and written
* ``cache_control.py`` ``cache_status.py``  cache directives, and what our cache did
* ``digests.py``     Repr-Digest, Content-Digest and who wants them
* ``targets.py``     the canonical request target, or 400
* ``forwarded.py``   who the client is behind trusted proxies; what is told to upstreams
* ``via.py``         Via and CDN-Loop
* ``problem.py``     problem+json bodies and Proxy-Status
* ``ranges.py`` ``multipart.py``  byte ranges, Content-Range, multipart/byteranges
* ``etags.py`` ``dates.py``       validators
"""
