"""Generated from `proto/` by `make proto`; changed there, never here."""
