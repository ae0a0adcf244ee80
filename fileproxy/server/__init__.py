"""ASK and DELIVER: the only room that imports ``aiohttp.web`` (``app.py``, which builds the application, aside).

* ``arbiter.py`` ``reload.py`` ``control.py`` ``listeners.py``  the master process, reloads, the run folder
* ``worker.py``      one worker process and its signals
* ``connections.py`` ``front.py`` ``ends.py`` ``serving.py``  client connections: their protocol, aiohttp's handler
* ``fast.py`` ``known.py`` ``pages.py`` ``bounded.py``  the fast front: known heads are answered from a table
* ``heads.py`` ``framing.py``  is this one HTTP request, and where does it end (pure)
* ``handler.py``     from a request to an ending that has a name;  ``trip.py``  what is noted of it
* ``routing.py``     host and path → route;  ``operators.py``  our own pages;  ``cors.py``
* ``download.py``    the whole trip on one screen
* ``exchange.py`` ``conditions.py`` ``ranged.py``  the ask as the upstream gets it, the answer as the client does
* ``reply.py`` ``deliver.py`` ``intake.py``  bytes to and from the client
* ``service.py``     what the rooms of one worker share
"""
