"""How well personal data and secrets are found, and how fast: ``python -m bench.detection [FILE]``.

FILE holds labelled texts: presidio-research's JSON (``full_text``, ``spans`` with ``entity_type``), or CoNLL (a token a line,
its tag last; or UNER's columns). Kinds of secrets count as one, ``SECRET``. Without a file, sentences
are made up from a seed, and the report says so: such figures tell whether something broke, not how much of real people's data
is found.

A finding counts where it has the label's type and half of their characters in common (intersection over union of 0.5 and more);
*any* is the same without the type. What nobody looks for is counted as missed. No network, about half a minute."""

import argparse
import asyncio
import json
import os
import random
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).parents[1] / "addons"))

from bench import goods
from bench.labelled import SECRET, Text, invented, read
from douane.detect import DEFAULT_ENTITIES, ENTITIES, Scanner, Span, Wanted
from douane.detect.find_secrets import find_secrets, together
from douane.detect.secret_scanner import KINDS

BETA = 2
"""Of F: a miss counts twice a false alarm."""
_ANY = "any"


@dataclass(slots=True)
class Score:
    """Of one type: labels, findings, and findings that fit a label."""

    labels: int = 0
    found: int = 0
    right: int = 0

    @property
    def precision(self) -> float | None:
        return self.right / self.found if self.found else None

    @property
    def recall(self) -> float | None:
        return self.right / self.labels if self.labels else None

    @property
    def f2(self) -> float | None:
        both = self.found + BETA * BETA * self.labels
        return (1 + BETA * BETA) * self.right / both if both else None


def main() -> int:
    parser = argparse.ArgumentParser(prog="bench.detection", description=__doc__)
    parser.add_argument("file", nargs="?", type=Path)
    parser.add_argument("--seed", type=int, default=1, help="of made-up sentences")
    parser.add_argument("--texts", type=int, default=2000, help="how many of them, or of the file's, at most")
    parser.add_argument("--names", action="store_true", help="list the labelled people's names, as an operator may")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--no-alarms", action="store_true", help="leave the standard library out")
    given = parser.parse_args()
    texts = (read(given.file) if given.file else list(invented(given.seed, given.texts)))[:given.texts]
    report = asyncio.run(measured(texts, names=given.names, alarms=not given.no_alarms))
    report["texts"] = f"{given.file}" if given.file else f"SYNTHETIC, seed {given.seed}: made up by bench/labelled.py"
    print(json.dumps(report, indent=1) if given.json else as_text(report, len(texts)))
    return 0


async def measured(texts: Sequence[Text], *, names: bool, alarms: bool) -> dict[str, object]:
    wanted = {label for text in texts for label, _, _ in text.labels} & set(ENTITIES)
    people = {text.text[start:end] for text in texts for label, start, end in text.labels if label == "PERSON"} if names else ()
    scanner = Scanner(Wanted(tuple({*DEFAULT_ENTITIES, *wanted}), names=tuple(sorted(people))[:1000]), remembered=0)
    await scanner.scan("", ["warm@example.com"])
    scores: dict[str, Score] = {}
    waits = []
    for text in texts:
        begun = time.perf_counter()
        (found,) = await scanner.scan("", [text.text])
        spans = together(found, find_secrets(text.text))
        waits.append((time.perf_counter() - begun) * 1e3)
        score(scores, text, spans)
    await scanner.aclose()
    report: dict[str, object] = {"quality": {name: {
        "labels": one.labels, "found": one.found, "precision": one.precision, "recall": one.recall, "f2": one.f2}
        for name, one in sorted(scores.items(), key=lambda row: (row[0] == _ANY, -row[1].labels, row[0]))}}
    report["speed"] = {"median_ms_a_text": median(waits), "p95_ms_a_text": sorted(waits)[int(len(waits) * 0.95)],
                       "median_characters": median(len(text.text) for text in texts), **secrets_speed()}
    if alarms:
        report["alarms_in_the_standard_library"] = await alarms_in(library())
    return report


def score(scores: dict[str, Score], text: Text, spans: Sequence[Span]) -> None:
    """Count one text's labels and findings into *scores*."""
    found = [(SECRET if one.type in KINDS else one.type, one.start, one.end) for one in spans]
    for blind in (False, True):
        open_labels = list(text.labels)
        for label, _, _ in text.labels:
            scores.setdefault(_ANY if blind else label, Score()).labels += 1
        for one in found:
            name = _ANY if blind else one[0]
            mine = scores.setdefault(name, Score())
            mine.found += 1
            fits = [label for label in open_labels if (blind or label[0] == one[0]) and overlap(label, one) >= 0.5]
            if fits:
                mine.right += 1
                open_labels.remove(max(fits, key=lambda label: overlap(label, one)))


def overlap(one: tuple[str, int, int], other: tuple[str, int, int]) -> float:
    """Intersection over union, in characters."""
    shared = min(one[2], other[2]) - max(one[1], other[1])
    return max(shared, 0) / (max(one[2], other[2]) - min(one[1], other[1]))


def secrets_speed() -> dict[str, float]:
    """CPU-ms of 20 KB, secrets alone, first seen: the median of 40 texts."""
    said = {}
    for name, make in (("chat", goods.prose), ("code", goods.code), ("mixed", goods.mixed), ("dense", goods.dense)):
        rng = random.Random(1)
        costs = []
        for text in [make(rng, 20_000) for _ in range(40)]:
            begun = time.process_time()
            find_secrets(text)
            costs.append((time.process_time() - begun) * 1e3)
        said[f"secrets_cpu_ms_20kb_{name}"] = median(costs)
    return said


def library() -> Iterator[str]:
    """Python's standard library, without its tests."""
    for path in sorted(Path(os.__file__).parent.rglob("*.py")):
        if not {"site-packages", "test", "tests", "idlelib", "lib2to3"} & set(path.parts):
            yield path.read_text(errors="replace")


async def alarms_in(texts: Iterator[str]) -> dict[str, object]:
    """What is found in source code that holds no real person's data and no key, a megabyte."""
    scanner, size, counts = Scanner(Wanted(), remembered=0), 0, Counter[str]()
    for text in texts:
        size += len(text)
        (found,) = await scanner.scan("", [text])
        counts.update(one.type for one in (*found, *find_secrets(text)))
    await scanner.aclose()
    secrets = sum(count for name, count in counts.items() if name in KINDS)
    mega = size / 1e6
    return {"megabytes": mega, "default_entities_a_megabyte": (sum(counts.values()) - secrets) / mega,
            "secrets_a_megabyte": secrets / mega, "secrets": secrets, "by_type": dict(counts.most_common())}


def as_text(report: dict[str, object], count: int) -> str:
    def cell(value: object) -> str:
        return f"{'-':>10}" if value is None else f"{value:>10.2f}" if isinstance(value, float) else f"{value:>10}"

    out = [f"{count} texts: {report['texts']}", "",
           f"{'':28}{'labels':>10}{'found':>10}{'precision':>10}{'recall':>10}{'F2':>10}"]
    for part in ("quality", "speed", "alarms_in_the_standard_library"):
        rows = report.get(part)
        if not isinstance(rows, dict):
            continue
        if part != "quality":
            out += ["", part.replace("_", " ")]
        for name, row in rows.items():
            if not isinstance(row, dict):
                out.append(f"{name:28}{cell(row)}")
            elif part == "quality":
                out.append(f"{name:28}{''.join(map(cell, row.values()))}")
            else:
                out.append(f"{name:28}  {', '.join(f'{kind} {number}' for kind, number in row.items())}")
    return "\n".join(out)


if __name__ == "__main__":
    sys.exit(main())
