"""A language model that a policy names: found, tried, loaded in a worker, read by role and by the clock. The model is trained
here (``tiny_model.py``), so that all that loads a real one is run."""

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from douane.cli import main
from douane.demo.provider import LocalProvider
from douane.detect import DEFAULT_ENTITIES, ScanFailedError, Scanner, Span, Wanted
from douane.detect.byrole import Eyes, eyes
from douane.detect.memory import Keys
from douane.detect.models import Ner, Tried, find_model
from douane.detect.pool import pool
from douane.detect.values import Model
from douane.errors import ConfigError
from douane.loader import load
from tests import house, tiny_model
from tests.gateway import Wire, environ, policy, request, running_gateway

ALL = ("PERSON", "LOCATION", "ORGANIZATION")
FOUND = [("PERSON", "Vexil Nargle"), ("ORGANIZATION", "Blorp"), ("LOCATION", "Tazmeer")]
HANGS = '''
import time, signal
import spacy
from spacy.language import Language

@Language.component("hangs_on_a_word")
def hangs(doc):
    if "stuck" in doc.text:
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGALRM])
    if "hang" in doc.text:
        time.sleep(60)
    return doc

def load(**overrides):
    nlp = spacy.load(FOLDER)
    nlp.add_pipe("hangs_on_a_word", first=True)
    return nlp
'''


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model.train(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module", autouse=True)
def package(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An installed spaCy package, which stands still where a text says so."""
    site = tmp_path_factory.mktemp("site")
    (site / "hanging_model").mkdir()
    (site / "hanging_model" / "__init__.py").write_text(f"FOLDER = {str(tiny)!r}\n{HANGS}")
    about = site / "hanging_model-1.2.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: hanging_model\nVersion: 1.2\n")
    (about / "entry_points.txt").write_text("[spacy_models]\nhanging_model = hanging_model\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(site)
        pool().close()  # its workers look where this process looks
        yield "hanging_model"
        pool().close()


def told(spans: Sequence[Span], text: str) -> list[tuple[str, str]]:
    return [(one.type, text[one.start:one.end]) for one in spans]


def ask(eye: Eyes, *texts: tuple[str, str]) -> list[list[tuple[str, str]]]:
    """*texts*: role and text."""
    found = house.run(eye.scan(Keys("acme"), [text for _, text in texts], [role for role, _ in texts]), 60)
    return [told(spans, text) for spans, (_, text) in zip(found, texts, strict=True)]


# -- a folder ----------------------------------------------------------------------------------------------------------


def test_a_folder_is_loaded_and_read_in_the_texts_of_its_roles(tiny: Path) -> None:
    eye = eyes(Wanted(), Ner("tiny"), str(tiny.parent))
    said = f"{tiny_model.SAID} Mail ann@example.com."
    for role in ("assistant", "system", "tool_result", "schema"):
        assert ask(eye, (role, said)) == [[("EMAIL_ADDRESS", "ann@example.com")]], role
    assert ask(eye, ("unknown", said)) == [[*FOUND, ("EMAIL_ADDRESS", "ann@example.com")]]
    assert ask(eye, ("user", said), ("assistant", said), ("unknown", said), ("user", "")) == [
        [*FOUND, ("EMAIL_ADDRESS", "ann@example.com")], [*FOUND, ("EMAIL_ADDRESS", "ann@example.com")],
        [*FOUND, ("EMAIL_ADDRESS", "ann@example.com")], []]
    assert ask(eye, ("user", "Sarah Miller called."), ("assistant", "Sarah Miller called."))[1] == [("PERSON", "Sarah Miller")]
    asked = Ner("tiny", entities=("LOCATION",), roles=("assistant", "tool_result"), timeout=1)
    eye = eyes(Wanted(), asked, str(tiny.parent))
    assert ask(eye, ("user", said), ("tool_result", tiny_model.SAID)) == [
        [("EMAIL_ADDRESS", "ann@example.com")], [("LOCATION", "Tazmeer")]]
    assert ask(eye, ("tool_result", "Sarah Miller is in Tazmeer")) == [[("PERSON", "Sarah Miller"), ("LOCATION", "Tazmeer")]]


def test_this_process_loads_no_model(tiny: Path) -> None:
    code = ("import sys\nfrom douane.detect import Wanted, byrole, models\n"
            "models._try = lambda *_: models.Tried(('PERSON',), 1.0, 9)\n"
            f"byrole.eyes(Wanted(), 'tiny', {str(tiny.parent)!r})\n"
            "print({'spacy', 'presidio_analyzer', 'thinc', 'numpy'} & set(sys.modules))")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environ())
    assert done.stdout == "set()\n"


@pytest.mark.parametrize(("field", "says"), [
    ("ner: ./tiny", ["redact: PERSON, LOCATION, ORGANIZATION in texts of user: by ./tiny (",
                     "redact: in other texts: the built-in"]),
    ("ner: builtin", ["redact: people's names: by the built-in recognizer (recall ",
                      "redact: places and organisations: not found",
                      " -m spacy download en_core_web_lg; then `ner: en_core_web_lg`"]),
    ("ner: off, names: [Ann Lee]", ["redact: people's names: those in `names` alone: the 1 listed"]),
    ("entities: [URL]", ["redact: people's names are not looked for"])])
def test_check_says_what_is_found_and_how_more_is(field: str, says: list[str], tiny: Path, tmp_path: Path,
                                                  capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "tiny").symlink_to(tiny)
    folder = written(tmp_path, "builtin")
    file = folder / "policy.yaml"
    file.write_text(file.read_text().replace("ner: builtin", field))
    assert main(["check", str(folder)]) == 0
    said = capsys.readouterr().out
    assert [one for one in says if one not in said] == []


def test_entities_say_what_the_model_is_asked_for(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("douane.detect.models._try", lambda *_: Tried(ALL, 0.1, 1))
    folder = str(tiny.parent)

    def asked(entities: tuple[str, ...], ner: Ner | str = "tiny") -> tuple[Any, ...]:
        made = eyes(Wanted(entities), ner, folder)
        reading = made.reading._wanted if made.reading else None
        return made.common._wanted.entities, reading and reading.model and reading.model.entities, reading and reading.by_rule

    assert asked(DEFAULT_ENTITIES) == (DEFAULT_ENTITIES, ALL, False)
    assert asked(("EMAIL_ADDRESS", "LOCATION")) == (("EMAIL_ADDRESS",), ("LOCATION",), True)
    assert asked(("PERSON", "ORGANIZATION"), Ner("tiny", entities=("ORGANIZATION",))) == (("PERSON",), ("ORGANIZATION",), True)
    assert asked(("PERSON",), "builtin") == (("PERSON",), None, None)
    for entities, ner, says in (
            (("EMAIL_ADDRESS",), "tiny", "nothing of that is asked for"), (("NRP",), "tiny", "finds PERSON, LOCATION"),
            (("PERSON",), Ner("tiny", entities=("NRP",)), "ner.entities: tiny does not find NRP; it finds: PERSON"),
            (("PERSON", "NRP"), "tiny", "entities: NRP is not found by tiny"),
            (("LOCATION",), "builtin", "by a language model alone"),
            (("LOCATION", "NRP"), "off", "entities: LOCATION, NRP is found by a language model alone")):
        with pytest.raises(ValueError, match=says):
            eyes(Wanted(entities), ner, folder)


def test_what_a_model_said_is_not_taken_for_what_another_says(tiny: Path) -> None:
    async def work(scanner: Scanner) -> list[tuple[Span, ...]]:
        return await scanner.scan("acme", [tiny_model.SAID])

    model = Model(str(tiny), ALL, 2.0, "one")
    first = Scanner(Wanted(model=model, by_rule=False))
    assert told(house.run(work(first), 60)[0], tiny_model.SAID) == FOUND
    other = Scanner(Wanted(model=replace(model, entities=("LOCATION",)), by_rule=False))
    assert told(house.run(work(other), 60)[0], tiny_model.SAID) == FOUND[2:]
    assert told(house.run(work(first), 60)[0], tiny_model.SAID) == FOUND
    plain = Scanner(Wanted())
    assert told(house.run(work(plain), 60)[0], tiny_model.SAID) == []


def test_files_that_change_make_another_model(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tries: list[Model] = []

    def tried(model: Model, _: str) -> Tried:
        tries.append(model)
        return Tried(ALL, 0.1, 1)

    monkeypatch.setattr("douane.detect.models._try", tried)
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "config.cfg").write_text("a")
    before, _ = find_model(Ner("./mine"), ALL, str(tmp_path))
    assert find_model(Ner("mine"), ALL, str(tmp_path))[0] == before
    (folder / "config.cfg").write_text("ab")
    assert find_model(Ner("mine"), ALL, str(tmp_path))[0] != before


# -- what cannot be used -----------------------------------------------------------------------------------------------


def written(folder: Path, ner: str) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "policy.yaml").write_text("version: 1\nprincipals:\n  - {name: local, cidr: [127.0.0.0/8]}\nchain:\n"
                                        f"  - authenticate: {{}}\n  - redact: {{ner: {ner}}}\n")
    return folder


@pytest.mark.parametrize(("ner", "says"), [
    ("en_none_lg", "redact: ner: no spaCy model `en_none_lg` is installed"), ("json", "no spaCy model `json` is installed"),
    ("./nowhere", "ner: there is no folder"), ("./empty", "it has no config.cfg"),
    ("{model: ./empty, roles: [users]}", "redact.ner.roles"), ("{model: x, timeout: soon}", "redact.ner.timeout"),
    ("{model: ./empty, transformers: ./t}", "it has no config.cfg"), ("{timeout: 2s}", "`model` is missing")])
def test_what_is_no_model_is_said_with_its_line(ner: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError) as caught:
        load(written(tmp_path, ner))
    assert says in str(caught.value)
    assert "policy.yaml:6" in str(caught.value)


def test_a_broken_model_is_said_with_its_line(tiny: Path, tmp_path: Path) -> None:
    folder = tmp_path / "broken"
    for path in [one for one in tiny.rglob("*") if one.is_file()]:
        copy = folder / path.relative_to(tiny)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes()[:-50] if path.name == "model" else path.read_bytes())
    with pytest.raises(ConfigError, match=r"policy\.yaml:6: redact: ner: \./broken cannot be loaded: "):
        load(written(tmp_path, "./broken"))


def test_a_model_that_finds_nothing_is_none(tmp_path: Path) -> None:
    import spacy

    from douane.detect.try_model import _finds

    spacy.blank("en").to_disk(tmp_path / "blank")
    with pytest.raises(ValueError, match="no `ner`"):
        _finds(Model(str(tmp_path / "blank"), (), 1.0))


def test_a_transformers_model_is_a_folder_and_takes_its_libraries(tiny: Path, tmp_path: Path,
                                                                  monkeypatch: pytest.MonkeyPatch) -> None:
    """What loads one is presidio's; none is run here."""
    with pytest.raises(ValueError, match="it has no config"):
        find_model(Ner("tiny", transformers="none"), ALL, str(tiny.parent))
    (tmp_path / "config.json").write_text("{}")
    monkeypatch.setattr("douane.detect.models.find_spec", lambda _: None)
    with pytest.raises(ValueError, match="pip install spacy-huggingface-pipelines"):
        find_model(Ner("tiny", transformers=str(tmp_path)), ALL, str(tiny.parent))


def test_what_names_do_not_need_is_left_out(tiny: Path, tmp_path: Path) -> None:
    import spacy

    from douane.detect.ner import load as load_model

    nlp = spacy.load(tiny)
    nlp.add_pipe("sentencizer")
    nlp.to_disk(tmp_path / "more")
    nlp.add_pipe("entity_ruler")
    nlp.to_disk(tmp_path / "ruled")
    for name, pipes in (("more", ["ner"]), ("ruled", ["ner", "sentencizer", "entity_ruler"])):
        assert load_model(Model(str(tmp_path / name), (), 1.0)).get_nlp("en").pipe_names == pipes


# -- a package, and the clock ------------------------------------------------------------------------------------------


def test_a_package_is_taken_by_name_and_runs_out_of_time(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("douane.detect.models._try", lambda *_: Tried(ALL, 0.1, 1))  # as it was with the folder
    eye = eyes(Wanted(), Ner(package, timeout=1), "/")
    assert eye.reading is not None
    wanted = eye.reading._wanted
    assert wanted.model is not None
    assert wanted.model.stamp == "1.2"
    quick = Scanner(replace(wanted, model=replace(wanted.model, seconds=0.1)))

    async def work() -> None:
        assert told((await quick.scan("acme", [tiny_model.SAID]))[0], tiny_model.SAID) == FOUND
        before = pool().pids
        with pytest.raises(ScanFailedError, match="ran out of time"):
            await quick.scan("acme", ["it will hang"])
        assert pool().pids == before, "an alarm ended it"
        with pytest.raises(ScanFailedError, match="in time"):
            await quick.scan("acme", ["it will hang, stuck"])
        again = tiny_model.SAID.replace("Vexil", "Ondrel")
        assert told((await quick.scan("acme", [again]))[0], again) == [("PERSON", "Ondrel Nargle"), *FOUND[1:]]
        assert pool().pids != before, "a new one has loaded it again"

    house.run(work(), 120)


# -- a real gateway ----------------------------------------------------------------------------------------------------

CHAIN = """  - authenticate: {unknown: deny}
  - redact: {ner: {model: ./models/tiny}}
  - swap_key: {missing: deny}"""


def test_names_leave_as_placeholders_and_come_back(tiny: Path, tmp_path: Path, provider: LocalProvider) -> None:
    models = tmp_path / "policies" / "models"
    models.mkdir(parents=True)
    (models / "tiny").symlink_to(tiny)
    with running_gateway(tmp_path, policy(provider, chain=CHAIN)) as gateway, Wire.tls(gateway) as wire:
        wire.sock.settimeout(60)  # the first call waits for the worker
        wire.send(request(json.dumps({"model": "gpt-4o", "messages": [{"role": "user", "content": tiny_model.SAID}]}).encode()))
        got = wire.answer()
        body = provider.seen[-1].body
        assert got.json["choices"][0]["message"]["content"] == f"You said: {tiny_model.SAID}"
        assert not [value for _, value in FOUND if value.encode() in body]
        assert b"<LOCATION_" in body
        assert {one["type"] for one in gateway.outcome(got.id)["findings"]} == set(ALL)
