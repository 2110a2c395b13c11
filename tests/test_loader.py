"""Policy files → a chain, or every mistake at once."""

import asyncio
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from douane import folder as folder_module
from douane.call import Call, Caller, Principal, Usage
from douane.chain import AuditRules
from douane.edge import EdgeRules
from douane.errors import ConfigError
from douane.loader import Loaded, load
from douane.people import Tokens
from douane.policy import Setting, registry
from douane.rates import Rates
from douane.secrets import Secret
from douane.verdict import ALLOW, Deny, Rewrite, Verdict

ROOT = Path(__file__).parent.parent
KEY = "key-" + "0" * 20
PEOPLE = "principals: [{name: local, cidr: 127.0.0.1}]\n"
CHAIN = "chain:\n  - authenticate: {}\n"
LEAST = "version: 1\n" + CHAIN


@dataclass(frozen=True, slots=True)
class Bound:
    """Takes what it needs of the house, or refuses."""

    refuse: str = ""

    def bind(self, setting: Setting) -> "Bound":
        if self.refuse == "config":
            raise ConfigError("not in this house")
        if self.refuse == "value":
            raise ValueError("no such value")
        found = setting.directory.by_name("local")
        return replace(self, refuse=f"bound to {found.name if found else 'nobody'}")

    async def admit(self, call: Call) -> Verdict:
        return ALLOW


@pytest.fixture(autouse=True)
def _one_policy_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("douane.loader.registry", lambda: {**registry(), "test_bound": Bound})


@pytest.fixture
def read(tmp_path: Path) -> Callable[..., Loaded]:
    def read(*texts: str, environ: dict[str, str] | None = None, **more: Any) -> Loaded:
        for name, text in zip("abcdef", texts, strict=False):
            (tmp_path / f"{name}.yaml").write_text(text)
        return load(tmp_path, environ=environ or {}, **more)

    return read


@pytest.fixture
def refused(read: Callable[..., Loaded], tmp_path: Path) -> Callable[..., str]:
    def refused(*texts: str, **more: Any) -> str:
        with pytest.raises(ConfigError) as caught:
            read(*texts, **more)
        return str(caught.value).replace(f"{tmp_path}/", "")

    return refused


def call(**changed: Any) -> Call:
    return replace(Call("1", 0.0, "openai", "chat", "POST", "api.openai.com", "/v1/chat/completions", "", (),
                        Caller("127.0.0.1"), model="gpt-4o"), **changed)


def judged(loaded: Loaded, asked: Call) -> Verdict | Call:
    """What the entries, one after the other, make of a call."""
    for entry in loaded.chain.entries:
        if (entry.when is None or entry.when(asked)) and hasattr(entry.policy, "admit"):
            verdict: Verdict = asyncio.run(entry.policy.admit(asked))
            if isinstance(verdict, Deny):
                return verdict
            if isinstance(verdict, Rewrite):
                asked = verdict.call
    return asked


# What is shipped

def test_the_shipped_policy_serves_who_calls_from_this_machine_and_nobody_else(tmp_path: Path) -> None:
    loaded = load(ROOT / "policies", environ={})
    assert loaded.chain.files == (str(ROOT / "policies/default.yaml"),)
    assert [entry.name for entry in loaded.chain.entries] == ["authenticate", "detect_secrets", "redact", "budget", "swap_key"]
    assert loaded.chain.edge == EdgeRules()
    assert not loaded.has_principals, "nobody from beyond this machine could be known"
    assert loaded.credential_providers == frozenset()
    own = call(headers=((b"authorization", b"Bearer the-apps-own"),))
    for address in ("127.0.0.1", "::1"):
        answer = judged(loaded, replace(own, caller=Caller(address)))
        assert isinstance(answer, Call)
        assert answer.principal == Principal("local")
        assert answer.headers == own.headers
    stranger = judged(loaded, replace(own, caller=Caller("10.0.0.1")))
    assert isinstance(stranger, Deny)
    assert stranger.code == "unauthenticated"


