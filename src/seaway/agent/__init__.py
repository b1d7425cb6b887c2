"""The daemon: keeps the kernel at the desired state and answers the API."""
