"""One provider and one gateway for the tests of a module. A module that wants another policy overrides ``policy_text``.

Warnings are errors here; those of mitmproxy's own imports (pyparsing's old names) are not ours to mend.
"""

import gc
import os
import re
import warnings
from collections.abc import Generator, Iterator

import pytest

from douane.demo.provider import LocalProvider, running_provider
from douane.environment import prepare
from tests.gateway import Gateway, policy, running_gateway

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    import douane.hosts.internals  # noqa: F401

@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """What is imported lives to the end: no garbage collection looks for any in it, now or later."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.fixture(scope="module")
def provider(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalProvider]:
    with running_provider(tmp_path_factory.mktemp("provider")) as one:
        yield one


@pytest.fixture(scope="module")
def policy_text(provider: LocalProvider) -> str:
    """The policy file of the module's gateway."""
    return policy(provider)


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory, policy_text: str) -> Iterator[Gateway]:
    with running_gateway(tmp_path_factory.mktemp("gateway"), policy_text) as one:
        yield one


@pytest.fixture
def governed(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    under(gateway, monkeypatch)


def under(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    """This process gets the variables of ``douane env``, and keys of its own that open nothing."""
    for name in list(os.environ):
        if re.fullmatch(r"(?i)(https?|all|no)_proxy|(OPENAI|ANTHROPIC)_.*|SSL_CERT_.*|REQUESTS_CA_BUNDLE", name):
            monkeypatch.delenv(name)
    for name, value in prepare(gateway.url, gateway.base / "certs", {}).items():
        if value is None:
            monkeypatch.delenv(name, raising=False)
        else:
            monkeypatch.setenv(name, value)
    monkeypatch.setenv("OPENAI_API_KEY", "app-key")
    monkeypatch.setenv("ANTHROPIC_API_KEY", "app-key")
