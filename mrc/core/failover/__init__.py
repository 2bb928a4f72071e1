"""Moving the unit: runbooks, plans and the mover's value machine."""
