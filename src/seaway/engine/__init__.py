"""Running containers.  Nothing in here knows about networks."""