def test_the_example_loads_when_copied_and_its_variables_are_set(tmp_path: Path) -> None:
    shutil.copy(ROOT / "policies/team.yaml.example", tmp_path / "team.yaml")
    names = ("SUPPORT_BOT_KEY", "RESEARCH_KEY", "OPENAI_API_KEY", "OPENAI_API_KEY_SUPPORT", "ANTHROPIC_API_KEY")
    environ = {name: f"{name.lower()}-0123456789" for name in names}
    loaded = load(tmp_path, environ=environ)
    assert loaded.has_principals
    assert loaded.chain.edge.max_body == 8 * 1024 * 1024
    caller = Caller("10.9.9.9", proxy_user="support-bot", proxy_secret=Secret(environ["SUPPORT_BOT_KEY"]))
    allowed = judged(loaded, call(caller=caller, model="gpt-4o-mini"))
    assert isinstance(allowed, Call)
    assert allowed.credential is not None
    assert allowed.credential.secret.reveal() == environ["OPENAI_API_KEY_SUPPORT"]
    assert isinstance(judged(loaded, call(caller=caller, model="gpt-4o")), Deny)
    assert [entry.observe for entry in loaded.chain.entries] == [False, False, False, True, *[False] * 6]
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, environ={})
    assert len(str(caught.value).splitlines()) == len(names)
    assert all(name in str(caught.value) for name in names)


def test_the_example_is_not_loaded_where_it_stands() -> None:
    assert "team.yaml.example" not in " ".join(load(ROOT / "policies", environ={}).chain.files)


# Files

def test_files_load_in_name_order_and_named_sections_merge(read: Callable[..., Loaded]) -> None:
    loaded = read("version: 1\n" + PEOPLE + "credentials: {openai: env:A}\nprices: {m: 0}\n",
                  LEAST + "principals: [{name: bot, key: env:B}]\ncredentials: {anthropic: env:A}\nprices: {n: 0}\n",
                  environ={"A": KEY + "a", "B": KEY})
    assert [Path(file).name for file in loaded.chain.files] == ["a.yaml", "b.yaml"]
    assert loaded.directory.by_name("local")
    assert loaded.directory.by_secret(Secret(KEY).digest()) == Principal("bot")
    assert loaded.credential_providers == {"openai", "anthropic"}
    assert [rule.key for rule in loaded.prices.lines if rule.provider != "ollama"] == ["m", "n"]


def test_only_yaml_files_are_read_and_no_tests(read: Callable[..., Loaded], tmp_path: Path) -> None:
    for name in ("a_test.yaml", ".hidden.yaml", ".#a.yaml", "b.yaml.example", "b.yaml~", "README.md", "c_test.yml"):
        (tmp_path / name).write_text("neither: [read\n")
    assert [Path(file).name for file in read(LEAST).chain.files] == ["a.yaml"]


