"""Python's cyclic garbage collector, told what kind of program this is."""

import gc


def spare_what_stays() -> None:
    """Makes collections rare. Millions of names are kept and are part of no cycle; to look through all of them again
    and again costs more than detection does."""
    gc.freeze()
    gc.set_threshold(50_000, 20, 1000)
