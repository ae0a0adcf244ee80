"""WATCH: what the operators see. Other rooms never import this one; ``app.py`` and ``cli/`` hand it in.

* ``table.py``      every counter, once
* ``layout.py``     where each of them lies in a page (pure)
* ``page.py``       one memory-mapped counter page a worker slot; implements ``model.Counters``
* ``slots.py``      which worker holds which number
* ``histogram.py``  mergeable log buckets and their percentiles (pure)
* ``totals.py``     the sum over all pages, read without disturbing their writers
* ``stats.py``      totals → the report of ``/stats`` (pure)
* ``health.py``     parts → the report of ``/health`` (pure)
* ``logs.py``       access and error lines: ``lines.py`` encodes them, ``stream.py`` batches, ``sink.py`` writes,
                    ``masks.py`` keeps secrets out
"""