@pytest.mark.parametrize(("texts", "said"), [
    ((LEAST + "mode: observe\n",
     "version: 1\nmode: enforce\n"), "b.yaml:2: `mode` stands in one file only: first at a.yaml:4"),
    ((LEAST, LEAST), "b.yaml:2: `chain` stands in one file only: first at a.yaml:2"),
    ((LEAST + "edge: {}\n", "version: 1\nedge: {}\n"), "b.yaml:2: `edge` stands in one file only"),
    ((LEAST + "audit: {}\n", "version: 1\naudit: {}\n"), "b.yaml:2: `audit` stands in one file only"),
    ((LEAST + "prices: {m: 0}\n",
     "version: 1\nprices:\n  m: 0\n"), "b.yaml:3: prices: `m` is given twice: first at a.yaml:4"),
    ((LEAST + "credentials: {openai: env:A}\n", "version: 1\ncredentials: {openai: env:B}\n"),
     "b.yaml:2: credentials: `openai` is given twice: first at a.yaml:4"),
    ((LEAST + PEOPLE, "version: 1\nprincipals:\n  - name: local\n"),
     "b.yaml:3: principal local: the name is given twice: first at a.yaml:4"),
    ((LEAST + "chain: []\n",), "a.yaml:4: `chain` is given twice: first at a.yaml:2"),
    ((LEAST, ""), "b.yaml:1: is empty"),
    ((LEAST, "# only this\n"), "b.yaml:1: is empty"),
    ((CHAIN,), "a.yaml:1: `version: 1` is missing"),
    (("version: 2\n" + CHAIN,), "a.yaml:1: version: this is not a version we know; allowed: 1"),
    (("version: true\n" + CHAIN,), "a.yaml:1: version: this is not a version we know"),
    (("version:\n" + CHAIN,), "a.yaml:1: version: nothing is not allowed here"),
    (("version: 1\n",), "a.yaml:1: no file has a `chain`"),
    ((LEAST + "chian: []\n",), "a.yaml:4: there is no section `chian`; did you mean `chain`?"),
    ((LEAST + "ledger: env:REDIS_URL\n",), "a.yaml:4: ledger: `env:REDIS_URL` is not allowed"),
    ((LEAST + "principals: {name: x}\n",), "a.yaml:4: principals: a mapping is not allowed here; allowed: a list"),
    ((LEAST + "prices: [m]\n",), "a.yaml:4: prices: a list is not allowed here"),
    ((LEAST + "mode: observed\n",), "a.yaml:4: mode: `observed` is not allowed; did you mean `observe`?"),
    ((LEAST + "edge: {max_body: lots}\n",), "a.yaml:4: edge.max_body: a size is"),
    ((LEAST + "edge: {tunnel: [a..b]}\n",), "a.yaml:4: edge.tunnel[0]: not a host name"),
    ((LEAST + "edge: {unknown_hosts: no}\n",), "edge.unknown_hosts: `no` is not allowed; allowed: tunnel, deny"),
    ((LEAST + "audit: {level: full}\n",), "a.yaml:4: audit.level: sealed originals are not kept in this version; allowed"),
    ((LEAST + "audit: {level: some}\n",), "a.yaml:4: audit.level: `some` is not allowed; allowed: metadata, redacted"),
    ((LEAST + "audit: {retention: 90d}\n",), "a.yaml:4: audit.retention: records are kept for good in this version"),
    ((LEAST + "audit: {levle: metadata}\n",), "a.yaml:4: audit: there is no key `levle`; did you mean `level`?"),
    ((LEAST + "audit: metadata\n",), "a.yaml:4: audit: text is not allowed here"),
    ((LEAST + "upstream_proxy: 'ftp://x'\n",), "a.yaml:4: upstream_proxy: allowed: https://HOST"),
    ((LEAST + "upstream_proxy: 'http://x/y'\n",), "a.yaml:4: upstream_proxy: a proxy has no path"),
    ((LEAST + "upstream_proxy: 'http://u:p@x'\n",), "upstream_proxy: a URL here holds no user name or password"),
    ((LEAST + "upstream_proxy: [x]\n",), "a.yaml:4: upstream_proxy: a list is not allowed here"),
    ((LEAST + "ca: absent.pem\n",), "a.yaml:4: ca: there is no file absent.pem"),
    ((LEAST + "ca: a.yaml\n",), "a.yaml:4: ca: a.yaml holds no PEM certificates"),
])
def test_a_mistake_is_told_with_its_place(refused: Callable[..., str], texts: tuple[str, ...], said: str) -> None:
    assert said in refused(*texts, environ={"A": KEY, "B": KEY})


def test_every_mistake_of_every_file_is_told_at_once(refused: Callable[..., str]) -> None:
    lines = refused("version: 2\nmode: x\nedge: {a: b}\nchain: [authenticate, nope: {}, swap_key: {x: 1}]\n",
                    "version: 1\nprincipals: [{nmae: x}]\ncredentials: {x: env:Y}\n"
                    "providers: {y: {}}\nprices: {z: a}\n",
                    "version: [\n").splitlines()
    assert [line.split(": ")[0] for line in lines] == [
        "a.yaml:1", "a.yaml:2", "a.yaml:3", "a.yaml:4", "a.yaml:4", "a.yaml:4", "a.yaml:4",
        "b.yaml:2", "b.yaml:2", "b.yaml:3", "b.yaml:4", "b.yaml:5", "c.yaml:2"]


def test_empty_sections_are_as_good_as_none(read: Callable[..., Loaded]) -> None:
    loaded = read(LEAST + "credentials:\nproviders: {}\nprices: ~\nprincipals:\nedge:\nmode:\naudit:\nca:\n")
    assert loaded.chain.edge == EdgeRules()
    assert loaded.chain.audit == AuditRules()
    assert (loaded.ca, loaded.upstream_proxy, loaded.has_principals) == ("", None, False)


