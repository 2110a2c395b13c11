"""Which paths of a service are calls, and how a path is read."""

import pytest

from douane.errors import ConfigError
from douane.providers.base import Provider
from douane.routes import Routes, below_root, tidy
from tests import house

PROVIDERS = house.PROVIDERS
GIVEN = {"/llm": "anthropic", "/api/v1/chat/completions": "openai", "/llm/oa": "openai", "/v1/models": "anthropic"}
ROUTES = Routes.of(GIVEN, PROVIDERS)


def found(path: str, method: str = "POST", *, raw: str = "", unknown_pass: bool = False, routes: Routes = ROUTES) -> str:
    place = routes.find(method, path, raw or path, unknown_pass=unknown_pass)
    if place is None:
        return ""
    return f"{place.provider.name} {place.path}{' refused' if place.refused else ''}"


@pytest.mark.parametrize(("path", "expected"), [
    ("/", ""), ("/docs", ""), ("/v1", ""), ("/v1/users", ""),
    ("/v1/chat/completions", "openai /v1/chat/completions"), ("/v1/messages", "anthropic /v1/messages"),
    ("/llm", "anthropic /"), ("/llm/", "anthropic /"), ("/llm/v1/messages", "anthropic /v1/messages"),
    ("/llm/anything", "anthropic /anything"), ("/llmx/v1/messages", ""),
    ("/llm/oa/v1/responses", "openai /v1/responses"),  # the longest wins
    ("/api/v1/chat/completions", "openai /v1/chat/completions"), ("/api/v1/chat/completions/x", ""), ("/api/v1/responses", ""),
    ("/v1/models", "anthropic /v1/models"), ("/v1/models/gpt-4o", "openai /v1/models/gpt-4o"),  # of two tables, the first
])
def test_whose_a_path_is(path: str, expected: str) -> None:
    assert found(path) == expected


def test_every_method_of_a_governed_path_is_governed() -> None:
    """An app may answer a PUT as it answers a POST."""
    for method in ("GET", "PUT", "HEAD", "DELETE", "X"):
        assert found("/v1/chat/completions", method) == "openai /v1/chat/completions"


@pytest.mark.parametrize("path", ["/v1/chat/completions/", "//v1/chat/completions", "/v1//chat/completions",
                                  "/v1/./chat/completions", "/x/../v1/chat/completions", "/v1/chat/completions/."])
def test_another_spelling_is_governed_and_never_passes_unread(path: str) -> None:
    """As such it is no operation, which ``unknown_operations: deny`` refuses; and where those pass, this one does not."""
    place = ROUTES.find("POST", path, path, unknown_pass=False)
    assert place is not None
    assert place.provider.operation("POST", place.path) is None
    assert found(path, unknown_pass=True).endswith(" refused")


@pytest.mark.parametrize(("path", "raw"), [
    ("/v1/chat/completions", "/v1/chat%2Fcompletions"), ("/v1/chat/completions", "/%76%31/chat/completions"),
    ("/llm/v1/messages", "/llm/v1%2fmessages")])
def test_percent_signs(path: str, raw: str) -> None:
    place = ROUTES.find("POST", path, raw, unknown_pass=False)
    assert place is not None
    assert place.provider.operation("POST", place.path) is None
    assert "%" in place.path
    assert found(path, raw=raw, unknown_pass=True).endswith(" refused")


def test_a_prefix_spelled_otherwise_is_still_the_prefix() -> None:
    assert found("/llm/v1/messages", raw="/%6Clm/v1/messages") == "anthropic /v1/messages"


def test_unknown_operations_that_may_pass_do() -> None:
    assert found("/llm/v1/complete", unknown_pass=True) == "anthropic /v1/complete"


def test_the_whole_app() -> None:
    assert found("/anything", routes=Routes.of({"/": "openai"}, PROVIDERS)) == "openai /anything"
    assert found("/v1/messages", routes=Routes.of({"/": "openai"}, PROVIDERS)) == "openai /v1/messages"


@pytest.mark.parametrize(("given", "said"), [
    ({"/llm": "opnai"}, "no provider `opnai`; allowed: openai, anthropic"), ({"llm": "openai"}, "'llm' is no path"),
    ({"/a//b": "openai"}, "is no path"), ({"/a/../b": "openai"}, "is no path"), ({"/%61": "openai"}, "is no path"),
    ({"": "openai"}, "is no path"), ({"/a": "openai", "/a/": "openai"}, "'/a' is given twice"),
    ({"/v1": "openai"}, "'/v1': openai's own paths begin so")])
def test_wrong_routes_are_refused(given: dict[str, str], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Routes.of(given, PROVIDERS)
    assert said in str(caught.value)


@pytest.mark.parametrize(("scope", "expected"), [
    ({"path": "/a b", "raw_path": b"/a%20b"}, ("/a b", "/a%20b")),
    ({"path": "/a b"}, ("/a b", "/a%20b")), ({"path": "/a b", "raw_path": None}, ("/a b", "/a%20b")),
    ({"path": "/a", "raw_path": b"/b"}, ("/a", "/a")),  # rewritten by what stands outside us
    ({"path": "/root/a", "raw_path": b"/root/%61", "root_path": "/root"}, ("/a", "/%61")),
    ({"path": "/a", "raw_path": b"/a", "root_path": "/root"}, ("/a", "/a")),  # a server that leaves the root out
    ({"path": "/root", "raw_path": b"/root", "root_path": "/root"}, ("/", "/")),
    ({"path": "/rooted", "raw_path": b"/rooted", "root_path": "/root/"}, ("/rooted", "/rooted")),
    ({"path": "/root/a", "raw_path": b"/r%6Fot/%61", "root_path": "/root"}, ("/a", "/a"))])
def test_the_path_by_which_the_app_routes(scope: dict[str, object], expected: tuple[str, str]) -> None:
    assert below_root(scope) == expected


def test_tidy() -> None:
    assert [tidy(path) for path in ("/", "//", "/..", "/a/", "/a/./b/../c", "")] == ["/", "/", "/", "/a", "/a/c", "/"]


def test_a_provider_without_its_own_order() -> None:
    """One that speaks OpenAI's language comes behind openai, unless it is named."""
    like: dict[str, Provider] = {**PROVIDERS, "vllm": PROVIDERS["openai"]}
    assert Routes.of({}, like).providers[0].name == "openai"
