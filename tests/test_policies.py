"""The policies themselves: authenticate, allow_models, swap_key."""

import hashlib
import ipaddress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from douane.call import Call, Caller, Credential, Headers, Principal
from douane.echo import EchoMask
from douane.errors import DENIALS, ConfigError
from douane.people import Held, Known, People, Tokens, Vaulted
from douane.policies.allow_models import AllowModels
from douane.policies.authenticate import AllowAs, Authenticate, Unrecognised, recognise
from douane.policies.swap_key import SwapKey
from douane.policy import Admits, Filters, Setting, registry, traits
from douane.secrets import Secret
from douane.verdict import ALLOW, Allow, Deny, Rewrite, Verdict
from tests import house

BOT_KEY, LAB_KEY, STRANGE = "bot-key-" + "1" * 8, "lab-key-" + "2" * 8, "nobody-" + "3" * 8
REAL = "sk-" + "real" * 5
LAPTOPS = Principal("laptops", "engineering", "acme")
TOKENS = Tokens()


def digest(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()


PEOPLE = People([
    Known(house.BOT, digest(BOT_KEY)), Known(Principal("lab"), digest(LAB_KEY)),
    Known(LAPTOPS, networks=(ipaddress.ip_network("10.20.0.0/16"),)), Known(Principal("guests")),
], TOKENS)


def setting(*held: Held) -> Setting:
    return Setting(PEOPLE, Vaulted(held), {one.name: one.key_headers for one in house.PROVIDERS.values()})


def ask(policy: Any, call: Call) -> Verdict:
    verdict: Verdict = house.run(policy.admit(call))
    return verdict


def rewritten(verdict: Verdict) -> Call:
    assert isinstance(verdict, Rewrite), verdict
    return verdict.call


def denied(verdict: Verdict, code: str) -> str:
    assert isinstance(verdict, Deny), verdict
    assert verdict.code == code
    assert code in DENIALS
    for key in (BOT_KEY, LAB_KEY, STRANGE, REAL):
        assert key not in verdict.reason
    return verdict.reason


def proxied(key: str, user: str = "", address: str = "192.0.2.1") -> Caller:
    return Caller(address, user, Secret(key))


def bearer(key: str) -> Headers:
    return ((b"host", b"api.openai.com"), (b"authorization", f"Bearer {key}".encode()), (b"accept", b"*/*"))


def test_every_policy_is_registered_and_asked_for_the_head_where_it_says_so() -> None:
    found = registry()
    assert set(found) == {"authenticate", "allow_models", "allow_tools", "budget", "detect_secrets", "limit_tokens",
                          "rate_limit", "redact", "swap_key"}
    assert {name: (traits(cls).needs_body, traits(cls).always) for name, cls in found.items()} == {
        "authenticate": (False, True), "allow_models": (True, False), "allow_tools": (True, False),
        "budget": (True, False), "limit_tokens": (True, False), "rate_limit": (True, False), "redact": (True, False),
        "detect_secrets": (True, False), "swap_key": (False, True)}
    assert isinstance(SwapKey().bind(setting()), Filters)
    assert isinstance(Authenticate().bind(setting()), Admits)


# -- authenticate ------------------------------------------------------------------------------------------------------

AUTHENTICATE = Authenticate().bind(setting())


@pytest.mark.parametrize(("caller", "headers", "who"), [
    (proxied(BOT_KEY), (), "support-bot"),
    (proxied(BOT_KEY, "support-bot"), (), "support-bot"),
    (proxied(BOT_KEY, "whatever"), (), "support-bot"),  # a user name that is no principal's says nothing
    (Caller("192.0.2.1"), bearer(BOT_KEY), "support-bot"),
    (Caller("192.0.2.1"), ((b"api-key", BOT_KEY.encode()),), "support-bot"),
    (Caller("192.0.2.1"), ((b"authorization", b"bearer   " + BOT_KEY.encode()),), "support-bot"),
    (Caller("10.20.3.4"), (), "laptops"),
    (Caller("::ffff:10.20.3.4"), (), "laptops"),
    (Caller("10.20.3.4"), bearer(STRANGE), "laptops"),  # the app's own provider key is nobody's here
    (proxied(BOT_KEY, address="10.20.3.4"), (), "support-bot"),  # a key outranks an address
    (Caller("10.20.3.4"), bearer(LAB_KEY), "lab"),
    (proxied(BOT_KEY), bearer(BOT_KEY), "support-bot"),
    (proxied(BOT_KEY), bearer(STRANGE), "support-bot"),
])
def test_who_calls(caller: Caller, headers: Headers, who: str) -> None:
    assert rewritten(ask(AUTHENTICATE, house.call(caller=caller, headers=headers))).principal.name == who


@pytest.mark.parametrize(("caller", "headers", "why"), [
    (Caller("192.0.2.1"), (), "no principal is known"),
    (Caller(""), (), "no principal is known"),
    (Caller("192.0.2.1"), bearer(STRANGE), "no principal is known"),
    (proxied(STRANGE), (), "not known here"),
    (proxied(STRANGE, address="10.20.3.4"), (), "not known here"),  # the address does not excuse it
    (proxied(STRANGE), bearer(BOT_KEY), "not known here"),
    (proxied(""), (), "not known here"),
    (proxied(BOT_KEY, "lab"), (), "different principals"),
    (proxied(BOT_KEY, "guests"), (), "different principals"),
    (proxied(BOT_KEY), bearer(LAB_KEY), "different principals"),
    (Caller("10.20.3.4"), (*bearer(LAB_KEY), (b"api-key", BOT_KEY.encode())), "different principals"),
])
def test_who_is_refused(caller: Caller, headers: Headers, why: str) -> None:
    assert why in denied(ask(AUTHENTICATE, house.call(caller=caller, headers=headers)), "unauthenticated")


def test_a_key_is_looked_for_only_where_this_providers_sdks_send_one() -> None:
    headers = ((b"x-api-key", BOT_KEY.encode()),)
    denied(ask(AUTHENTICATE, house.call(headers=headers)), "unauthenticated")
    assert rewritten(ask(AUTHENTICATE, house.call(provider="anthropic", headers=headers))).principal == house.BOT


def test_a_value_that_authenticated_goes_no_further() -> None:
    key = BOT_KEY.encode()
    headers = ((b"authorization", b"Bearer " + key), (b"x", b"1"), (b"api-key", key), (b"api-key", b"an other"))
    passed = rewritten(ask(AUTHENTICATE, house.call(headers=headers)))
    assert passed.headers == ((b"x", b"1"), (b"api-key", b"an other"))
    kept = rewritten(ask(AUTHENTICATE, house.call(caller=proxied(BOT_KEY), headers=bearer(STRANGE))))
    assert kept.headers == bearer(STRANGE), "what authenticated nobody is the app's own"


def test_an_empty_key_header_names_nobody() -> None:
    for value in (b"", b"Bearer", b"Bearer "):
        denied(ask(AUTHENTICATE, house.call(headers=((b"authorization", value),))), "unauthenticated")


def test_strangers_under_a_name() -> None:
    policy = Authenticate(AllowAs("guests")).bind(setting())
    assert rewritten(ask(policy, house.call())).principal.name == "guests"
    assert rewritten(ask(policy, house.call(headers=bearer(BOT_KEY)))).principal.name == "support-bot"
    denied(ask(policy, house.call(caller=proxied(STRANGE))), "unauthenticated")
    with pytest.raises(ConfigError, match="allow-as: no principal is called 'nobody'"):
        Authenticate(AllowAs("nobody")).bind(setting())


def test_what_the_app_says_of_itself_and_what_run_said() -> None:
    TOKENS.issue("support-bot", digest("one-run-token"), {"job": "nightly"})
    caller = Caller("192.0.2.1", "support-bot", Secret("one-run-token"), user="u1", agent="a1",
                    tags={"job": "mine", "ticket": "42"})
    principal = rewritten(ask(AUTHENTICATE, house.call(caller=caller))).principal
    assert (principal.name, principal.user, principal.agent) == ("support-bot", "u1", "a1")
    assert principal.tags == {"job": "nightly", "ticket": "42"}, "who started the app outranks the app"
    TOKENS.revoke(digest("one-run-token"))
    denied(ask(AUTHENTICATE, house.call(caller=caller)), "unauthenticated")


def test_recognise_at_the_door_has_no_headers() -> None:
    assert recognise(PEOPLE, proxied(BOT_KEY), ()) == (house.BOT, b"")
    assert recognise(PEOPLE, Caller("192.0.2.1"), ()) == (None, b"")
    with pytest.raises(Unrecognised):
        recognise(PEOPLE, proxied(STRANGE), ())


# -- allow_models ------------------------------------------------------------------------------------------------------

MODELS = AllowModels(("gpt-4o*", "claude-[34]-*", "o3", "team/x?")).bind(setting())


@pytest.mark.parametrize(("model", "method", "fine"), [
    ("gpt-4o", "POST", True), ("gpt-4o-mini", "POST", True), ("o3", "POST", True), ("claude-3-opus", "POST", True),
    ("team/x1", "POST", True), ("", "GET", True),
    ("gpt-4", "POST", False), ("xgpt-4o", "POST", False), ("o3-mini", "POST", False), ("GPT-4o", "POST", False),
    ("claude-5-opus", "POST", False), ("o3\n", "POST", False), ("\no3", "POST", False), ("o3 ", "POST", False),
    ("", "POST", False), ("gpt-3", "GET", False),
])
def test_models(model: str, method: str, fine: bool) -> None:
    verdict = ask(MODELS, house.call(model=model, method=method))
    if fine:
        assert verdict is ALLOW
    else:
        denied(verdict, "model_not_allowed")


def test_a_glob_matches_the_whole_name_whatever_is_in_it() -> None:
    only = AllowModels(("a|b", "gpt-4.1")).bind(setting())
    assert isinstance(ask(only, house.call(model="a|b")), Allow)
    for model in ("a", "b", "gpt-4x1"):
        denied(ask(only, house.call(model=model)), "model_not_allowed")


def test_the_name_is_told_but_not_at_any_length() -> None:
    reason = denied(ask(MODELS, house.call(model="x" * 5000)), "model_not_allowed")
    assert "x" * 100 in reason
    assert len(reason) < 200


def test_no_models_is_a_mistake() -> None:
    with pytest.raises(ConfigError, match="models: name at least one"):
        AllowModels(()).bind(setting())


# -- swap_key ----------------------------------------------------------------------------------------------------------

CREDENTIAL = Credential(Secret(REAL), b"authorization", b"Bearer ", "openai")
SWAP = SwapKey().bind(setting(Held(CREDENTIAL, team="support")))
MINE = house.call(principal=house.BOT, query="key=abc&a=1&API_KEY=x&api-key&b=%6Bey&keys=2",
                  headers=((b"authorization", b"Bearer own"), (b"x", b"1"), (b"api-key", b"own"), (b"x-api-key", b"keep")))


def test_the_apps_key_leaves_and_the_real_one_is_bound() -> None:
    swapped = rewritten(ask(SWAP, MINE))
    assert swapped.credential is CREDENTIAL
    assert swapped.headers == ((b"x", b"1"), (b"x-api-key", b"keep"))
    assert swapped.query == "a=1&b=%6Bey&keys=2"
    assert REAL not in repr(swapped), "the relay writes it, nobody before"


def test_a_query_without_a_key_keeps_its_spelling() -> None:
    for query in ("", "a=1&&b", "x=%20&y=key"):
        assert rewritten(ask(SWAP, house.call(principal=house.BOT, query=query))).query == query


def test_without_a_fitting_credential() -> None:
    stranger = house.call(principal=LAPTOPS, headers=bearer(STRANGE))
    denied(ask(SWAP, stranger), "credential_missing")
    keeping = SwapKey("keep").bind(setting(Held(CREDENTIAL, team="support")))
    assert ask(keeping, stranger) is ALLOW
    assert keeping.filter(stranger) is None, "no key of ours, nothing to mask"
    assert SWAP.filter(rewritten(ask(SWAP, MINE))) is not None


# -- the echo mask -----------------------------------------------------------------------------------------------------


def fed(mask: EchoMask, pieces: list[bytes]) -> bytes:
    return b"".join(mask.feed(piece) for piece in pieces) + mask.close()


def reference(key: str, text: bytes) -> bytes:
    """The law in its plainest words: from the left, the longest form that stands there is masked."""
    percent = "".join(c if c.isalnum() or c in "_.-~" else f"%{ord(c):02X}" for c in key)
    forms = sorted({one.encode() for one in (key, key.replace("/", "\\/"), percent)}, key=len, reverse=True)
    out, at = b"", 0
    while at < len(text):
        size = next((len(form) for form in forms if text.startswith(form, at)), 0)
        out += b"*" * size if size else text[at:at + 1]
        at += size or 1
    return out


@pytest.mark.parametrize("key", ["sk-abcab", "a/b+c=", "aaaa", "ab%", "a/ba", "/x/"])
def test_every_cut_gives_the_same_mask(key: str) -> None:
    forms = (key, key.replace("/", "\\/"), key.replace("%", "%25").replace("/", "%2F").replace("+", "%2B").replace("=", "%3D"))
    text = " ".join(f"{form[:-1]} {form}{form[1:]}{form}" for form in forms).encode()
    whole = reference(key, text)
    assert not any(form.encode() in whole for form in forms)
    assert len(whole) == len(text)
    for cut in range(len(text) + 1):
        assert fed(EchoMask(key), [text[:cut], text[cut:]]) == whole, cut
    assert fed(EchoMask(key), [text[i:i + 1] for i in range(len(text))]) == whole


@settings(max_examples=400, deadline=None)
@given(st.text("ab/%", min_size=2, max_size=4), st.data())
def test_however_it_is_cut(key: str, data: st.DataObject) -> None:
    """Texts of whole and broken forms, one into the other; all pieces as Hypothesis likes them."""
    forms = [key, key.replace("/", "\\/"), key.replace("%", "%25").replace("/", "%2F")]
    parts = st.sampled_from(forms).flatmap(lambda form: st.sampled_from([form, form[1:], form[:-1], "%25", "a", "/", "\\"]))
    pieces = [part.encode() for part in data.draw(st.lists(parts, max_size=8))]
    text = b"".join(pieces)
    single = [text[i:i + 1] for i in range(len(text))]
    assert fed(EchoMask(key), [text]) == fed(EchoMask(key), pieces) == fed(EchoMask(key), single) == reference(key, text)


def test_no_more_is_held_back_than_may_be_a_key() -> None:
    mask = EchoMask(REAL)
    assert mask.feed(b"plain text") == b"plain text"
    assert mask.feed(b"ends in " + REAL[:6].encode()) == b"ends in "
    assert mask.feed(b"!") == REAL[:6].encode() + b"!"
    assert mask.feed(REAL[:-1].encode()) == b""
    assert mask.close() == REAL[:-1].encode()
    assert mask.close() == b""
    assert fed(EchoMask("ab%"), [b"my ab%"]) == b"my ***", "whole, though it might have gone on as ab%25"


def test_headers_are_masked_and_otherwise_the_very_same() -> None:
    mask = EchoMask("sk/1")
    plain = ((b"a", b"1"),)
    assert mask.headers(plain) is plain
    assert mask.headers(((b"echo", b"<sk/1> sk%2F1"), *plain)) == ((b"echo", b"<****> ******"), *plain)
