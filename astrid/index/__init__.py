"""The Astrid Index as arithmetic over arrays.

``baskets`` says what counts how much in a quarter, ``chain`` links it, ``companions`` and ``components`` describe
it, ``seasonal`` adjusts it, ``vintages`` tells revisions. No I/O; formulas and reasons: docs/methodology.md,
docs/adr/0029-index.md.
"""
