"""What the user asked for: frozen values, no I/O, no clock."""