def test_no_folder_no_file_and_no_reading_are_one_line_each(tmp_path: Path) -> None:
    for folder, said in ((tmp_path / "absent", "No such file"), (tmp_path, "there is no policy file (*.yaml) here")):
        with pytest.raises(ConfigError) as caught:
            load(folder, environ={})
        assert said in str(caught.value)
        assert "\n" not in str(caught.value)
    (tmp_path / "a.yml").write_text(LEAST)
    (tmp_path / "b.yaml").mkdir()
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, environ={})
    assert [line.partition(": ")[2] for line in str(caught.value).splitlines()] == [
        "is not read: policy files end in .yaml; rename or remove it", "is no file"]


def test_a_pipe_among_the_files_is_refused_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.yaml")
    with pytest.raises(ConfigError, match="is no file"):
        load(tmp_path, environ={})


def test_files_that_change_while_they_are_read_are_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.yaml").write_text("version: 1\n" + PEOPLE)
    (tmp_path / "b.yaml").write_text(LEAST)
    reads, whole = [0], folder_module._content

    def meanwhile(path: Path) -> bytes | None:
        found = whole(path)
        reads[0] += 1
        if reads[0] <= changes:  # somebody saves a file we have read already
            (tmp_path / "a.yaml").write_text(f"version: 1\nprincipals: [{{name: n{reads[0]}}}]\n")
        return found

    monkeypatch.setattr(folder_module, "_content", meanwhile)
    changes = 1
    assert load(tmp_path, environ={}).directory.by_name("n1")
    changes = 1000
    with pytest.raises(ConfigError, match="change faster than they can be read"):
        load(tmp_path, environ={})


# The revision

def revision(loaded: Loaded) -> str:
    return loaded.chain.revision


def test_the_revision_is_that_of_the_content(tmp_path: Path) -> None:
    def of(*texts: str, environ: dict[str, str] | None = None) -> str:
        shutil.rmtree(tmp_path)
        tmp_path.mkdir()
        for name, text in zip("abc", texts, strict=False):
            (tmp_path / f"{name}.yaml").write_text(text)
        return load(tmp_path, environ=environ or {"K": KEY}).chain.revision

    one = (LEAST + "  - swap_key: {}\n" + PEOPLE
           + "prices: {m: 0, n: {input: 1, output: 2}}\ncredentials: {openai: env:K}\n")
    first = of(one)
    assert len(first) == 64
    assert int(first, 16)
    same = ("# why\nversion: 1\nprices:\n  n:\n    output: 2   # dear\n    'input': 1\n  m: 0\n",
            'version: 1\ncredentials: {openai: "env:K"}\nchain: [authenticate: {}, swap_key: {}]\n' + PEOPLE)
    assert of(*same) == first, "comments, layout, quotes, order of keys and the division into files do not count"
    assert of(one, environ={"K": KEY + "other"}) == first, "what a reference leads to does not count"
    two = "principals: [{name: bot}, {name: local, cidr: 127.0.0.1}]\n"
    assert of(one.replace(PEOPLE, two)) == of(one.replace(PEOPLE, "principals: [{name: local, cidr: 127.0.0.1}]\n"),
                                              "version: 1\nprincipals: [{name: bot}]\n") != first
    for changed in (one.replace("env:K", "env:K2"), one.replace("swap_key: {}", "swap_key: {missing: keep}"),
                    one.replace("m: 0", "x: 0"), one.replace("127.0.0.1", "127.0.0.2"), one + "mode: observe\n",
                    one.replace("  - swap_key: {}\n", "  - swap_key: {}\n    when: call.stream\n")):
        assert of(changed, environ={"K": KEY, "K2": KEY}) != first, changed


def test_the_order_of_the_chain_is_part_of_the_revision(read: Callable[..., Loaded]) -> None:
    bound, swap = "  - test_bound: {}\n", "  - swap_key: {}\n"
    assert revision(read(LEAST + bound + swap)) != revision(read(LEAST + swap + bound))


# The chain

