"""Who is known, and what a provider gets."""

import hashlib
import pickle
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from douane.call import Credential, Principal
from douane.errors import ConfigError
from douane.people import Held, Known, Network, People, Tokens, Vaulted
from douane.policy import Credentials, Directory
from douane.references import MIN_CHARACTERS, resolve
from douane.secrets import Secret

KEY = "key-" + "0" * 20
BOT = Principal("bot", "support", "acme")
LAPTOPS = Principal("laptops", "engineering", "acme")


def digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


def people(*known: Known, tokens: Tokens | None = None) -> People:
    return People(known, tokens if tokens is not None else Tokens())


def known(principal: Principal, *cidrs: str) -> Known:
    return Known(principal, None, tuple(ip_network(cidr) for cidr in cidrs))


def test_a_principal_is_found_by_key_name_and_address() -> None:
    directory: Directory = people(Known(BOT, digest(KEY)), known(LAPTOPS, "10.20.0.0/16", "fd00::/8"))
    assert directory.by_secret(digest(KEY)) is BOT
    assert directory.by_secret(digest(KEY + "x")) is None
    assert directory.by_name("laptops") is LAPTOPS
    assert directory.by_name("nobody") is None
    assert directory.by_address("10.20.3.4") is LAPTOPS
    assert directory.by_address("fd12::1") is LAPTOPS
    assert directory.by_address("::ffff:10.20.3.4") is LAPTOPS
    assert directory.by_address("10.21.0.0") is None


@pytest.mark.parametrize("address", ["", "nowhere", "10.20.3", "10.20.3.4:80", "::1"])
def test_what_is_no_address_is_nobodys(address: str) -> None:
    assert people(known(LAPTOPS, "10.20.0.0/16")).by_address(address) is None


def test_the_longest_prefix_wins_whatever_the_order() -> None:
    wide, middle, one = known(Principal("wide"), "0.0.0.0/0"), known(Principal("middle"), "10.0.0.0/8"), \
        known(Principal("one"), "10.1.1.1/32")
    for order in ((wide, middle, one), (one, middle, wide)):
        directory = people(*order)
        found = [directory.by_address(address) for address in ("10.1.1.1", "10.1.1.2", "11.0.0.1")]
        assert [owner and owner.name for owner in found] == ["one", "middle", "wide"]
        assert directory.by_address("::1") is None


networks = st.builds(lambda number, prefix: ip_network((number >> (32 - prefix) << (32 - prefix), prefix)),
                     st.integers(0, 2**32 - 1), st.integers(0, 32))


@settings(max_examples=150, deadline=None)
@given(st.lists(networks, max_size=8, unique=True), st.integers(0, 2**32 - 1))
def test_by_address_agrees_with_ipaddress(given_networks: list[Network], number: int) -> None:
    directory = people(*(Known(Principal(str(net)), None, (net,)) for net in given_networks))
    for candidate in (number, *(int(net.network_address) for net in given_networks)):
        address = ip_address(candidate)
        fitting = [net for net in given_networks if address in net]
        expected = str(max(fitting, key=lambda net: net.prefixlen)) if fitting else None
        found = directory.by_address(str(address)) if candidate >= 2**32 or address.version == 4 else None
        assert (found.name if found else None) == (expected if address.version == 4 else None)


def test_a_one_run_token_is_its_principal_with_the_tags_of_the_run_until_it_is_revoked() -> None:
    tokens = Tokens()
    directory = people(Known(BOT, digest(KEY)), tokens=tokens)
    tokens.issue("bot", digest("token"), {"ticket": "42"})
    found = directory.by_secret(digest("token"))
    assert found == Principal("bot", "support", "acme", tags={"ticket": "42"})
    later = people(known(LAPTOPS), tokens=tokens)
    assert later.by_secret(digest("token")) is None, "a token of somebody who is gone is nobody's"
    tokens.revoke(digest("token"))
    tokens.revoke(digest("token"))
    assert directory.by_secret(digest("token")) is None
    assert directory.by_secret(digest(KEY)) is BOT


