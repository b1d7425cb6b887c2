"""Every error Seaway raises on purpose.

    SeawayError
    |-- InvalidSpec        the caller asked for something that can never work
    |-- Conflict           valid, but clashes with what already exists
    |-- NotFound
    |-- Exhausted          no address, port or name of the wanted kind is left
    |-- KernelError        Linux refused; carries errno, operation and object
    |   `-- KernelBusy     worth retrying unchanged (EBUSY, EAGAIN, EINTR)
    |-- EngineError        the container engine refused; carries its own words
    |-- StoreError         the desired state cannot be read or written
    |-- AgentUnreachable   nobody answers on the agent's socket
    `-- Unsupported        this kernel, build or machine lacks the feature

A message is one line: what is wrong, then what to do about it.
The API turns a class into a status code in one table (agent/api.py), the
command line into an exit status (cli/main.py).  Anything that is not a
SeawayError is a bug and is allowed to crash its task.
"""

from __future__ import annotations

import errno
import os


class SeawayError(Exception):
    """Base class.  Never raised itself."""


class InvalidSpec(SeawayError):
    """The request is wrong; retrying it unchanged cannot help."""


class Conflict(SeawayError):
    """The request is fine alone but collides with existing state."""


class NotFound(SeawayError):
    """The named object does not exist."""


class Exhausted(SeawayError):
    """Nothing of the wanted kind is left; the message says who holds it."""


class EngineError(SeawayError):
    """The container engine refused, or is not there."""


class StoreError(SeawayError):
    """The desired state cannot be read or written."""


class AgentUnreachable(SeawayError):
    """Nobody answers on the agent's socket."""


class Unsupported(SeawayError):
    """This kernel, build or machine lacks a needed feature."""


class KernelError(SeawayError):
    """Linux refused *operation* on *target*.

    Attributes:
        operation: What was tried, e.g. "create link".
        target: The object it was tried on, e.g. "swv-k5w3qx2mna".
        errno: The kernel's answer, a positive number (errno(3)).
    """

    def __init__(self, operation: str, target: str, code: int, detail: str = "") -> None:
        reason = detail or os.strerror(code)
        super().__init__(f"{operation} {target}: {reason}")
        self.operation = operation
        self.target = target
        self.errno = code


class KernelBusy(KernelError):
    """The same request may succeed later."""


_RETRYABLE = frozenset({errno.EBUSY, errno.EAGAIN, errno.EINTR})


def from_errno(operation: str, target: str, code: int, detail: str = "") -> KernelError:
    """Pick the class for *code*; the only place that looks at errno values."""
    kind = KernelBusy if code in _RETRYABLE else KernelError
    return kind(operation, target, code, detail)
