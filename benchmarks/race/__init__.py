"""The race: what does a cached file cost, in FileProxy and in the servers people use for it?

One run, one processor for all servers, the load on the other, rounds interleaved::

    contestants.py   who runs, how each is set up at its best, and why so
    cases.py         what is asked of them, and one turn of one contestant
    client.py        wrk, curl and a client that opens a connection for each request
    figures.py       medians, ratios, goals
    report.py        Markdown and HTML
    bare.py          FileProxy that counts nothing: what its statistics cost
    __main__.py      the run

That a contestant answers from its cache is proved in each turn: the origin counts what it is asked.
"""
