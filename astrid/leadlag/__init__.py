"""Does the index lead adoption? The pre-registered protocol as arithmetic over arrays.

``alignment`` makes the sample, ``regression``, ``correlation``, ``forecasts`` and ``resampling`` test it, ``power``
says what could have been seen, ``verdict`` holds the rules and ``protocol`` runs the whole. No I/O. Reasons:
docs/adr/0030-lead-and-lag.md.
"""