def test_an_entry_is_what_its_lines_say(read: Callable[..., Loaded], tmp_path: Path) -> None:
    loaded = read(LEAST + "  - test_bound: {}\n    when: call.model == 'x'\n    mode: observe\n    on_error: allow\n"
                  "  - when: call.stream\n    test_bound: {}\n" + PEOPLE)
    first, second, third = loaded.chain.entries
    assert (first.name, first.when, first.observe, first.on_error) == ("authenticate", None, False, "deny")
    assert (first.traits.always, first.traits.needs_body) == (True, False)
    assert (second.observe, second.on_error, second.place) == (True, "allow", f"{tmp_path}/a.yaml:4")
    assert second.policy == Bound("bound to local")
    assert second.when is not None
    assert (second.when(call(model="x")), second.when(call(model="y"))) == (True, False)
    assert third.place == f"{tmp_path}/a.yaml:9"


def test_mode_is_that_of_the_entry_else_of_the_file(read: Callable[..., Loaded]) -> None:
    loaded = read("mode: observe\n" + LEAST + "  - test_bound: {}\n  - test_bound: {}\n    mode: enforce\n"
                  "  - swap_key: {}\n")
    assert [entry.observe for entry in loaded.chain.entries] == [False, True, False, False]


@pytest.mark.parametrize(("entries", "said"), [
    ("  - rate_limits: {}\n", "a.yaml:4: chain: there is no policy `rate_limits`; did you mean `rate_limit`?"),
    ("  - swap_keys: {}\n", "a.yaml:4: chain: there is no policy `swap_keys`; did you mean `swap_key`?"),
    ("  - swap_key\n", "a.yaml:4: chain: text is not allowed here; allowed: `POLICY: {…}`"),
    ("  - swap_key:\n", "a.yaml:4: swap_key: nothing is not allowed here; allowed: {missing: …}"),
    ("  - {}\n", "a.yaml:4: chain: an entry holds one policy; this one holds 0"),
    ("  - when: call.stream\n", "a.yaml:4: chain: an entry holds one policy; this one holds 0"),
    ("  - swap_key: {}\n    test_bound: {}\n", "a.yaml:4: chain: an entry holds one policy; this one holds 2"),
    ("  - swap_key: {}\n    on-error: deny\n", "there is no policy `on-error`; did you mean `on_error`?"),
    ("  - swap_key: {missing: kep}\n", "a.yaml:4: swap_key.missing: `kep` is not allowed; did you mean `keep`?"),
    ("  - allow_models: {}\n", "a.yaml:4: allow_models: `models` is missing: a list (of: text)"),
    ("  - allow_models: {models: []}\n", "a.yaml:4: allow_models: models: name at least one"),
    ("  - test_bound: {}\n    when: principal.tema == 'x'\n",
     "a.yaml:5: test_bound.when: column 10: undeclared reference"),
    ("  - test_bound: {}\n    when: true\n", "a.yaml:5: test_bound.when: true or false is not allowed here"),
    ("  - test_bound: {}\n    when: call.model\n", "a.yaml:5: test_bound.when: the expression is STRING"),
    ("  - test_bound: {}\n    mode: watch\n",
     "a.yaml:5: test_bound.mode: `watch` is not allowed; allowed: enforce, observe"),
    ("  - test_bound: {}\n    on_error: no\n",
     "a.yaml:5: test_bound.on_error: `no` is not allowed; allowed: deny, allow"),
    ("  - test_bound: {refuse: config}\n", "a.yaml:4: test_bound: not in this house"),
    ("  - test_bound: {refuse: value}\n", "a.yaml:4: test_bound: no such value"),
    ("  - swap_key: {}\n    mode: observe\n", "a.yaml:5: swap_key.mode: it acts in observe mode too; allowed: enforce"),
    ("    mode: observe\n", "a.yaml:4: authenticate.mode: it acts in observe mode too"),
    ("    when: call.stream\n", "a.yaml:4: authenticate.when: every call is authenticated"),
    ("    on_error: allow\n", "a.yaml:4: authenticate.on_error: allowed: deny"),
    ("  - authenticate: {unknown: {allow-as: nobody}}\n",
     "a.yaml:4: authenticate: allow-as: no principal is called 'nobody'"),
    ("  - authenticate: {unknown: allow}\n",
     "a.yaml:4: authenticate.unknown: `allow` is not allowed; allowed: deny or"),
])
def test_a_wrong_entry_is_refused(refused: Callable[..., str], entries: str, said: str) -> None:
    assert said in refused(LEAST + entries)


