"""``allow_models``: which models may be asked for."""

import re
from dataclasses import dataclass
from fnmatch import translate

from douane.call import Call
from douane.errors import ConfigError
from douane.policy import Setting, policy
from douane.verdict import ALLOW, Deny, Verdict

__all__ = ["AllowModels"]


@policy("allow_models")
@dataclass(frozen=True, slots=True)
class AllowModels:
    """Refuse calls to models that match none of the *models* globs (case matters, as it does to providers).

    A call that sends content and names no model is refused; reading (GET) needs none."""

    models: tuple[str, ...]

    def bind(self, setting: Setting) -> "_AllowModels":
        if not self.models:
            raise ConfigError("models: name at least one, or leave the policy out")
        return _AllowModels(re.compile("|".join(translate(glob) for glob in self.models)))


@dataclass(frozen=True, slots=True)
class _AllowModels:
    allowed: re.Pattern[str]

    async def admit(self, call: Call) -> Verdict:
        if call.model:
            if self.allowed.match(call.model):
                return ALLOW
            return Deny("model_not_allowed", f"the model {call.model[:100]!r} is not allowed here")
        if call.method == "GET":
            return ALLOW
        return Deny("model_not_allowed", "the call names no model")
