"""What an agent does: observe, capture, reconcile, move. No clock, thread or socket of its own: `mrc.wiring` brings them."""
