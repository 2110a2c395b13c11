"""Every way to say no, in one table.

A *denial* is an answer to the app: its code is recorded, counted and sent in the provider's own shape. A *DouaneError* is
for the person at the keyboard: one line that says what, where and what to do, and the exit code of the command line.
"""

from types import MappingProxyType

__all__ = ["DENIALS", "AuditUnavailableError", "ConfigError", "DouaneError", "EnvironmentFailedError", "RefusedError",
           "UpstreamError", "retryable"]

DENIALS = MappingProxyType({
    "bad_request": 400,
    "unauthenticated": 401,
    "model_not_allowed": 403,
    "operation_not_allowed": 403,
    "host_not_allowed": 403,
    "credential_missing": 403,
    "pii_found": 403,
    "secret_found": 403,
    "injection_found": 403,
    "content_blocked": 403,
    "uninspectable": 403,
    "stopped": 403,
    "too_large": 413,
    "unsupported_coding": 415,
    "host_mismatch": 421,
    "rate_limited": 429,
    "budget_exceeded": 429,
    "upstream_error": 502,
    "upstream_timeout": 504,
    "policy_error": 503,
    "audit_unavailable": 503,
    "ledger_unavailable": 503,
})
"""Denial code → HTTP status (a provider's own shape may use another: ``budget_exceeded`` is 402 for Anthropic)."""


def retryable(code: str) -> bool:
    """Whether the same call may succeed a moment later, so that the SDK should be left to retry."""
    return code == "rate_limited" or DENIALS[code] in (502, 503, 504)


class DouaneError(Exception):
    """Shown as one line; *exit_code* is the command line's."""

    exit_code = 1


class ConfigError(DouaneError):
    """Wrong use or configuration. May hold several lines, one a mistake, each ``file:line: …``."""

    exit_code = 2


class EnvironmentFailedError(DouaneError):
    """The machine failed us: a port taken, a folder not writable, a disk full."""

    exit_code = 3


class RefusedError(DouaneError):
    """A call refused outside the chain (too large, unknown coding, bad JSON …).

    *code* is one of :data:`DENIALS`; *reason* goes to the caller."""

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(f"{code}: {reason}")
        self.code = code
        self.reason = reason


class UpstreamError(RefusedError):
    """The provider could not be reached, or broke off. *code* is ``upstream_error`` or ``upstream_timeout``."""


class AuditUnavailableError(RefusedError):
    """A record could not be made durable in time."""

    def __init__(self, reason: str) -> None:
        super().__init__("audit_unavailable", reason)
