"""The ports, against real parts. Driver calls, driver types and driver errors stop here."""
