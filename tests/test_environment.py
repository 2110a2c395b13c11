"""The variables, as a shell, curl-like clients, Node and Java understand them."""

import base64
import json
import os
import shlex
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from douane import ca
from douane.environment import DUMMY_KEY, dummy_keys, exports, prepare, variables
from douane.errors import ConfigError

PROXY = "http://support-bot:k3y@127.0.0.1:8080"
CA, BUNDLE, STORE = Path("/certs/ca.pem"), Path("/certs/bundle.pem"), Path("/certs/bundle.p12")


def merged(changes: Mapping[str, str | None], inherited: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in {**inherited, **changes}.items() if value is not None}


def test_every_variable_is_set_whatever_was_there() -> None:
    inherited = {"NO_PROXY": "api.openai.com,*", "HTTPS_PROXY": "http://other:1", "ALL_PROXY": "socks5://x:1",
                 "SSLKEYLOGFILE": "/tmp/keys", "SSL_CERT_DIR": "/etc/ssl/certs", "REQUESTS_CA_BUNDLE": "/corp.pem",
                 "DENO_CERT": "/corp.pem"}
    result = merged(variables(PROXY, CA, BUNDLE, STORE, inherited), inherited)
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy", "grpc_proxy"):
        assert result[name] == PROXY
    for name in ("NO_PROXY", "no_proxy"):
        assert result[name] == "localhost,127.0.0.1,::1"
    for name in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "GIT_SSL_CAINFO", "PIP_CERT", "AWS_CA_BUNDLE",
                 "CODEX_CA_CERTIFICATE", "CARGO_HTTP_CAINFO", "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH", "HTTPLIB2_CA_CERTS",
                 "CLOUDSDK_CORE_CUSTOM_CA_CERTS_FILE", "NIX_SSL_CERT_FILE", "npm_config_cafile", "BUNDLE_SSL_CA_CERT"):
        assert result[name] == "/certs/bundle.pem"
    assert result["NODE_EXTRA_CA_CERTS"] == "/certs/ca.pem"
    assert result["DENO_CERT"] == "/certs/bundle.pem"  # the app's own CA is in it
    assert result["NODE_USE_ENV_PROXY"] == "1"
    assert result["GIT_HTTP_PROXY_AUTHMETHOD"] == "basic"
    assert not {"ALL_PROXY", "all_proxy", "SSL_CERT_DIR", "SSLKEYLOGFILE"} & result.keys()


def test_options_are_appended_once() -> None:
    inherited = {"NODE_OPTIONS": "--max-old-space-size=99", "JAVA_TOOL_OPTIONS": "-Xmx1g"}
    first = variables(PROXY, CA, BUNDLE, STORE, inherited)
    assert first["NODE_OPTIONS"] is not None
    assert first["NODE_OPTIONS"].startswith("--max-old-space-size=99 --require ")
    assert first["JAVA_TOOL_OPTIONS"] is not None
    assert first["JAVA_TOOL_OPTIONS"].startswith("-Xmx1g -Dhttp.proxyHost=127.0.0.1 -Dhttp.proxyPort=8080 ")
    assert "k3y" not in first["JAVA_TOOL_OPTIONS"]  # the JVM prints it
    again = variables(PROXY, CA, BUNDLE, STORE, merged(first, {}))
    assert again["NODE_OPTIONS"] == first["NODE_OPTIONS"]
    assert again["JAVA_TOOL_OPTIONS"] == first["JAVA_TOOL_OPTIONS"]


@pytest.mark.parametrize("bad", ["https://127.0.0.1:8080", "127.0.0.1:8080", "http://127.0.0.1", "http://tok@127.0.0.1:1",
                                 "http://tok:@127.0.0.1:1", "http://h:99999", "http://h:1/path", "http://a b:1"])
def test_a_proxy_url_some_client_would_misread_is_refused(bad: str) -> None:
    with pytest.raises(ConfigError, match="proxy: ") as caught:
        variables(bad, CA, BUNDLE, STORE, {})
    assert "tok" not in str(caught.value)


def test_a_shell_reads_back_what_was_written() -> None:
    inherited = {"PATH": os.environ["PATH"], "ALL_PROXY": "socks5://x:1", "NODE_OPTIONS": "--title='a b'",
                 "no_proxy": "*"}
    nasty = Path("/tmp/it's $HOME `id` \"x\" \\ é")
    changes = variables(PROXY, nasty / "ca.pem", nasty / "bundle.pem", Path("/tmp/a b.p12"), inherited)
    program = f"eval {shlex.quote(exports(changes))}; env -0"
    done = subprocess.run(["bash", "--norc", "-c", program], env=inherited, capture_output=True, timeout=10)
    assert done.stderr == b""
    seen = dict(entry.split("=", 1) for entry in done.stdout.decode().split("\0") if entry)
    expected = merged(changes, inherited)
    assert {name: seen.get(name) for name in expected} == expected
    assert "ALL_PROXY" not in seen


def test_dummy_keys_only_where_the_app_has_none_and_the_gateway_one() -> None:
    assert dummy_keys(["openai", "azure", "anthropic"], {"ANTHROPIC_API_KEY": "own", "OPENAI_API_KEY": ""}) == {
        "OPENAI_API_KEY": DUMMY_KEY}
    assert dummy_keys([], {}) == {}


