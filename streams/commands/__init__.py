"""The commands of `tripswitch`, those of one sort in one file; `streams.cli` puts them together."""