@pytest.mark.parametrize("chain", ["[]", "[swap_key: {}]", "[swap_key: {}, authenticate: {}]"])
def test_authenticate_comes_first(refused: Callable[..., str], chain: str) -> None:
    assert "`authenticate` comes first: what follows acts on who calls" in refused(f"version: 1\nchain: {chain}\n")


def test_a_chain_is_a_list(refused: Callable[..., str]) -> None:
    assert "a.yaml:2: chain: a mapping is not allowed here" in refused("version: 1\nchain: {authenticate: {}}\n")


def test_no_false_alarm_about_somebody_whose_line_is_wrong(refused: Callable[..., str]) -> None:
    text = LEAST.replace("{}", "{unknown: {allow-as: bot}}") + "principals: [{name: bot, tema: x}]\n"
    assert refused(text).splitlines() == [
        "a.yaml:4: principals[0]: there is no key `tema`; did you mean `team`? allowed: name, team, org, key, cidr, tier"]


# Principals, credentials, prices

@pytest.mark.parametrize(("text", "said"), [
    ("principals: [{team: x}]", "principals[0]: `name` is missing"),
    ("principals: [local]", "principals[0]: text is not allowed here; allowed: {name: …"),
    ("principals: [{name: 'a:b'}]", "a name has 1 to 100 characters"),
    ("principals: [{name: ''}]", "a name has 1 to 100 characters"),
    ("principals: [{name: a, cidr: 10.0.0.1/8}]", "`10.0.0.1/8` is no network; did you mean 10.0.0.0/8?"),
    ("principals: [{name: a, cidr: [10.0.0.0/8, here]}]", "principal a.cidr: `here` is no network; allowed: such as"),
    ("principals: [{name: a, cidr: 10.0.0.0/8}, {name: b, cidr: [10.0.0.0/8]}]",
     "principal b.cidr: 10.0.0.0/8 is given twice: first at a.yaml:4"),
    ("principals: [{name: a, key: env:K}, {name: b, key: env:K}]",
     "principal b.key: two principals have the same key: first at a.yaml:4"),
    ("principals: [{name: a, key: env:ABSENT}]", "principal a.key: the environment variable ABSENT is not set"),
    ("principals: [{name: a, key: file:/absent}]", "principal a.key: there is no file /absent"),
    ("tiers: {low: {limit: 1 USD/day}}\nprincipals: [{name: a, tier: lwo}]", "principal a: there is no tier `lwo`; did you"),
    ("tiers: {low: {limit: 1 USD/day}}\nprincipals: [{name: a}]", "a: `tier` is missing, and no tier is called standard"),
    ("tiers: {low: {limits: 1 USD/day}}", "tiers.low: there is no key `limits`; did you mean `limit`?"),
    ("ledger: {redis: env:ABSENT}", "ledger.redis: the environment variable ABSENT is not set"),
    ("ledger: {}", "ledger: allowed: sqlite, or {redis: env:REDIS_URL}"),
    ("principals: [{name: a, key: ''}]", "principal a.key: a key does not stand in a policy file"),
    ("credentials: {openai: env:ABSENT}", "credentials.openai: the environment variable ABSENT is not set"),
    ("credentials: {opnai: env:K}", "credentials.opnai: there is no such provider; did you mean `openai`?"),
    ("credentials: {openai: {team: x}}", "credentials.openai: `key` is missing"),
    ("credentials: {openai: [env:K, {key: env:L, team: ''}]}", "credentials.openai: two for the same team and org"),
    ("credentials: {openai: vault:a}", "credentials.openai: vault: is not in this version"),
    ("credentials: {openai: env:K}\nprincipals: [{name: a, key: env:K}]",
     "a.yaml:4: credentials.openai: is also a principal's key (a.yaml:5)"),
    ("prices: {m: 3}", "prices.m: a single number may only be 0"),
    ("prices: {m: {input: 1}}", "prices.m: `output` is missing: a number"),
    ("prices: {m: {input: -1, output: 1}}", "prices.m: a price is 0 or more"),
    ("prices: {m: {input: .nan, output: 1}}", "prices.m.input: this number is not allowed"),
    ("prices: {m: free}", "prices.m: text is not allowed here"),
])
def test_wrong_names_keys_and_prices_are_refused(refused: Callable[..., str], text: str, said: str) -> None:
    assert said in refused(LEAST + text + "\n", environ={"K": KEY, "L": KEY + "l"})


