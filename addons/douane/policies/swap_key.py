"""``swap_key``: the provider gets the real key, the app never has it.

Law: where a credential fits, every header and query value in which an SDK sends a key leaves the call; the real one is
bound to the provider and written by the relay. An answer that echoes it (header, body, stream) is masked.
"""

from dataclasses import dataclass, replace
from typing import ClassVar, Literal
from urllib.parse import unquote_plus

from douane.call import Call
from douane.echo import EchoMask
from douane.policy import BodyFilter, Credentials, Setting, policy
from douane.providers.base import KEY_QUERIES
from douane.verdict import ALLOW, Deny, Rewrite, Verdict

__all__ = ["SwapKey"]


@policy("swap_key")
@dataclass(frozen=True, slots=True)
class SwapKey:
    """Replace the app's key by the configured credential; ``missing`` says what happens where none is configured."""

    needs_body: ClassVar[bool] = False
    always: ClassVar[bool] = True

    missing: Literal["deny", "keep"] = "deny"

    def bind(self, setting: Setting) -> "_SwapKey":
        keys = {name: frozenset(headers) for name, headers in setting.key_headers.items()}
        return _SwapKey(setting.credentials, keys, self.missing == "keep")


@dataclass(frozen=True, slots=True)
class _SwapKey:
    credentials: Credentials
    key_headers: dict[str, frozenset[bytes]]
    keep: bool

    async def admit(self, call: Call) -> Verdict:
        credential = self.credentials.find(call.provider, call.principal)
        if credential is None:
            if self.keep:
                return ALLOW
            return Deny("credential_missing", f"no credential for {call.provider} is configured for this caller")
        names = self.key_headers[call.provider]
        headers = tuple(h for h in call.headers if h[0] not in names)
        return Rewrite(replace(call, headers=headers, query=_without_key(call.query), credential=credential))

    def filter(self, call: Call) -> BodyFilter | None:
        return EchoMask(call.credential.secret.reveal()) if call.credential else None


def _without_key(query: str) -> str:
    """*query* without the values that are keys, however their names are spelled; the rest keeps its spelling."""
    if not query:
        return query
    return "&".join(part for part in query.split("&") if unquote_plus(part.partition("=")[0]).lower() not in KEY_QUERIES)
