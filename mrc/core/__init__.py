"""Values in, values out: no I/O, no clock, no thread. Standard library and msgspec only."""
