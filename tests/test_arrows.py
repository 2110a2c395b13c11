"""Who may import whom (DESIGN "Layout"), and who may catch everything."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "addons"
PACKAGE = ROOT / "douane"


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


PATHS = {name_of(path): path for path in sorted(PACKAGE.rglob("*.py"))}


@cache
def tree(module: str) -> ast.Module:
    return ast.parse(PATHS[module].read_text())


@cache
def imports(module: str) -> frozenset[str]:
    """What *module* imports, in functions too: modules of ours by their full name, others by their first part (but for
    ``urllib.parse``, which reads text and opens nothing)."""
    found: set[str] = set()
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: imports are absolute"
            source = node.module or ""
            for alias in node.names:
                submodule = f"{source}.{alias.name}"
                found.add(submodule if submodule in PATHS else source)
    return frozenset(one if one.startswith("douane") or one == "urllib.parse" else one.partition(".")[0] for one in found)


def ours(module: str) -> set[str]:
    return {one for one in imports(module) if one.startswith("douane")}


def reached(*modules: str) -> set[str]:
    """These modules and all of ours that they lead to."""
    found, waiting = set(), list(modules)
    while waiting:
        one = waiting.pop()
        if one not in found:
            found.add(one)
            waiting.extend(ours(one))
    return found


def under(*prefixes: str) -> list[str]:
    return [name for name in PATHS if any(name == prefix or name.startswith(f"{prefix}.") for prefix in prefixes)]


CORE = under(*(f"douane.{name}" for name in (
    "chain", "policy", "call", "verdict", "errors", "secrets", "edge", "providers", "exchange", "answer", "gate", "coding")))
OUTSIDE = {"os", "io", "pathlib", "shutil", "tempfile", "glob", "fileinput", "socket", "ssl", "select", "subprocess", "sqlite3",
           "http", "urllib", "mmap", "fcntl", "mitmproxy", "starlette", "uvicorn", "httptools", "httpx", "yaml", "cryptography",
           "genai_prices", "prometheus_client", "redis", "hiredis"}
OPENERS = {"open", "read_text", "read_bytes", "write_text", "write_bytes"}


def test_there_is_something_to_look_at() -> None:
    assert len(PATHS) > 50
    assert len(CORE) > 15
    assert imports("douane.exchange") >= {"asyncio", "douane.chain", "douane.telling", "douane.policy"}


@pytest.mark.parametrize("module", sorted(reached(*CORE)))
def test_the_core_knows_no_host_and_opens_no_file(module: str) -> None:
    assert not imports(module) & OUTSIDE
    called = {node.func.id if isinstance(node.func, ast.Name) else node.func.attr for node in ast.walk(tree(module))
              if isinstance(node, ast.Call) and isinstance(node.func, (ast.Name, ast.Attribute))}
    assert not called & OPENERS


ALLOWED: dict[str, frozenset[str] | set[str]] = {
    "douane.frozen": set(), "douane.pauses": set(), "douane.call": {"secrets"},
    "douane.verdict": {"call", "ledger", "providers"},
    "douane.errors": set(), "douane.secrets": set(),
    "douane.policy": {"call", "verdict", "policies", "placeholders", "histories", "providers", "secrets", "tiers"},
    "douane.scopes": {"call"}, "douane.tiers": {"units"}, "douane.units": {"ledger"},
    "douane.size": {"call", "ledger", "policy", "providers", "verdict"},
    "douane.purse": {"call", "ledger", "providers", "size", "verdict"},
    "douane.edge": {"providers"},
    "douane.coding": {"call", "errors"},
    **dict.fromkeys(under("douane.ledger"), frozenset({"ledger", "errors", "call", "background", "secrets"})),
    "douane.chain": {"call", "edge", "policy", "providers", "verdict"},
    "douane.gate": {"answer", "call", "chain", "ledger", "providers", "purse", "stops"},
    "douane.stops": {"call", "ledger", "scopes", "verdict"},
    "douane.echo": {"call", "keyforms"}, "douane.keyforms": set(),
    "douane.answer": {"call", "coding", "echo", "errors", "outflow", "policy", "providers"},
    "douane.outflow": {"errors", "ledger", "providers"}, "douane.denied": {"errors", "providers", "verdict"},
    "douane.relay": {"asgi", "call", "relay_socket", "upstream", "errors"},
    "douane.relay_socket": {"asgi", "call", "upstream", "errors"}, "douane.said": set(),
    "douane.turns": {"call", "errors", "exchange", "gate", "policy", "providers", "said", "secrets", "verdict"},
    "douane.asgi": set(),
    **dict.fromkeys(under("douane.providers"), frozenset({"providers", "call", "errors"})),
    **dict.fromkeys(under("douane.policies"), frozenset(
        {"policy", "providers", "call", "verdict", "errors", "secrets", "ledger", "units", "placeholders", "coding",
         "detect", "echo", "histories", "keyforms", "policies", "reading", "redaction", "redactrules", "rehydrate",
         "remember", "restore", "scopes", "seams", "shown", "size", "source", "tiers", "unsearched"})),
    "douane.reading": {"call", "detect", "policy", "providers", "redaction"},
    "douane.redactrules": {"detect", "units"},
    "douane.seams": {"providers", "redaction"},
    "douane.shown": {"providers"}, "douane.unsearched": {"call", "providers", "shown", "verdict"},
    "douane.placeholders": {"secrets"}, "douane.coded": set(),
    "douane.redaction": {"coded", "placeholders", "providers"}, "douane.rehydrate": {"forms", "providers"},
    "douane.forms": set(),
    "douane.restore": {"call", "errors", "providers", "rehydrate"}, "douane.remember": {"call", "providers", "restore"},
    **dict.fromkeys(under("douane.histories"), frozenset({"histories", "errors", "placeholders", "secrets"})),
    **dict.fromkeys(under("douane.objects"), frozenset(
        {"objects", "histories", "errors", "placeholders", "call", "coding", "policy", "providers", "verdict"})),
    **dict.fromkeys(under("douane.upstream"), frozenset({"upstream", "call", "coding", "errors", "providers"})),
}


@pytest.mark.parametrize("module", ALLOWED)
def test_arrows_point_one_way(module: str) -> None:
    assert {one.split(".")[1] for one in ours(module) - {"douane", "douane.frozen", "douane.pauses"}} <= ALLOWED[module]


def test_nothing_imports_the_command_line() -> None:
    assert {module for module in PATHS if "douane.cli" in imports(module)} == {"douane.__main__"}


def test_only_the_command_line_and_the_third_door_import_hosts() -> None:
    hosts = set(under("douane.hosts"))
    assert {module for module in PATHS if imports(module) & hosts and module not in hosts} == {
        "douane.cli", "douane.middleware"}


def test_the_third_door_brings_no_server_and_no_proxy() -> None:
    """It stands in a service of somebody's own, which has a server already."""
    brought = {one for module in reached("douane.middleware") for one in imports(module)}
    assert not brought & {"mitmproxy", "uvicorn", "starlette", "uvloop"}
    assert {module for module in reached("douane.middleware") if module.startswith("douane.hosts.")} == {
        "douane.hosts.house", "douane.hosts.duties", "douane.hosts.stores"}


