"""Several virtual hosts on one machine, each a network namespace with a real agent."""
