"""A small AI gateway to try tripswitch with; needs the extra `demo`."""
