"""MAY I: what an ask is refused for before anything is fetched. Pure; effects are the caller's.

* ``policy.py``  the checks, in order, each saying what its verdict depends on
* ``load.py``    when this worker has too much to do
"""
