"""The environment of a governed app: proxy, trust, and a key where the app has none.

Law: what is set here overrides what was inherited (a forgotten ``NO_PROXY`` or CA variable would be a hole), and what
the app trusted before it trusts still: see :mod:`douane.ca.trust`. Environment variables are advice, not walls: an app
may ignore them, and egress rules must stop the one that does.

Which client reads which variable was tried client by client: notes/interception.md §2, docs/ca.md.
"""

import re
import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from urllib.parse import urlsplit

from douane.ca.files import Folder
from douane.ca.trust import ADDITIVE, REPLACING, TRUSTSTORE_PASSWORD, bundle, truststore
from douane.errors import ConfigError

__all__ = ["DUMMY_KEY", "dummy_keys", "exports", "prepare", "variables"]

_PROXY = ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy", "grpc_proxy")
_UNSET = ("ALL_PROXY", "all_proxy", "SSL_CERT_DIR", "SSLKEYLOGFILE")
"""A second proxy; CA folders (their content is in the bundle); a file that would give every session away."""
_DIRECT = "localhost,127.0.0.1,::1"
_NODE_SHIM = Path(__file__).parent / "node" / "proxy.cjs"
"""Node before 22.21 / 24.5 ignores the proxy variables; the shim gives its https and fetch a CONNECT tunnel."""
_KEYS = MappingProxyType({"openai": "OPENAI_API_KEY", "anthropic": "ANTHROPIC_API_KEY",
                          "google": "GEMINI_API_KEY", "bedrock": "AWS_BEARER_TOKEN_BEDROCK"})
DUMMY_KEY = "douane-puts-the-real-key-in"
"""The SDKs refuse to start without a key; this one says what becomes of it and opens nothing."""


def prepare(proxy_url: str, folder: Path, inherited: Mapping[str, str]) -> dict[str, str | None]:
    """Write bundle and trust store into the CA's *folder* as need be, and give the variables (None: unset).

    Raises ConfigError (no CA there, a bad *proxy_url*) and EnvironmentFailedError (disk, rights)."""
    folder = folder.absolute()
    bundle_pem = bundle(folder, inherited)
    return variables(proxy_url, Folder(folder).ca, bundle_pem, truststore(bundle_pem), inherited)


def variables(proxy_url: str, ca_pem: Path, bundle_pem: Path, truststore_p12: Path,
              inherited: Mapping[str, str]) -> dict[str, str | None]:
    """Name → value, None where it must be unset. Paths must be absolute: the app may run in another folder.

    *proxy_url*: ``http://127.0.0.1:8080`` or ``http://NAME:KEY@HOST:PORT`` (ConfigError else: several clients take no
    ``https://`` proxy, and urllib drops the credentials where the password is empty)."""
    host, port = _proxy(proxy_url)
    result: dict[str, str | None] = dict.fromkeys(_PROXY, proxy_url)
    result |= {"NO_PROXY": _DIRECT, "no_proxy": _DIRECT}
    result |= dict.fromkeys(REPLACING, str(bundle_pem))
    # The bundle where the app brought CAs of its own by this variable: they are in it.
    result |= {name: str(bundle_pem if inherited.get(name) else ca_pem) for name in ADDITIVE}
    result |= {
        "NODE_USE_ENV_PROXY": "1",
        "NODE_OPTIONS": _appended(inherited.get("NODE_OPTIONS", ""), f"--require {_node_quoted(str(_NODE_SHIM))}"),
        "GIT_HTTP_PROXY_AUTHMETHOD": "basic",
        "JAVA_TOOL_OPTIONS": _appended(inherited.get("JAVA_TOOL_OPTIONS", ""), _java(host, port, truststore_p12)),
    }
    return result | dict.fromkeys(_UNSET)


def dummy_keys(credential_providers: Iterable[str], inherited: Mapping[str, str]) -> dict[str, str]:
    """A key that opens nothing, for each provider the gateway holds a credential of and the app has no key of."""
    named = (_KEYS[provider] for provider in credential_providers if provider in _KEYS)
    return {name: DUMMY_KEY for name in named if not inherited.get(name)}


def exports(variables: Mapping[str, str | None]) -> str:
    """POSIX shell text for ``eval "$(douane env)"``, a line a variable."""
    return "".join(f"unset {name}\n" if value is None else f"export {name}={shlex.quote(value)}\n"
                   for name, value in variables.items())


def _proxy(url: str) -> tuple[str, int]:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise ConfigError("proxy: not a URL of the form http://[NAME:KEY@]HOST:PORT") from None
    if parts.scheme != "http" or not parts.hostname or not port or parts.path or re.search(r"\s", url):
        raise ConfigError("proxy: not a URL of the form http://[NAME:KEY@]HOST:PORT")
    if parts.username is not None and not parts.password:
        raise ConfigError("proxy: a user name without a password (urllib would drop both)")
    return parts.hostname, port


def _java(host: str, port: int, truststore_p12: Path) -> str:
    """Java reads no proxy variable, and sends no credentials from a URL: it is known by its address, or not at all."""
    properties = {
        "http.proxyHost": host, "http.proxyPort": str(port), "https.proxyHost": host, "https.proxyPort": str(port),
        "http.nonProxyHosts": "localhost|127.*|[::1]",
        "jdk.http.auth.tunneling.disabledSchemes": "",
        "javax.net.ssl.trustStore": str(truststore_p12), "javax.net.ssl.trustStoreType": "PKCS12",
        "javax.net.ssl.trustStorePassword": TRUSTSTORE_PASSWORD,
    }
    return " ".join(_java_quoted(f"-D{name}={value}") for name, value in properties.items())


def _java_quoted(option: str) -> str:
    """The JVM splits at white space, and takes either quote; it knows no escape."""
    if not re.search(r"[\s\"']", option):
        return option
    quote = "'" if '"' in option else '"'
    if quote in option:
        raise ConfigError(f"{option}: a path with both kinds of quote cannot be given to Java")
    return f"{quote}{option}{quote}"


def _node_quoted(path: str) -> str:
    if not re.search(r"[\s\"\\]", path):
        return path
    return '"' + path.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _appended(inherited: str, ours: str) -> str:
    """The last option wins, so ours stand last; not twice where ``run`` runs inside ``run``."""
    return inherited if inherited.endswith(ours) else f"{inherited} {ours}".strip()