@pytest.mark.parametrize(("someone", "beyond"), [
    (known(BOT), False), (known(BOT, "127.0.0.0/8", "::1/128"), False), (known(BOT, "127.0.0.0/8", "10.0.0.0/8"), True),
    (known(BOT, "0.0.0.0/0"), True), (Known(BOT, digest(KEY)), True),
])
def test_who_could_be_known_from_another_machine(someone: Known, beyond: bool) -> None:
    assert people(someone).beyond_loopback is beyond


def credential(name: str, provider: str = "openai") -> Credential:
    return Credential(Secret(name), b"authorization", b"Bearer ", provider)


def test_the_narrowest_credential_is_found() -> None:
    common, team, org, both = (credential(name) for name in ("common", "team", "org", "both"))
    vault: Credentials = Vaulted([Held(common), Held(team, "support"), Held(org, "", "acme"),
                                  Held(both, "support", "acme"), Held(credential("a", "anthropic"), "research")])
    assert vault.find("openai", Principal("x")) is common
    assert vault.find("openai", Principal("x", "other", "other")) is common
    assert vault.find("openai", Principal("x", "support", "other")) is team
    assert vault.find("openai", Principal("x", "other", "acme")) is org
    assert vault.find("openai", Principal("x", "support", "acme")) is both
    assert vault.find("anthropic", Principal("x", "support")) is None
    assert vault.find("mistral", Principal("x")) is None
    assert isinstance(vault, Vaulted)
    assert vault.providers == {"openai", "anthropic"}


def test_env_and_file_references(tmp_path: Path) -> None:
    (tmp_path / "key").write_text(KEY + "\r\n")
    assert resolve("env:A_KEY", {"A_KEY": KEY}, tmp_path).reveal() == KEY
    assert resolve("file:key", {}, tmp_path).reveal() == KEY
    assert resolve(f"file:{tmp_path / 'key'}", {}, Path("/nowhere")).reveal() == KEY


@pytest.mark.parametrize(("reference", "said"), [
    ("env:ABSENT", "the environment variable ABSENT is not set"),
    ("env:EMPTY", "the environment variable EMPTY is empty"),
    ("env:LINES", "holds no key: it has blanks, line breaks"),
    ("env:BLANK", "holds no key: it has blanks"),
    ("env:ACCENT", "characters beyond ASCII"),
    ("env:SHORT", f"fewer than {MIN_CHARACTERS} characters"),
    ("file:absent", "there is no file"),
    ("file:.", "there is no file"),
    ("file:empty", "is empty"),
    ("file:large", "larger than 64 KB"),
    ("file:binary", "is not text"),
    ("file:a\x00b", "there is no file"),
    ("vault:a/b", "vault: is not in this version"),
    (KEY, "a key does not stand in a policy file; allowed: env:NAME, file:PATH"),
    ("env:", "a key does not stand in a policy file"),
    ("", "a key does not stand in a policy file"),
])
def test_a_reference_that_leads_nowhere_is_told_without_any_value(tmp_path: Path, reference: str, said: str) -> None:
    (tmp_path / "empty").write_text("\n")
    (tmp_path / "large").write_text("x" * 70_000)
    (tmp_path / "binary").write_bytes(b"\xff" * 20)
    environ = {"EMPTY": "", "LINES": KEY + "\nx", "BLANK": KEY + " x", "ACCENT": KEY + "é", "SHORT": "abcdefg"}
    with pytest.raises(ConfigError) as caught:
        resolve(reference, environ, tmp_path)
    assert said in str(caught.value)
    assert KEY not in repr(caught.value)
    assert "abcdefg" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_nothing_that_holds_a_key_shows_it() -> None:
    secret = credential(KEY)
    someone = Known(BOT, digest(KEY))
    shown = f"{someone!r} {people(someone)!r} {Vaulted([Held(secret)])!r} {Held(secret)!r} {vars(people(someone))}"
    assert KEY not in shown
    with pytest.raises(TypeError):
        pickle.dumps(Held(secret))