def test_prepare_writes_the_files_it_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ca.init(tmp_path / "certs", ["api.openai.com"])
    monkeypatch.chdir(tmp_path)
    result = prepare(PROXY, Path("certs"), {})
    named = [result[name] for name in ("SSL_CERT_FILE", "NODE_EXTRA_CA_CERTS")]
    assert named == [str(tmp_path / "certs" / "bundle.pem"), str(tmp_path / "certs" / "ca.pem")]
    assert all(Path(name).is_file() for name in named if name)
    assert f"-Djavax.net.ssl.trustStore={tmp_path}/certs/bundle.p12" in str(result["JAVA_TOOL_OPTIONS"])
    assert (tmp_path / "certs" / "bundle.p12").is_file()


# --- Node, with a real tunnel


class Tunnels:
    """A CONNECT proxy that is the origin as well: it terminates TLS with a leaf of ours and says hello."""

    def __init__(self, certs: Path) -> None:
        leaf = ca.Authority.open(certs, ["api.openai.com"]).leaf("api.openai.com")
        (certs / "server").write_bytes(leaf.chain_pem + leaf.key_pem)
        self._context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self._context.load_cert_chain(certs / "server")
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self.heads: list[bytes] = []
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while True:
            connection, _ = self._listener.accept()
            with connection:
                connection.settimeout(10)
                head = _head(connection)
                if not head:
                    return
                self.heads.append(head)
                if b"refused.example" in head:
                    connection.sendall(b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n")
                    continue
                connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
                try:
                    with self._context.wrap_socket(connection, server_side=True) as secure:
                        _head(secure)
                        secure.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\nconnection: close\r\n\r\nhello")
                except OSError:
                    continue

    def close(self) -> None:
        socket.create_connection(("127.0.0.1", self.port)).close()
        self._thread.join(timeout=15)
        self._listener.close()


def _head(connection: socket.socket) -> bytes:
    head = b""
    while b"\r\n\r\n" not in head and (chunk := connection.recv(4096)):
        head += chunk
    return head


@pytest.fixture
def tunnels(tmp_path: Path) -> Iterator[Tunnels]:
    ca.init(tmp_path / "certs", ["api.openai.com"])
    server = Tunnels(tmp_path / "certs")
    yield server
    server.close()


SCRIPT = """
const https = require('https')
const get = options => new Promise(resolve => https.get(options, response => {
  let text = ''; response.on('data', data => { text += data }); response.on('end', () => resolve(text))
}).on('error', error => resolve('error ' + error.message)))
const pull = url => fetch(url).then(response => response.text(), error => 'error ' + error.cause.message);
(async () => console.log(JSON.stringify([
  await pull('https://api.openai.com/v1/models'), await get('https://api.openai.com/v1/models'),
  await get({ host: 'api.openai.com', agent: new https.Agent({ keepAlive: true }) }),
  await pull('https://refused.example/'), await get('https://refused.example/'),
  await pull('https://other.example/'), await get('https://other.example/'),
  await get('https://127.0.0.1:1/')
])))().then(() => process.exit(0))
"""


@pytest.mark.skipif(shutil.which("node") is None, reason="no Node here")
def test_nodes_fetch_and_https_go_through_the_proxy(tunnels: Tunnels, tmp_path: Path) -> None:
    changes = prepare(f"http://bot:k%C3%A9y@127.0.0.1:{tunnels.port}", tmp_path / "certs", {})
    done = subprocess.run(["node", "-e", SCRIPT], env=merged(changes, {"PATH": os.environ["PATH"]}),
                          capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    answers = json.loads(done.stdout)
    assert answers[:3] == ["hello"] * 3
    assert all("403" in answer for answer in answers[3:5])
    assert all("altnames" in answer for answer in answers[5:7])  # verified against the name that was asked for
    assert "ECONNREFUSED" in answers[7]  # NO_PROXY: not by the proxy
    assert len(tunnels.heads) == 7
    sent = b"proxy-authorization: Basic " + base64.b64encode("bot:kéy".encode())
    assert all(sent in head for head in tunnels.heads)


@pytest.mark.skipif(shutil.which("node") is None, reason="no Node here")
def test_node_starts_with_a_proxy_it_cannot_read_and_an_odd_path(tmp_path: Path) -> None:
    shim = Path(prepare.__code__.co_filename).parent / "node" / "proxy.cjs"
    odd = tmp_path / 'a "b c'
    odd.mkdir()
    shutil.copy(shim, odd)
    from douane.environment import _node_quoted
    options = f"--require {_node_quoted(str(odd / 'proxy.cjs'))}"
    done = subprocess.run(["node", "-e", "console.log('up')"], capture_output=True, text=True, timeout=30,
                          env={"PATH": os.environ["PATH"], "NODE_OPTIONS": options, "HTTPS_PROXY": "http://["})
    assert done.stdout == "up\n", done.stderr


@pytest.mark.skipif(shutil.which("java") is None, reason="no Java here")
def test_java_reads_its_options_with_spaces_in_the_path() -> None:
    changes = variables(PROXY, CA, BUNDLE, Path("/tmp/a b/bundle.p12"), {})
    done = subprocess.run(["java", "-XshowSettings:properties", "-version"], capture_output=True, text=True, timeout=60,
                          env=merged(changes, {"PATH": os.environ["PATH"]}))
    assert "javax.net.ssl.trustStore = /tmp/a b/bundle.p12" in done.stderr
    assert "https.proxyPort = 8080" in done.stderr