@pytest.mark.parametrize("text", [
    "principals: [{name: a, key: SECRET}]", "principals: [{name: a, key: [SECRET]}]", "credentials: {openai: SECRET}",
    "credentials: {openai: {key: SECRET}}", "credentials: {openai: {key: {SECRET: 1}}}", "credentials: SECRET",
    "credentials: [SECRET]", "principals: SECRET", "credentials: {openai: [[SECRET]]}",
    "upstream_proxy: 'http://u:SECRET@x'", "providers: {openai: {upstream: 'https://u:SECRET@x'}}",
    "credentials: {openai: env:K}\nprincipals: [{name: a, key: env:K}, {name: b, key: env:K}]",
    "credentials: [SECRET, {",
])
def test_a_key_in_the_wrong_place_is_not_repeated(refused: Callable[..., str], text: str) -> None:
    key = "sk-" + "a" * 20
    assert key not in refused(LEAST + text.replace("SECRET", key) + "\n", environ={"K": key})


def test_what_is_loaded_shows_no_key(read: Callable[..., Loaded]) -> None:
    loaded = read(LEAST + "  - swap_key: {}\ncredentials: {openai: env:C}\nprincipals: [{name: a, key: env:K}]\n",
                  environ={"C": KEY + "c", "K": KEY + "k"})
    assert KEY not in repr(loaded)
    assert loaded.has_principals


def test_credentials_go_as_their_provider_wants_them(read: Callable[..., Loaded]) -> None:
    loaded = read(LEAST + "credentials:\n  openai: [env:A, {key: env:B, team: t}, {key: env:C, org: o}]\n"
                  "  anthropic: {key: env:A, team: t, org: o}\n", environ={name: KEY + name for name in "ABC"})
    common = loaded.credentials.find("openai", Principal("x"))
    assert common is not None
    assert (common.header, common.prefix, common.provider) == (b"authorization", b"Bearer ", "openai")
    found = [loaded.credentials.find("openai", Principal("x", *who)) for who in (("t", "o"), ("", "o"), ("u", ""))]
    assert [one and one.secret.reveal()[-1] for one in found] == ["B", "C", "A"]
    assert loaded.credentials.find("anthropic", Principal("x", "t")) is None
    theirs = loaded.credentials.find("anthropic", Principal("x", "t", "o"))
    assert theirs is not None
    assert (theirs.header, theirs.prefix) == (b"x-api-key", b"")


def test_prices_are_dollars_a_million(read: Callable[..., Loaded]) -> None:
    loaded = read(LEAST + "prices:\n  m: {input: 3, output: 12.5, cached_input: 0.3, cache-write: 3.75}\n"
                  "  llama3*: 0\n  4: {input: 1, output: 2}\n")
    m, llama, four = (rule for rule in loaded.prices.lines if rule.provider != "ollama")
    assert (m.key, m.rates, m.place[-6:]) == ("m", Rates(3.0, 12.5, cached_input=0.3, cache_write=3.75), "yaml:5")
    assert (llama.key, llama.rates and llama.rates.cost(Usage(9, 9, web_searches=1))) == ("llama3*", 0.0)
    assert (four.key, four.rates) == ("4", Rates(1.0, 2.0))


def test_one_run_tokens_outlast_a_reload(read: Callable[..., Loaded]) -> None:
    tokens, digest = Tokens(), Secret(KEY).digest()
    before = read(LEAST + PEOPLE, tokens=tokens)
    tokens.issue("local", digest, {"run": "1"})
    after = read(LEAST + PEOPLE + "mode: observe\n", tokens=tokens)
    for loaded in (before, after):
        assert loaded.directory.by_secret(digest) == Principal("local", tags={"run": "1"})
    assert read(LEAST + PEOPLE).directory.by_secret(digest) is None


