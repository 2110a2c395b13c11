"""What an audit record says. Pure: a call and what came of it in, a JSON object out (DESIGN "Audit record").

Law: nothing here holds a header value, a query, or a key; bodies come as ``audit/bodies.py`` has written them down. What apps
and providers make up (:func:`names`) may hold anything, is cut at 200 characters, and goes the same way.
"""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from operator import attrgetter
from typing import Any

from douane.call import Call, Finding, Outcome
from douane.verdict import Deny

__all__ = ["about", "event", "intent", "names", "outcome", "renamed", "unknown"]


_KNOWN = ("id", "revision", "principal", "provider", "operation", "model", "host", "method", "path", "stream",
          "client_request_id", "session", "findings", "reserved_usd")


_RARE = ("cache_write_1h", "web_searches", "file_searches", "input_audio", "cached_audio", "output_audio", "input_image",
         "cached_image", "output_image", "audio_seconds", "characters", "pages")
"""Of a usage: said only where there is some."""
_rare = attrgetter(*_RARE)


def timestamp(at: float) -> str:
    """RFC 3339 in UTC with milliseconds, those that have passed."""
    second, rest = divmod(round(at * 1e6), 1_000_000)
    return f"{_to_the_second(second)}.{rest // 1000:03d}Z"


@lru_cache(16)
def _to_the_second(at: int) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def about(call: Call, revision: str) -> dict[str, Any]:
    """What an intent and an outcome say of their call."""
    who = call.principal
    principal: dict[str, Any] = {"name": who.name or None, "team": who.team or None, "org": who.org or None,
                                 "user": who.user or None, "agent": who.agent or None}
    if who.tags:
        principal["tags"] = dict(who.tags)
    asked = call.header(b"x-client-request-id") or call.header(b"x-request-id")
    return {
        "id": call.id,
        "at": timestamp(call.at),
        "revision": revision,
        "principal": principal,
        "provider": call.provider,
        "operation": call.operation,
        "model": call.model[:200] or None,
        "host": call.host,
        "method": call.method,
        "path": call.path[:200],
        "stream": call.stream,
        **({"session": call.session} if call.session else {}),
        "client_request_id": asked[:200].decode("latin-1") if asked else None,
    }


def _findings(findings: Iterable[Finding]) -> list[dict[str, Any]]:
    return [{"policy": one.policy, "type": one.type, "count": one.count, "where": one.where} for one in findings]


type Body = dict[str, Any] | None
"""As :class:`~douane.gate.Scribe` wrote it down; None: there is none, or none is kept."""


def intent(of: Mapping[str, Any], findings: Iterable[Finding], *, reserved_usd: float | None = None,
           request: Body = None) -> dict[str, Any]:
    """Durable before the first byte goes upstream. *of*: :func:`about` the call. *reserved_usd*: what budgets hold for it.
    *request*: as it goes upstream."""
    return {"kind": "intent", **of, "findings": _findings(findings), "reserved_usd": reserved_usd,
            "request": request}


def outcome(of: Mapping[str, Any], findings: Iterable[Finding], result: Outcome, *,
            denial: tuple[str, Deny] | None, latency_ms: dict[str, float | None],
            reserved_usd: float | None = None, overshot_usd: float = 0.0, request: Body = None,
            response: Body = None) -> dict[str, Any]:
    """Durable before the client sees the end. *of*: :func:`about` the call. *denial*: (policy, verdict) where it was refused or
    cut. *request*: of a call without an intent. *response*: before restore."""
    usage = result.usage
    rare = _rare(usage) if usage is not None else ()
    return {
        "kind": "outcome",
        **of,
        "verdict": {"action": "allow"} if denial is None else
                   {"action": "deny", "policy": denial[0], "code": denial[1].code, "reason": denial[1].reason},
        "findings": _findings(findings),
        "ended": result.ended,
        "status": result.status,
        "answer_model": result.model or None,
        "usage": None if usage is None else {
            "input": usage.input, "output": usage.output, "cached_input": usage.cached_input,
            "cache_write": usage.cache_write, "reasoning": usage.reasoning,
            **({name: count for name, count in zip(_RARE, rare, strict=True) if count} if any(rare) else {})},
        "estimated": result.estimated,
        **({"counted": True} if result.counted else {}),
        **({"told": True} if result.told and result.estimated else {}),
        "cost_usd": result.cost_usd,
        "reserved_usd": reserved_usd,
        **({"overshot_usd": overshot_usd} if overshot_usd else {}),
        "latency_ms": latency_ms,
        "upstream_request_id": result.upstream_request_id or None,
        "request": request,
        "response": response,
    }


_MADE_UP = ("model", "path", "client_request_id", "answer_model", "upstream_request_id")


def names(told: dict[str, Any]) -> dict[str, str]:
    """The members of a record that apps and providers make up, and that may hold anything: not empty, by name."""
    found = {name: value for name in _MADE_UP if (value := told.get(name))}
    verdict = told.get("verdict")
    if verdict is not None and (reason := verdict.get("reason")):  # it may quote a name
        found["reason"] = reason
    return found


def renamed(told: dict[str, Any], given: Mapping[str, str]) -> dict[str, Any]:
    """*told* with other :func:`names`."""
    new: dict[str, Any] = {name: value for name, value in given.items() if name != "reason"}
    if "reason" in given:
        new["verdict"] = {**told["verdict"], "reason": given["reason"]}
    return {**told, **new}


def unknown(orphan: dict[str, Any], at: float) -> dict[str, Any]:
    """The outcome of an intent whose process died: nobody knows what came of it."""
    known: dict[str, Any] = {name: orphan[name] for name in _KNOWN if name in orphan}
    return {"kind": "outcome", **known, "at": timestamp(at), "verdict": {"action": "allow"}, "ended": "unknown", "status": 0,
            "answer_model": None, "usage": None, "estimated": False, "cost_usd": None, "latency_ms": None,
            "upstream_request_id": None, "request": None, "response": None}


def event(name: str, at: float, **said: Any) -> dict[str, Any]:
    """Something that is no call: start, stop, a reload, a refused tunnel."""
    return {"kind": "event", "event": name, "at": timestamp(at), **said}
