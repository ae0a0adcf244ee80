"""The admin API: what may be done to a running service by whoever holds its token. Knows HTTP's messages, no server.

* ``calls.py``    the calls: one table;  ``openapi.py``  the description of that table
* ``api.py``      what each call does; ``app.py`` hands in what they act on
* ``token.py``    may this caller; ``audit.py``  who did what
* ``warm.py`` ``sitemap.py``  jobs that fetch lists of files ahead of the first client
"""