def test_the_proxy_and_the_roots(read: Callable[..., Loaded], tmp_path: Path) -> None:
    import certifi

    shutil.copy(certifi.where(), tmp_path / "roots.pem")
    loaded = read(LEAST + "upstream_proxy: http://proxy.internal:3128\nca: roots.pem\n")
    assert loaded.upstream_proxy is not None
    assert loaded.upstream_proxy.authority == "proxy.internal:3128"
    assert loaded.ca == str(tmp_path / "roots.pem")


# Law 9

def test_nothing_in_a_file_runs(tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    command = f"touch {mark}"
    attempts = [f"!!python/object/apply:os.system ['{command}']", f"!!python/name:os.system ['{command}']",
                json.dumps(f"$({command})"), json.dumps("{{ x.__init__.__globals__.os.system('" + command + "') }}"),
                json.dumps(f"os.system('{command}')"), json.dumps(f"`{command}`")]
    texts = "\n---\n".join(f"version: 1\nchain: [authenticate: {{}}, {place}]"
                           for attempt in attempts for place in (
                               f"{attempt}", f"{attempt}: {{}}", f"swap_key: {{missing: {attempt}}}",
                               f"{{swap_key: {{}}, when: {attempt}}}"))
    code = """
import sys, pathlib, douane.loader as loader, douane.errors as errors
folder = pathlib.Path(sys.argv[1])
(folder / "a.yaml").write_text("version: 1\\nchain: [authenticate: {}, swap_key: {}]\\n    \\n")
loader.load(folder, environ={})
try: import cel_expr_python.cel
except ImportError: raise SystemExit("no cel")
loader.compile_condition("true")
ran = []
def seen(event, args):
    if event in ("import", "exec", "compile", "os.system", "subprocess.Popen", "os.exec", "os.posix_spawn"):
        ran.append((event, str(args[0])[:80]))
sys.addaudithook(seen)
for text in sys.argv[2].split("\\n---\\n"):
    (folder / "a.yaml").write_text(text)
    try: loader.load(folder, environ={})
    except errors.ConfigError: pass
    else: raise SystemExit("loaded: " + text)
raise SystemExit(repr(ran) if ran else 0)
"""
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path), texts], env={"PYTHONPATH": str(ROOT / "addons")},
                          capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert not mark.exists()


words = st.sampled_from([
    "version", "mode", "edge", "chain", "principals", "credentials", "providers", "prices", "audit", "authenticate",
    "allow_models", "swap_key", "when", "name", "key", "cidr", "hosts", "upstream", "like", "openai", "env:K",
    "10.0.0.0/8", "call.stream", "allow-as", "unknown", "models", "max_body"])
values = st.sampled_from(["1", "~", "true", "no", "''", ".nan", "-1", "*a", "!!x y", "'\\x00'", "1e999"])
scalars = words | values | st.text(st.sampled_from("ab:-{}[]#&*!|>'\"%@`, \n\t\\0"), max_size=6)
trees = st.recursive(scalars, lambda inner: st.lists(inner, max_size=4).map(lambda items: "[" + ", ".join(items) + "]")
                     | st.dictionaries(words, inner, max_size=4).map(
                         lambda pairs: "{" + ", ".join(f"{key}: {value}" for key, value in pairs.items()) + "}"),
                     max_leaves=10)
files = st.dictionaries(words, trees, max_size=6).map(
    lambda pairs: "version: 1\n" + "".join(f"{key}: {value}\n" for key, value in pairs.items()))


@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(files | st.text(max_size=80))
def test_any_text_is_loaded_or_refused_line_by_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.yaml").write_bytes(text.encode("utf-8", "surrogatepass"))
    said = ""
    try:
        assert load(tmp_path, environ={"K": KEY}).chain.entries[0].name == "authenticate"
    except ConfigError as error:
        said = str(error)
    assert all(line.startswith(f"{tmp_path}/a.yaml:") for line in said.splitlines())


def test_uninspectable_content_may_be_refused(refused: Callable[..., str]) -> None:
    said = refused(LEAST + "edge: {uninspectable: perhaps}\n")
    assert "uninspectable" in said
    assert "allow, deny" in said