@pytest.mark.parametrize("library", ["mitmproxy", "uvicorn", "starlette"])
def test_servers_stay_in_hosts(library: str) -> None:
    found = {module for module in PATHS if library in imports(module)}
    assert found
    assert all(module.startswith("douane.hosts.") for module in found)


def test_reload_needs_the_loader_and_the_loader_no_reload() -> None:
    assert "douane.loader" in imports("douane.reload")
    assert not {"douane.reload", "douane.governor", "douane.relay"} & reached("douane.loader")


def test_the_log_can_be_verified_without_us() -> None:
    assert imports("douane.audit.verify") <= set(sys.stdlib_module_names)


def test_imports_go_in_no_circle() -> None:
    """``policy`` finds the policies, which import it, when it is asked for them: by name, so that there is none."""
    for module in PATHS:
        assert module not in reached(*ours(module)) or module == "douane", module


# -- who may catch everything ------------------------------------------------------------------------------------------


def catchers(module: str) -> Iterator[ast.ExceptHandler]:
    """Handlers for whatever may come, those left out that clean up and raise it again."""
    for node in ast.walk(tree(module)):
        if not isinstance(node, ast.ExceptHandler):
            continue
        kinds = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]
        broad = any(kind is None or ast.unparse(kind) in ("Exception", "BaseException") for kind in kinds)
        last = node.body[-1]
        if broad and not (isinstance(last, ast.Raise) and last.exc is None):
            yield node


def test_nothing_is_swallowed_outside_the_exchange_and_the_outermost_guards() -> None:
    guards = {"douane.exchange", "douane.governor", *under("douane.hosts"), "douane.middleware", "douane.visit",
              "douane.result",  # the exchange's last step
              "douane.waiting"}  # which throws what it catches into the coroutine it stands for
    places = [f"{PATHS[module]}:{node.lineno}" for module in PATHS if module not in guards for node in catchers(module)]
    assert places == []
    assert list(catchers("douane.exchange")), "the finder finds"


def test_nothing_suppresses_everything() -> None:
    for module in PATHS:
        for node in ast.walk(tree(module)):
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("suppress"):
                assert not {"Exception", "BaseException"} & {ast.unparse(one) for one in node.args}, f"{module}:{node.lineno}"


def test_no_check_of_ours_is_an_assert() -> None:
    """``python -O`` must not change what is refused."""
    for module in PATHS:
        assert [node.lineno for node in ast.walk(tree(module)) if isinstance(node, ast.Assert)] == [], module


# -- what a quick answer costs -----------------------------------------------------------------------------------------

HEAVY = ("mitmproxy", "cryptography", "starlette", "uvicorn", "uvloop", "httptools", "genai_prices", "httpx", "yaml", "asyncio",
         "orjson", "prometheus_client", "rich", "ssl", "redis", "hiredis")


def test_help_loads_nothing_heavy() -> None:
    code = ("import contextlib, sys\nfrom douane.cli import main\n"
            "with contextlib.suppress(SystemExit):\n    main(['--help'])\n"
            "print(*sys.modules, file=sys.stderr)")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True,
                          env={"PYTHONPATH": str(ROOT)})
    loaded = {name.partition(".")[0] for name in done.stderr.split()}
    assert "douane" in loaded
    assert "usage: douane" in done.stdout
    assert not loaded & set(HEAVY)
