"""Where the desired state is kept: a protocol and its engines."""
