"""The ``douane`` command. Imports nothing heavy before it knows what is asked.

Exit codes: 0 done; 1 the answer is no (check, verify); 2 wrong use or configuration; 3 the environment failed.
"""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from douane import __version__
from douane.errors import ConfigError, DouaneError
from douane.places import Places

__all__ = ["main"]

MOST_WORKERS = 64

type Command = Callable[[argparse.Namespace, Places], int]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code, prints one line where something is wrong."""
    parsed = _parser().parse_args(arguments)
    try:
        places = Places.of(vars(parsed), os.environ, _home())
        command: Command = parsed.command
        code = command(parsed, places)
        sys.stdout.flush()  # a reader that has left is noticed here, not at the interpreter's end
        return code
    except DouaneError as error:
        for line in str(error).splitlines():
            print(f"douane: {line}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # the reader of our output has left; nothing is wrong
        return 0
    except KeyboardInterrupt:
        return 130


def _home() -> Path:
    """Where ``policies``, ``data`` and ``certs`` lie by default: ``DOUANE_HOME`` (run.sh sets it), else here."""
    return Path(os.environ.get("DOUANE_HOME") or Path.cwd())


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """One line, as every other mistake gets."""
        print(f"douane: {message} (see {self.prog} --help)", file=sys.stderr)
        sys.exit(ConfigError.exit_code)


def _parser() -> argparse.ArgumentParser:
    common = _Parser(add_help=False)
    for name, what in (("policies", "folder of the policy files"), ("data", "folder of the audit log and the control socket"),
                       ("certs", "folder of the CA"), ("proxy", "HOST:PORT of the proxy"),
                       ("http", "HOST:PORT of the reverse proxy"), ("admin", "HOST:PORT of /metrics")):
        common.add_argument(f"--{name}", metavar="HOST:PORT" if name in ("proxy", "http", "admin") else "DIR",
                            help=f"{what} (DOUANE_{name.upper()})")
    parser = _Parser(prog="douane", description="The customs house for AI traffic.")
    parser.add_argument("--version", action="version", version=f"douane {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    def add(name: str, command: Command, what: str, under: "argparse._SubParsersAction[_Parser]" = commands,
            ) -> argparse.ArgumentParser:
        made = under.add_parser(name, help=what, description=what, parents=[common])
        made.set_defaults(command=command)
        return made

    serve = add("serve", _serve, "start the gateway; SIGHUP reloads the policies, SIGTERM finishes what runs and stops, "
                "SIGUSR2 replaces workers one by one")
    serve.add_argument("--workers", metavar="N", help="processes that share the ports, one a core (DOUANE_WORKERS; 1)")
    run = add("run", _run, "start a command governed: it gets a token that dies with it, proxy and CA variables")
    run.add_argument("--as", dest="principal", metavar="PRINCIPAL", help="who calls")
    run.add_argument("--tag", action="append", default=[], metavar="K=V", help="a tag for every call (repeatable)")
    run.add_argument("argv", nargs=argparse.REMAINDER, metavar="-- CMD…")
    env = add("env", _env, "print the variables of `run` for a shell: eval \"$(douane env)\"")
    env.add_argument("--as", dest="principal", metavar="PRINCIPAL", help="who calls")
    check = add("check", _check, "read the policy files; exit 0, or 1 with every mistake as file:line")
    check.add_argument("folder", nargs="?", metavar="DIR")
    add("reload", _reload, "have the running gateway read its policy files again (as SIGHUP does, with an answer)")
    look = add("inspect", _inspect, "what Douane sees in recorded exchanges: JSON lines, or HAR (browsers, mitmproxy)")
    look.add_argument("files", nargs="+", metavar="FILE")
    look.add_argument("--json", action="store_true", help="one JSON object an exchange")
    _add_scan(add)
    demo = add("demo", _demo, "show it work: a local provider, the real SDKs, what left and what came back")
    demo.add_argument("--plain", action="store_true", help="no colours, no boxes")
    budget = add("budget", _budget, "spent, reserved and left, for each budget window in force")
    budget.add_argument("--per", metavar="SCOPE", help="only of this scope: principal, team, user, tag:NAME …")
    budget.add_argument("--json", action="store_true", help="a JSON array, in USD")
    _add_stops(add)
    prices = add("prices", _prices, "what a model costs and why; without MODEL: the policy's prices and the models in use")
    prices.add_argument("model", nargs="?", metavar="MODEL", help="as the call names it, or PROVIDER/MODEL")
    prices.add_argument("--provider", metavar="P", help="only of this provider")
    prices.add_argument("--json", action="store_true", help="a JSON array, in USD")
    _add_audit(commands, add)
    _add_ca(commands, add)
    return parser


type _Add = Callable[..., argparse.ArgumentParser]


def _add_stops(add: _Add) -> None:
    stops = "stop calls at once, on every node, until they are resumed; without options: what is stopped"
    for name, command, what in (("stop", _stop, stops), ("resume", _resume, "let stopped calls on again")):
        made = add(name, command, what)
        whose = made.add_mutually_exclusive_group()
        whose.add_argument("--all", action="store_true", help="every call")
        for scope in ("principal", "team", "org", "user", "agent", "model", "provider"):
            whose.add_argument(f"--{scope}", dest=f"of_{scope}", metavar="NAME", help=f"the calls of one {scope}")
        whose.add_argument("--tag", dest="of_tag", metavar="NAME=VALUE", help="the calls with a tag")
        if name == "stop":
            made.add_argument("--now", action="store_true", help="end those that run, too")


def _add_scan(add: _Add) -> None:
    scan = add("scan", _scan, "what would be found in texts and repositories: FILE:LINE:COL type score; exit 1: something")
    scan.add_argument("files", nargs="*", metavar="FILE|DIR|-", help="- or nothing: standard input")
    scan.add_argument("--secrets", action="store_true", help="secrets only: no personal data, and no wait for its detectors")
    scan.add_argument("--json", action="store_true", help="a JSON array")
    scan.add_argument("--jsonl", action="store_true",
                      help='lines {"text"} in, for each a line {"spans": [{start, end, type, score}]} out; exit 0')
    scan.add_argument("--pre-commit", action="store_true", help="as a hook: the files given, secrets only")


def _add_audit(commands: "argparse._SubParsersAction[_Parser]", add: _Add) -> None:
    audit = commands.add_parser("audit", help="read and verify the audit log").add_subparsers(required=True, metavar="WHAT")
    tail = add("tail", _audit_tail, "the latest records", audit)
    tail.add_argument("-n", type=_count, default=20, help="how many (20)")
    tail.add_argument("-f", "--follow", action="store_true", help="and those that come")
    tail.add_argument("--json", action="store_true", help="whole records, one JSON object a line")
    show = add("show", _audit_show, "everything recorded of one call", audit)
    show.add_argument("id")
    show.add_argument("--json", action="store_true", help="one JSON object a line")
    verify = add("verify", _audit_verify, "check every record's hash and the chain", audit)
    verify.add_argument("--head", metavar="HASH", help="a head hash noted earlier, which must still be in the chain")


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise argparse.ArgumentTypeError(f"{text!r} is no count")
    return int(text)


def _add_ca(commands: "argparse._SubParsersAction[_Parser]", add: _Add) -> None:
    ca = commands.add_parser("ca", help="the certificate authority").add_subparsers(required=True, metavar="WHAT")
    for name, what in (("init", "make root and intermediate"), ("show", "what is there, until when, for which names"),
                       ("issue", "sign a new intermediate with the root key"), ("rotate", "make a new root")):
        made = add(name, _ca, what, ca)
        made.set_defaults(what=name)
        if name in ("init", "issue", "rotate"):
            made.add_argument("--days", type=int, metavar="N", help="how long the intermediate lives")


# -- commands ------------------------------------------------------------------------------------------------------


def _serve(parsed: argparse.Namespace, places: Places) -> int:
    workers = _workers(parsed.workers)
    if workers > 1:
        from douane.hosts.parent import serve_with

        return serve_with(places, workers)
    import gc

    gc.disable()  # nothing that is imported is garbage; serve() lets it run again when all is there
    from douane.hosts.main import serve

    return serve(places)


def _workers(given: str | None) -> int:
    """Raises ConfigError."""
    text = given or os.environ.get("DOUANE_WORKERS") or "1"
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= MOST_WORKERS):
        raise ConfigError(f"--workers: {text!r} is not a number of processes from 1 to {MOST_WORKERS}")
    return int(text)


def _run(parsed: argparse.Namespace, places: Places) -> int:
    from douane.wrap import run

    argv = parsed.argv[1:] if parsed.argv[:1] == ["--"] else parsed.argv
    if not argv:
        raise ConfigError("run: no command given; write: douane run -- python my_app.py")
    tags = {}
    for tag in parsed.tag:
        name, equals, value = tag.partition("=")
        if not equals or not name:
            raise ConfigError(f"--tag {tag}: write NAME=VALUE")
        tags[name] = value
    return run(places, argv, principal=parsed.principal, tags=tags)


def _env(parsed: argparse.Namespace, places: Places) -> int:
    from douane.wrap import env

    print(env(places, principal=parsed.principal), end="")
    return 0


def _check(parsed: argparse.Namespace, places: Places) -> int:
    from douane.loader import load

    folder = Path(parsed.folder) if parsed.folder else places.policies
    try:
        loaded = load(folder)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 1
    files = ", ".join(Path(name).name for name in loaded.chain.files)
    print(f"{folder}: in order ({files}); chain {' → '.join(entry.name for entry in loaded.chain.entries)}; "
          f"revision {loaded.chain.revision[:12]}")
    for entry in loaded.chain.entries:
        for line in getattr(entry.policy, "finds", tuple)():
            print(f"{entry.name}: {line}")
    return 0


def _reload(parsed: argparse.Namespace, places: Places) -> int:
    from douane.control import Client

    with Client(places.control, seconds=30) as client:
        print(f"revision {client.ask('reload')['revision'][:12]}")
    return 0


def _demo(parsed: argparse.Namespace, places: Places) -> int:
    from douane.demo.show import show

    return show(plain=parsed.plain or not sys.stdout.isatty())


def _budget(parsed: argparse.Namespace, places: Places) -> int:
    import time

    from douane.hosts.ledger import balances
    from douane.ledger import show

    found = [one for one in balances(places, time.time()) if parsed.per in (None, one.account.scope)]
    print(show.as_json(found) if parsed.json else show.table(found) if found else "no budget has been charged in a window "
          "that is in force")
    return 0


def _whose(parsed: argparse.Namespace) -> tuple[str, str] | None:
    """(scope, name) of a stop, or None where nobody is named."""
    if parsed.all:
        return "all", ""
    if parsed.of_tag is not None:
        tag, equals, value = parsed.of_tag.partition("=")
        if not equals:
            raise ConfigError(f"--tag {parsed.of_tag}: write NAME=VALUE")
        return f"tag:{tag}", value
    named = [(name[3:], value) for name, value in vars(parsed).items() if name.startswith("of_") and value is not None]
    return named[0] if named else None


def _stop(parsed: argparse.Namespace, places: Places) -> int:
    import time

    from douane.hosts import ledger
    from douane.ledger.base import Stop

    whose = _whose(parsed)
    if whose is None:
        if parsed.now:
            raise ConfigError("stop --now: say whose calls: --all, --team NAME …")
        print("\n".join(map(ledger.line, ledger.stops(places))) or "nothing is stopped")
        return 0
    one = Stop(*whose, time.time(), parsed.now)
    ledger.stop(places, one)
    print(f"stopped: {ledger.line(one)}")
    return 0


def _resume(parsed: argparse.Namespace, places: Places) -> int:
    from douane.hosts import ledger

    whose = _whose(parsed)
    if whose is None:
        raise ConfigError("resume: say whose calls: --all, --team NAME … (see: douane stop)")
    done = ledger.resume(places, *whose)
    print("resumed" if done else "no such stop is in force (see: douane stop)", file=sys.stdout if done else sys.stderr)
    return 0 if done else 1


def _prices(parsed: argparse.Namespace, places: Places) -> int:
    import json

    from douane import price_show

    if parsed.model is None:
        rules, used, rest = price_show.overview(places)
        print(json.dumps([price_show.as_object(one) for one in used], indent=1) if parsed.json
              else price_show.table(rules, used, rest))
        return 0
    found = price_show.explain(places, parsed.model, parsed.provider)
    print(json.dumps([price_show.as_object(one) for one in found], indent=1) if parsed.json
          else "\n\n".join(map(price_show.as_text, found)))
    return 0 if any(one.quote.tariff is not None for one in found) else 1


def _inspect(parsed: argparse.Namespace, places: Places) -> int:
    import json

    from douane import inspection

    for one in inspection.inspect_files(inspection.open_inspector(places), parsed.files):
        print(json.dumps(inspection.as_object(one)) if parsed.json else inspection.as_text(one))
    return 0


def _scan(parsed: argparse.Namespace, places: Places) -> int:
    import contextlib
    import json

    from douane import scan

    paths = parsed.files or ([] if parsed.pre_commit else ["-"])
    found = []
    with scan.searching(secrets_only=parsed.secrets or parsed.pre_commit) as search:
        if parsed.jsonl:
            for path in paths:
                with contextlib.nullcontext(sys.stdin) if path == "-" else scan.opened(path) as source:
                    for line in scan.lines(source, path, search):
                        print(line, flush=True)
            return 0
        for hit in scan.hits(paths, search):
            found.append(hit)
            if not parsed.json:
                print(hit)
    if parsed.json:
        print(json.dumps([hit.as_object() for hit in found], indent=1))
    return 1 if found else 0


def _audit_tail(parsed: argparse.Namespace, places: Places) -> int:
    from douane.audit.read import tail
    from douane.audit.show import as_json, one_line

    for record in tail(places.audit, follow=parsed.follow, n=parsed.n):
        print(as_json(record) if parsed.json else one_line(record), flush=parsed.follow)
    return 0


def _audit_show(parsed: argparse.Namespace, places: Places) -> int:
    from rich.console import Console

    from douane.audit.read import show
    from douane.audit.show import as_json, exchange

    records = show(places.audit, parsed.id)
    if not records:
        print(f"douane: no record has the id {parsed.id}", file=sys.stderr)
        return 1
    if parsed.json:
        print(*map(as_json, records), sep="\n")
    else:
        exchange(records, Console(highlight=False, emoji=False, markup=False))
    return 0


def _audit_verify(parsed: argparse.Namespace, places: Places) -> int:
    from douane.audit import verify

    return verify.main([str(places.audit)] + (["--head", parsed.head] if parsed.head else []))


def _ca(parsed: argparse.Namespace, places: Places) -> int:
    from douane import ca
    from douane.loader import load, tls_names
    from douane.places import private_folder

    if parsed.what == "show":
        print(ca.show(places.certs))
        return 0
    names = tls_names(load(places.policies))
    private_folder(places.certs)
    days = {} if parsed.days is None else {"days": parsed.days}
    act = {"init": ca.init, "issue": ca.issue, "rotate": ca.rotate}[parsed.what]
    print(act(places.certs, names, **days))
    return 0
