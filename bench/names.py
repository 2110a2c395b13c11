"""How well names are found, and what it costs. ``python -m bench.names``; half a minute, no network.

On :mod:`bench.people`; on the templates and people of presidio-evaluator, where that is installed (``--evaluator FOLDER``: the
folder with its ``presidio_evaluator``); with ``--model`` the spaCy model beside the built-in recognizer. A name counts as found
where a span covers half of both. On the standard library each name that is found is counted, true or false."""

import argparse
import csv
import os
import random
import re
import sys
import time
from collections.abc import Callable, Iterable
from itertools import islice
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).parents[1] / "addons"))

from bench import goods
from bench.people import Labelled, labelled
from douane.detect.names import find_names

type Find = Callable[[str], Iterable[tuple[int, int]]]


def main() -> int:
    parser = argparse.ArgumentParser(prog="bench.names", description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--evaluator", type=Path, metavar="FOLDER")
    parser.add_argument("--model", metavar="PACKAGE")
    parser.add_argument("--show", action="store_true", help="what was missed and what is false")
    given = parser.parse_args()
    rng = random.Random(given.seed)
    texts = {"bench.people": list(islice(labelled(rng), 3000))}
    if given.evaluator:
        folder = given.evaluator / "presidio_evaluator/data_generator/raw_data"
        texts["presidio-evaluator"] = list(islice(evaluator(rng, folder), 3000))
    finders: dict[str, Find] = {"built-in": lambda text: [(one.start, one.end) for one in find_names(text)]}
    if given.model:
        finders[given.model] = model(given.model)
    for what, each in texts.items():
        for who, find in finders.items():
            quality(f"{what}, {who}", each, find, show=given.show)
    costs(given.seed)
    alarms(show=given.show)
    return 0


def quality(what: str, texts: list[Labelled], find: Find, *, show: bool) -> None:
    right = found = there = 0
    for text, spans in texts:
        got = list(find(text))
        hit = {one for one in got if any(_same(one, two) for two in spans)}
        met = {one for one in spans if any(_same(one, two) for two in got)}
        right, found, there = right + len(hit), found + len(got), there + len(spans)
        if show and (len(hit) < len(got) or len(met) < len(spans)):
            false = [text[a:b] for a, b in got if (a, b) not in hit]
            print("   ", repr(text)[:150], "FALSE", false, "MISSED", [text[a:b] for a, b in spans if (a, b) not in met])
    print(f"{what}: {there} names, precision {right / max(1, found):.2f}, recall {right / max(1, there):.2f}")


def _same(one: tuple[int, int], two: tuple[int, int]) -> bool:
    common = min(one[1], two[1]) - max(one[0], two[0])
    return common * 2 >= max(one[1], two[1]) - min(one[0], two[0])


def evaluator(rng: random.Random, folder: Path) -> Iterable[Labelled]:
    """Its templates, filled with its people, firms and what else they ask for."""
    people = list(csv.DictReader((folder / "FakeNameGenerator.com_3000.csv").open(encoding="utf-8-sig")))
    companies = (folder / "companies_and_organizations.csv").open(encoding="utf-8-sig")
    firms = [row["organization"] for row in csv.DictReader(companies)]
    templates = (folder / "templates.txt").read_text(encoding="utf-8").splitlines()
    while True:
        text, spans = "", []
        for at, piece in enumerate(re.split(r"\{\{([a-z_]+)\}\}", rng.choice(templates))):
            one = rng.choice(people)
            values = {"address": f"{one['StreetAddress']}, {one['City']}", "city": one["City"], "country": one["CountryFull"],
                      "street_name": one["StreetAddress"], "organization": rng.choice(firms), "job": one["Occupation"]}
            person = at % 2 and ("name" in piece or piece == "person") and piece not in ("street_name", "user_name")
            if person:
                value = (one["GivenName"] if piece.startswith("first") else one["Surname"] if piece.startswith("last") else
                         f"{one['GivenName']} {one['Surname']}")
                spans.append((len(text), len(text) + len(value)))
            else:
                value = values.get(piece, str(rng.randrange(1000, 9999))) if at % 2 else piece.replace("\\n", "\n")
            text += value
        yield text, tuple(spans)


def model(name: str) -> Find:
    from douane.detect.ner import Reader
    from douane.detect.values import Model

    reader = Reader.of(Model(name, ("PERSON",), 1.0))
    return lambda text: [(one.start, one.end) for one in reader.find(text)]


def costs(seed: int) -> None:
    rng = random.Random(seed)
    people = labelled(rng)
    find_names("Ann Lee")
    kinds: dict[str, Callable[[int], str]] = {
        "chat": lambda size: "".join(f"{goods.prose(rng, 460)}. {next(people)[0]} " for _ in range(size // 500 + 1))[:size],
        "little but names": lambda size: " ".join(next(people)[0] for _ in range(size // 30))[:size],
        "code": lambda size: (Path(os.__file__).parent / "argparse.py").read_text()[4000:4000 + size],
        "goods.mixed": lambda size: goods.mixed(rng, size)}
    for kind, make in kinds.items():
        for size in (1500, 20_000, 200_000):
            times = []
            for _ in range(30 if size < 50_000 else 8):
                text = make(size)
                before = time.process_time()
                find_names(text)
                times.append((time.process_time() - before) * 1e3 * 1500 / max(1, len(text)))
            print(f"{kind:16}{size:8}: {median(times):.3f} CPU-ms a 1.5 KB")


def alarms(*, show: bool) -> None:
    size, found = 0, []
    for path in sorted(Path(os.__file__).parent.glob("*.py")):
        text = path.read_text(errors="replace")
        size += len(text)
        found += [text[one.start:one.end] for one in find_names(text)]
    print(f"{size / 1e6:.1f} MB of Python's standard library: {len(found) / size * 1e6:.0f} names a MB")
    if show:
        print(found)


if __name__ == "__main__":
    sys.exit(main())
