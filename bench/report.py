"""Samples into figures: every ratio is taken within a round, and the median of the rounds stands for them."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from bench.load import Sample
from bench.measure import median, percentile

__all__ = ["goals", "memory", "rows", "table"]

type ByTarget = Mapping[str, Sequence[Sample]]
type ByScenario = Mapping[str, ByTarget]
BASE = "mitmdump"
_COLUMNS = (
    ("CPU-ms/call", "cpu_ms", 3), ("ratio", "ratio", 3), ("lowest", "ratio_low", 3), ("highest", "ratio_high", 3),
    ("calls/s", "rate", 0), ("busy", "busy", 2), ("p50 ms", "p50_ms", 2), ("p99 ms", "p99_ms", 2),
    ("1st token", "first_p50_ms", 2), ("over direct", "first_over_ms", 2), ("event p50", "event_p50_ms", 2),
    ("over direct", "event_over_ms", 2), ("event p99", "event_p99_ms", 2))


def figures(name: str, of: ByTarget) -> dict[str, float]:
    """One target in one scenario; what does not apply is left out. *busy*: share of its core."""
    samples = of[name]
    found = {"calls": float(sum(sample.calls for sample in samples)),
             "cpu_ms": median(1000 * sample.cpu / sample.calls for sample in samples),
             "rate": median(sample.calls / sample.seconds for sample in samples),
             "busy": median(sample.cpu / sample.seconds for sample in samples),
             "p50_ms": _ms(samples, "latency", 0.5), "p99_ms": _ms(samples, "latency", 0.99)}
    if BASE in of:
        ratios = [(one.cpu / one.calls) / (base.cpu / base.calls) for one, base in zip(samples, of[BASE], strict=True)]
        found |= {"ratio": median(ratios), "ratio_low": min(ratios), "ratio_high": max(ratios)}
    for kind, label in (("first", "first"), ("events", "event")):
        if getattr(samples[0], kind):
            found[f"{label}_p50_ms"] = _ms(samples, kind, 0.5)
            found[f"{label}_p99_ms"] = _ms(samples, kind, 0.99)
            found[f"{label}_over_ms"] = found[f"{label}_p50_ms"] - _ms(of["direct"], kind, 0.5)
    return found


def table(scenario: str, of: ByTarget) -> str:
    """A scenario's targets, a line each; columns nobody has are left out."""
    found = {name: figures(name, of) for name in of}
    columns = [each for each in _COLUMNS if any(each[1] in row for row in found.values())]
    lines = [f"\n{scenario}", "  " + "target".ljust(12) + "".join(title.rjust(13) for title, _, _ in columns)]
    for name, row in found.items():
        cells = [f"{row[key]:.{digits}f}" if key in row else "-" for _, key, digits in columns]
        lines.append("  " + name.ljust(12) + "".join(cell.rjust(13) for cell in cells))
    return "\n".join(lines)


def memory(of: Mapping[str, tuple[int, int]]) -> str:
    """Resident memory of each target's process tree."""
    lines = ["\nmemory, MB        idle   at the end"]
    lines += [f"  {name.ljust(12)}{idle / 1e6:8.0f}{end / 1e6:13.0f}" for name, (idle, end) in of.items()]
    return "\n".join(lines)


def goals(samples: ByScenario, rss: Mapping[str, tuple[int, int]]) -> str:
    """What was to be reached, and whether it was; only what this run measured."""
    found = {scenario: {name: figures(name, of) for name in of} for scenario, of in samples.items()}
    wanted = [("CPU per call, empty chain, over mitmdump's", "json-1.5k-c32", "empty", "ratio", 0.12),
              ("… authenticate, swap_key and audit", "json-1.5k-c32", "lean", "ratio", 0.22),
              ("… default chain, new texts with nothing to find", "json-1.5k-c32", "douane", "ratio", 0.3),
              ("… default chain, texts seen before, no PII", "seen-plain-c32", "douane", "ratio", 0.3),
              ("… default chain, texts seen before, PII restored", "seen-pii-c32", "douane", "ratio", 0.3),
              ("CPU per new connection, over mitmdump's", "new-c8", "douane", "ratio", 0.4),
              ("event's delay over direct, p50 ms", "paced-c32", "douane", "event_over_ms", 1.0),
              ("… with values restored", "paced-restore-c32", "douane", "event_over_ms", 1.0)]
    lines = []
    for title, scenario, target, key, most in wanted:
        value = found.get(scenario, {}).get(target, {}).get(key)
        if value is not None:
            lines.append(_goal(title, value, most))
    for title, first, seen, most in (("first-seen 1.5 KB chat adds, CPU-ms", "first-chat-c32", "seen-pii-c32", 2.0),
                                     ("first-seen 20 KB mixed adds, CPU-ms", "first-mixed-20k-c8", "seen-mixed-20k-c8", 10.0)):
        if "douane" in found.get(first, {}) and "douane" in found.get(seen, {}):
            lines.append(_goal(title, found[first]["douane"]["cpu_ms"] - found[seen]["douane"]["cpu_ms"], most))
    rate = found.get("rate-300", {})
    if "douane" in rate and "unaudited" in rate:
        for key, most in (("p50_ms", 1.5), ("p99_ms", 15.0)):
            lines.append(_goal(f"durable audit at 300 calls/s adds, {key[:3]} ms",
                               rate["douane"][key] - rate["unaudited"][key], most))
    for title, target, most in (("idle memory, MB", "lean", 150), ("… with the detector's worker", "douane", 300)):
        lines += [_goal(title, rss[target][0] / 1e6, most)] if target in rss else []
    return "\n".join(["\ngoals", *lines]) if lines else ""


def rows(samples: ByScenario, rss: Mapping[str, tuple[int, int]]) -> Iterator[dict[str, Any]]:
    """Everything, for machines: a row a scenario and target."""
    for scenario, of in samples.items():
        for name in of:
            yield {"scenario": scenario, "target": name, "rounds": len(of[name]), "rss_idle": rss[name][0],
                   "rss_end": rss[name][1], **figures(name, of)}


def _goal(title: str, value: float, most: float) -> str:
    return f"  {title.ljust(56)}{value:9.3f}  at most {most:<6g} {'met' if value <= most else 'MISSED'}"


def _ms(samples: Sequence[Sample], kind: str, share: float) -> float:
    return 1000 * percentile([value for sample in samples for value in getattr(sample, kind)], share)
