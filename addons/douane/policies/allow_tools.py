"""``allow_tools``: which tools the model may be given, and which addresses the provider may fetch."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import translate
from typing import Literal

from douane.call import Call
from douane.errors import ConfigError
from douane.policy import Setting, Wires, policy
from douane.providers.tools import declared
from douane.shown import shown
from douane.unsearched import tool_type
from douane.verdict import ALLOW, Deny, Verdict

__all__ = ["AllowTools"]

_HOST = re.compile(r"(?:(?:gs|s3)://)?[A-Za-z0-9*?._\[\]:!-]+")


@policy("allow_tools")
@dataclass(frozen=True, slots=True)
class AllowTools:
    """Refuse calls that give the model a tool, or the provider an address, that is not listed (globs).

    ``hosted``: types of tools that the provider runs (``web_search*``). ``mcp``: hosts of MCP servers, names of connectors.
    ``urls``: hosts from which the provider may fetch images and files. ``functions``: names of the app's own functions."""

    hosted: tuple[str, ...] = ()
    mcp: tuple[str, ...] = ()
    urls: tuple[str, ...] = ()
    functions: Literal["any"] | tuple[str, ...] = "any"

    def bind(self, setting: Setting) -> "_AllowTools":
        for field, globs in (("mcp", self.mcp), ("urls", self.urls)):
            for glob in globs:
                if not _HOST.fullmatch(glob):
                    raise ConfigError(f"{field}: `{glob[:80]}` is no host; allowed: such as mcp.example.com, *.example.com, "
                                      "without scheme and path")
        functions = None if self.functions == "any" else _globs(self.functions)
        return _AllowTools(setting.wires, _globs(self.hosted), _globs(map(str.lower, self.mcp)),
                           _globs(map(str.lower, self.urls)), functions)


def _globs(globs: Iterable[str]) -> re.Pattern[str]:
    """Matches what one of *globs* matches; nothing where there are none."""
    return re.compile("|".join(translate(glob) for glob in globs) or r"(?!)")


@dataclass(frozen=True, slots=True)
class _AllowTools:
    wires: Wires
    hosted: re.Pattern[str]
    mcp: re.Pattern[str]
    urls: re.Pattern[str]
    functions: re.Pattern[str] | None
    """None: any."""

    async def admit(self, call: Call) -> Verdict:
        wire = self.wires(call)
        if call.document is None or wire is None:
            return Deny("uninspectable", "the request's body cannot be searched for tools") if call.body else ALLOW
        for one in wire.unseen(call.document):
            if one.kind == "hosted_tool" and not self.hosted.match(one.name):
                return _refused(f"the hosted tool {tool_type(one.name)} at {shown(one.path)}")
            if one.kind == "mcp" and not self.mcp.match(one.name.lower()):
                return _refused(f"the MCP server at {shown(one.path)}")
            if one.kind == "url" and not self.urls.match(one.name):
                return _refused(f"the address at {shown(one.path)}, which the provider would fetch,")
        if self.functions is not None:
            for path, name in declared(call.document):
                if not self.functions.match(name):
                    return _refused(f"the function at {shown(path)}")
        return ALLOW


def _refused(what: str) -> Deny:
    return Deny("content_blocked", f"{what} is not allowed here")
