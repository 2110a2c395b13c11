"""What of a provider is nobody's here: its organisation and admin endpoints.

Law: judged is what a lenient server might take the path for, and not one spelling of it: percent signs are decoded until none
is left, letters are small, backslashes are slashes, doubled slashes, dot steps and what follows a ``;`` are gone. No policy
and no ``unknown_operations`` opens these.

https://platform.openai.com/docs/api-reference/administration, https://docs.anthropic.com/en/api/administration-api,
https://ai.google.dev/api/tuning/permissions, https://openrouter.ai/docs/api-reference/api-keys, https://docs.x.ai (management),
https://learn.microsoft.com/azure/ai-services/openai/reference (deployments).
"""

import re
from functools import lru_cache
from urllib.parse import unquote

from douane.providers.base import Provider

__all__ = ["is_off_limits", "steps"]

_ROUNDS = 4
"""Decodings that are tried; a path with a percent sign left after them is nobody's, either."""
_ROOT = r"(?:/(?:openai|api|compatible-mode|inference))*(?:/v[0-9]+[a-z0-9]*)?"
_OPENAI = (rf"{_ROOT}/(?:organi[sz]ations?|projects?|admins?|dashboard|usage|billing|credit_grants|subscription|invites?|users?"
           r"|audit_logs|service_accounts|admin_api_keys|api_keys?|certificates|roles|groups)(?:/.*)?")
_ANTHROPIC = (rf"{_ROOT}/(?:organi[sz]ations?|usage_report|cost_report|workspaces?|api_keys?|invites?|users?|admin)(?:/.*)?")
_OPENROUTER = rf"{_ROOT}/(?:keys?|credits|auth|activity|provisioning|organi[sz]ations?)(?:/.*)?"
_GOOGLE = r".*/permissions(?:/.*)?|.*/[^/]*:(?:transferownership|getiampolicy|setiampolicy|testiampermissions)"
_AZURE = (r"(?:/openai)?(?:/v[0-9]+[a-z0-9]*)?/(?:deployments(?:/[^/]*)?|management|capabilityhosts|connections)"
          r"|/(?:subscriptions|providers)(?:/.*)?")
_BEDROCK = (r"/(?:guardrails|custom-models|model-customization-jobs|provisioned-model-throughput|imported-models"
            r"|logging|marketplace-model|prompt-routers|model-import-job|evaluation-jobs)(?:/.*)?")
_FORBIDDEN = {name: re.compile(pattern) for name, pattern in {
    "openai": _OPENAI, "openrouter": f"{_OPENROUTER}|{_OPENAI}", "xai": f"{_OPENAI}|{_ROOT}/(?:auth|teams|management)(?:/.*)?",
    "anthropic": _ANTHROPIC, "google": _GOOGLE, "vertex": _GOOGLE, "azure": f"{_AZURE}|{_OPENAI}", "bedrock": _BEDROCK}.items()}
_BY_FAMILY = {"OpenAIFamily": _FORBIDDEN["openai"], "AnthropicFamily": _FORBIDDEN["anthropic"],
              "GoogleFamily": _FORBIDDEN["google"]}
"""For providers of a shape: those of the policy files (``like:``), and those that speak a language and have no row above."""


def is_off_limits(provider: Provider, path: str) -> bool:
    """Whether raw *path*, below the provider's root, is one that no call may reach with any key."""
    return _is_off_limits(provider.name, type(provider.family).__name__, path)


@lru_cache(1024)
def _is_off_limits(name: str, family: str, path: str) -> bool:
    read = steps(path)
    if read is None:
        return True
    pattern = _FORBIDDEN.get(name) or _BY_FAMILY.get(family)
    return pattern is not None and pattern.fullmatch("/" + "/".join(read).lower()) is not None


def steps(path: str) -> tuple[str, ...] | None:
    """The steps of raw *path* as the most lenient of servers reads it; None where that cannot be told."""
    for _ in range(_ROUNDS):
        if "%" not in path:
            break
        path = unquote(path, errors="replace")
    if "%" in path or "\x00" in path:
        return None
    found: list[str] = []
    for raw in re.split(r"[/\\]", path.partition("?")[0].partition("#")[0]):
        step = raw.partition(";")[0].strip()
        if step == "..":
            del found[-1:]
        elif step not in ("", "."):
            found.append(step)
    return tuple(found)
