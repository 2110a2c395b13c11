"""What secrets look like: the rules of :mod:`douane.detect.find_secrets`, as data.

Law: a pattern is linear on any text. Every repetition is bounded or possessive, none stands in another unless what parts the
two is in neither's class, and none begins with a wildcard. The whole of a secret is the span, so that nothing of it stays:
lengths are at least those of the source, and a longer one is taken to its end.

An example is a template: ``{W93}`` stands for 93 characters of class W, so that no file holds what looks like a live key.
Classes: W ``[A-Za-z0-9_-]``, A ``[A-Za-z0-9]``, L ``[a-z0-9]``, U ``[A-Z2-7]``, H hexadecimal, D digits,
B base64, G that of age keys, X the letter x.
"""

from dataclasses import dataclass

__all__ = ["CONTEXTS", "RUN", "TOKENS", "Rule"]

RUN = 20
"""Characters of ``[A-Za-z0-9_.~/+=-]`` in a row that every form of TOKENS has at least."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One form. The secret is the pattern's last group, where it has one, else the whole match."""

    name: str
    """The span's type."""
    pattern: str
    source: str
    """Where the form is written down."""
    found: tuple[str, ...]
    """Templates in which it is found: between « and » where there is more than the secret."""
    passed: tuple[str, ...]
    """Templates near to it in which nothing is found."""
    score: float = 1.0
    """1 where nothing else has this form; below it, what only stands for a secret is told apart (``find_secrets``)."""
    entropy: float = 3.0
    """Bits a character (Shannon) that the secret has at least: below it, it is a stand-in (``xxxx``)."""
    anchor: str = ""
    """Of a rule in CONTEXTS: the lower-case text at which the pattern begins."""
    back: int = 0
    """Characters of the secret before the match: a secret known by what stands in its middle."""
    word: bool = False
    """The secret is a value of any form: it is weighed, for it may be a word."""
    short: bool = False
    """Of a word: a password, of which little is asked."""
    needs: str = ""
    """A character without which a text holds none: looked for first, where that is cheaper than the anchor."""


_GITLEAKS = "gitleaks config/gitleaks.toml"
_TRUFFLEHOG = "trufflehog pkg/detectors"
_GITHUB = "docs.github.com: supported secret scanning patterns"


def _first(prefix: str) -> str:
    """*prefix* where a token begins: not within base64 or a longer name, yet after an escape (``\\n``, ``%3D``)."""
    return rf"{prefix}(?:(?<![\w-]{prefix})|(?<=\\[nrtbf]{prefix})|(?<=%[0-9A-Fa-f]{{2}}{prefix}))"


TOKENS = (
    Rule("ANTHROPIC_KEY", r"sk-ant-[a-z]{2,8}[0-9]{0,3}-[\w-]{20,250}", _GITLEAKS,
         ("sk-ant-api03-{W93}AA", "sk-ant-admin01-{W93}AA", "sk-ant-oat01-{W80}"),
         ("sk-ant-api03-{X93}AA", "sk-ant-api03-{W8}")),
    Rule("OPENROUTER_KEY", r"sk-or-v1-[0-9a-f]{48,128}", f"{_TRUFFLEHOG}/openrouter", ("sk-or-v1-{H64}",), ("sk-or-v1-{H20}",)),
    Rule("LANGFUSE_KEY", r"sk-lf-[0-9a-f-]{36}", "langfuse.com/docs: API keys", ("sk-lf-{H8}-{H4}-{H4}-{H4}-{H12}",),
         ("sk-lf-{H8}",)),
    Rule("OPENAI_KEY", r"sk-(?:proj|svcacct|service|admin|None)-[\w-]{20,250}|" + _first("sk-") + r"[A-Za-z0-9]{20,250}",
         f"{_GITLEAKS}; the bare form is that of all who speak OpenAI's (DeepSeek, Moonshot, LiteLLM)",
         ("sk-proj-{W74}T3BlbkFJ{W74}", "sk-svcacct-{W58}T3BlbkFJ{W58}", "sk-{A20}T3BlbkFJ{A20}", "sk-{H32}"),
         ("sk-{X48}", "sk-proj-{X74}", "risk-{A8}", "sk-learn-0.24.2-cp39-manylinux")),
    Rule("GOOGLE_API_KEY", r"AIza[\w-]{35,60}", _GITLEAKS, ("AIza{W35}",), ("AIza{X35}", "AIza{W12}")),
    Rule("GOOGLE_OAUTH_TOKEN", r"ya29\.[\w-]{20,1024}", f"{_TRUFFLEHOG}; developers.google.com/identity", ("ya29.a0{W120}",),
         ("ya29.{W8}",)),
    Rule("GOOGLE_CLIENT_SECRET", r"GOCSPX-[\w-]{24,64}", f"{_GITHUB}: google_oauth_client_secret", ("GOCSPX-{W28}",),
         ("GOCSPX-{X28}",)),
    Rule("GITHUB_TOKEN", _first("gh[pousr]_") + r"[A-Za-z0-9]{36,255}|github_pat_\w{60,255}", f"{_GITLEAKS}; {_GITHUB}",
         ("ghp_{A36}", "gho_{A36}", "ghs_{A36}", "ghu_{A36}", "ghr_{A36}", "github_pat_{A22}_{A59}"), ("ghp_{X36}",
         "ghp_{A20}")),
    Rule("GITLAB_TOKEN", r"gl(?:pat|dt|ptt|rt|rtr|cbt|ft|imt|agent|oas|soat|ffct)-[\w-]{20,300}(?:\.[0-9a-z]{9})?", _GITLEAKS,
         ("glpat-{A20}", "glrt-{A20}", "glpat-{W27}.{L9}"), ("glpat-{X20}", "glossary-{L20}")),
    Rule("SLACK_TOKEN", r"xox[abceoprs](?:\.xox[bp])?-[\w-]{15,255}|xapp-[0-9]-[A-Z0-9]{6,20}-[0-9]{6,20}-[a-z0-9]{20,128}",
         _GITLEAKS,
         ("xoxb-{D12}-{D12}-{A24}", "xoxp-{D11}-{D11}-{D11}-{H32}", "xapp-1-{U11}-{D12}-{H64}"), ("xoxb-{X30}", "xoxb-{D8}")),
    Rule("SLACK_WEBHOOK", r"hooks\.slack\.com/(?:services|workflows|triggers)/([A-Za-z0-9+/]{40,80})", _GITLEAKS,
         ("https://hooks.slack.com/services/«T{U8}/B{U8}/{A24}»",), ("https://hooks.slack.com/services/T000/B000/none",)),
    Rule("STRIPE_KEY", r"sk_(?:live|test|prod)_[A-Za-z0-9]{16,255}|rk_(?:live|test|prod)_[A-Za-z0-9]{16,255}|"
         r"whsec_[A-Za-z0-9+/]{32,64}", _GITLEAKS,
         ("sk_live_{A24}", "rk_test_{A99}", "sk_test_{A24}", "whsec_{A32}"), ("pk_live_{A24}", "sk_test_{X24}")),
    Rule("TWILIO_KEY", _first("SK") + r"[0-9a-f]{32}(?![0-9a-zA-Z])", _GITLEAKS, ("SK{H32}",), ("SK{H31}", "TASK{H32}")),
    Rule("SENDGRID_KEY", _first(r"SG\.") + r"[\w-]{16,32}+\.[\w-]{16,64}", _GITLEAKS, ("SG.{W22}.{W43}",), ("SG.{W22}",
         "SG.{X22}.{X43}")),
    Rule("NPM_TOKEN", _first("npm_") + r"[A-Za-z0-9]{36,64}", _GITLEAKS, ("npm_{A36}",), ("npm_{X36}",
         "npm_config_registry_url_for_all")),
    Rule("PYPI_TOKEN", r"pypi-AgE[\w-]{50,1024}", _GITLEAKS, ("pypi-AgEIcHlwaS5vcmc{W80}",),
         ("pypi-attestations-verification-tool",)),
    Rule("HUGGINGFACE_TOKEN", _first("hf_") + r"(?=[a-z0-9]{0,40}[A-Z])[A-Za-z0-9]{34,64}|api_org_[A-Za-z0-9]{34,64}",
         _GITLEAKS,
         ("hf_{A34}", "api_org_{A34}"), ("hf_{X34}", "hf_transfer_download_enable_fast")),
    Rule("GROQ_KEY", _first("gsk_") + r"[A-Za-z0-9]{32,80}", f"{_TRUFFLEHOG}/groq", ("gsk_{A52}",), ("gsk_{X52}",)),
    Rule("XAI_KEY", _first("xai-") + r"[A-Za-z0-9]{48,128}", f"{_TRUFFLEHOG}/xai", ("xai-{A80}",), ("xai-{X80}", "xai-{A12}")),
    Rule("PERPLEXITY_KEY", r"pplx-[A-Za-z0-9]{32,80}", _GITLEAKS, ("pplx-{A48}",), ("pplx-{X48}",)),
    Rule("CEREBRAS_KEY", _first("csk-") + r"[A-Za-z0-9]{32,80}", f"{_GITHUB}: cerebras_api_key", ("csk-{L48}",), ("csk-{X48}",
         )),
    Rule("REPLICATE_TOKEN", _first("r8_") + r"[A-Za-z0-9]{37,64}", f"{_TRUFFLEHOG}/replicate", ("r8_{A37}",), ("r8_{A20}",)),
    Rule("FIREWORKS_KEY", _first("fw_") + r"(?=[A-Za-z]{0,30}[0-9])[A-Za-z0-9]{22,48}", f"{_GITHUB}: fireworks_ai_api_key",
         ("fw_{A24}",), ("fw_{X24}", "fw_{A12}")),
    Rule("NVIDIA_KEY", r"nvapi-[\w-]{40,128}", f"{_TRUFFLEHOG}/nvapi", ("nvapi-{W64}",), ("nvapi-{X64}",)),
    Rule("TOGETHER_KEY", r"tgp_v1_[\w-]{32,64}", f"{_TRUFFLEHOG}/togetherai", ("tgp_v1_{W43}",), ("tgp_v1_{X43}",)),
    Rule("TAVILY_KEY", r"tvly-(?:dev-|prod-)?[A-Za-z0-9]{24,64}", f"{_TRUFFLEHOG}/tavily", ("tvly-{A32}", "tvly-dev-{A32}"),
         ("tvly-{X32}",)),
    Rule("ELEVENLABS_KEY", _first("sk_") + r"[0-9a-f]{48}", f"{_TRUFFLEHOG}/elevenlabs", ("sk_{H48}",), ("sk_{H40}",)),
    Rule("LANGSMITH_KEY", r"lsv2_(?:pt|sk)_[0-9a-f]{32}_[0-9a-f]{10}", f"{_TRUFFLEHOG}/langsmith", ("lsv2_pt_{H32}_{H10}",),
         ("lsv2_pt_{H32}",)),
    Rule("AZURE_KEY", r"JQQJ9(?<=[A-Za-z0-9]{52}JQQJ9)[9DH][A-Za-z0-9]{26}",
         "github.com/microsoft/security-utilities: annotated keys",
         ("{A52}JQQJ99{A26}",), ("{A20}JQQJ99{A26}",), back=52),
    Rule("AZURE_CLIENT_SECRET", r"Q~(?<=[\w~.-]{3}[0-9]Q~)[\w~.-]{31,34}", _GITLEAKS, ("{A3}8Q~{A34}",), ("{A3}8Q~{A12}",
         ), back=4),
    Rule("AWS_ACCESS_KEY", _first("A(?:KIA|SIA|BIA|CCA)") + r"[A-Z2-7]{16}(?![A-Za-z0-9])", _GITLEAKS, ("AKIA{U16}",
         "ASIA{U16}"),
         ("AKIAIOSFODNN7EXAMPLE", "AKIA{U12}", "{A9}AKIA{U16}{A9}")),
    Rule("AWS_BEDROCK_KEY", r"ABSKQmVkcm9ja0FQSUtleS[A-Za-z0-9+/]{80,255}={0,2}|bedrock-api-key-[A-Za-z0-9+/]{80,4096}+={0,2}",
         f"{_GITHUB}: aws_bedrock_long_term_api_key", ("ABSKQmVkcm9ja0FQSUtleS{A110}",), ("ABSKQmVkcm9ja0FQSUtleS",)),
    Rule("DIGITALOCEAN_TOKEN", r"do[opr]_v1_[0-9a-f]{64}", _GITLEAKS, ("dop_v1_{H64}", "doo_v1_{H64}"), ("dop_v1_{H32}",)),
    Rule("DATABRICKS_TOKEN", _first("dapi") + r"[0-9a-f]{32}(?:-[0-9])?(?![0-9a-zA-Z])", _GITLEAKS, ("dapi{H32}",
         "dapi{H32}-2"), ("dapi{H20}",)),
    Rule("VAULT_TOKEN", r"hv[sbr]\.[\w-]{24,300}", _GITLEAKS, ("hvs.{W95}", "hvb.{W140}"), ("hvs.{X95}",)),
    Rule("TERRAFORM_TOKEN", r"\.atlasv1\.(?<=[A-Za-z0-9]{14}\.atlasv1\.)[\w=-]{60,70}", _GITLEAKS, ("{A14}.atlasv1.{W67}",),
         ("{A14}.atlasv1.{W9}",), back=14),
    Rule("DOCKER_TOKEN", r"dckr_[op]at_[\w-]{27,64}", f"{_TRUFFLEHOG}/dockerhub", ("dckr_pat_{W27}",), ("dckr_pat_{X27}",)),
    Rule("SHOPIFY_TOKEN", r"shp(?:at|ca|pa|ss)_[0-9a-fA-F]{32}", _GITLEAKS, ("shpat_{H32}",), ("shpat_{H16}",)),
    Rule("NOTION_TOKEN", r"ntn_[0-9]{11}[A-Za-z0-9]{35}", _GITLEAKS, ("ntn_{D11}{A35}",), ("ntn_{A20}",)),
    Rule("LINEAR_KEY", r"lin_(?:api|oauth)_[A-Za-z0-9]{40,64}", _GITLEAKS, ("lin_api_{A40}",), ("lin_api_{X40}",)),
    Rule("SENTRY_TOKEN", r"sntry(?:u_[0-9a-f]{64}|s_eyJ[\w+/=-]{60,600})", _GITLEAKS, ("sntryu_{H64}",), ("sntryu_{H12}",)),
    Rule("GRAFANA_TOKEN", r"glsa_[A-Za-z0-9]{32}_[0-9a-fA-F]{8}|glc_[A-Za-z0-9+/]{32,400}={0,3}", _GITLEAKS,
         ("glsa_{A32}_{H8}", "glc_{A64}"),
         ("glsa_{A16}", "glc_{X64}")),
    Rule("POSTMAN_KEY", r"PMAK-[0-9a-f]{24}-[0-9a-f]{34}", _GITLEAKS, ("PMAK-{H24}-{H34}",), ("PMAK-{H24}",)),
    Rule("NEW_RELIC_KEY", r"NRAK-[A-Z0-9]{27}", _GITLEAKS, ("NRAK-{U27}",), ("NRAK-{U9}",)),
    Rule("ATLASSIAN_TOKEN", r"ATATT3[\w-]{100,300}(?:=[0-9A-F]{8})?", _GITLEAKS, ("ATATT3{W180}={D8}",), ("ATATT3{W20}",)),
    Rule("AIRTABLE_TOKEN", _first("pat") + r"[A-Za-z0-9]{14}\.[0-9a-f]{64}", _GITLEAKS, ("pat{A14}.{H64}",),
         ("patch{A12}.{H12}",)),
    Rule("AGE_KEY", r"AGE-SECRET-KEY-1[QPZRY9X8GF2TVDW0S3JN54KHCE6MUA7L]{58}", _GITLEAKS,
         ("AGE-SECRET-KEY-1{G58}",), ("AGE-SECRET-KEY-1{G20}",)),
    Rule("PULUMI_TOKEN", _first("pul-") + r"[0-9a-f]{40}", _GITLEAKS, ("pul-{H40}",), ("pul-{H12}",)),
    Rule("RUBYGEMS_KEY", r"rubygems_[0-9a-f]{48}", _GITLEAKS, ("rubygems_{H48}",), ("rubygems_{H12}",)),
    Rule("TELEGRAM_TOKEN", r"AA(?<=[0-9]{8}:AA)[\w-]{33,36}", _GITLEAKS, ("{D10}:«AA{W33}»",), ("{D10}:AA{W12}",)),
    Rule("JWT", _first("eyJ") + r"[\w-]{10,4096}+\.eyJ[\w-]{10,16384}+\.[\w-]{16,2048}", f"{_GITLEAKS}; RFC 7519",
         ("eyJhbGciOiJIUzI1NiJ9.eyJ{A60}.{W43}",), ("eyJhbGciOiJIUzI1NiJ9", "eyJ{A20}.eyJ{A20}"), 0.95),
)
"""Forms that are known by themselves. Surest first: of two that begin at one place, the first counts."""

_QUOTE = r"\\{0,3}[\"'`]"
_LINE = r"(?:\r?\n|\\{1,4}[nr])"
_IS = rf"(?:{_QUOTE})?\]?[ \t]{{0,4}}(?:=>|:=|={{1,3}}|:|(?<=[ \t])value=)[ \t]{{0,4}}(?:{_LINE}[ \t]{{0,8}})?"
_SAYS = rf"(?:{_IS}|[ \t](?:is|was)[ \t:]{{1,3}})"
_VALUE = (rf"(?:[bfru]?{_QUOTE}([^\s\"'`\\]{{6,512}}+)(?=\\{{0,3}}[\"'`])"
          r"|([^\s\"'`\\<>{}()\[\],;&|=:]{6,512}+={0,2})(?![(\[=:]))")
_MORE = r"(?:[-_]?(?:value|string|text|base64|b64|prod|production|live|test|dev|staging|default|hash|[0-9]{1,2}))?"
_KEYS = "|".join(f"(?<={of})|(?<={of}[-_ ])" for of in (
    "api", "access", "secret", "auth", "account", "client", "service", "subscription", "encryption", "signing", "master",
    "shared",
    "admin", "license", "app", "webhook", "function", "openai", "anthropic", "azure", "gemini", "mistral", "cohere"))
_PAGE = "".join(f"(?<!{of})(?<!{of}[-_])" for of in ("page", "next", "sync", "continuation", "cancellation", "csrf"))
_SOURCE = "detect-secrets plugins/keyword.py; gitleaks generic-api-key"

CONTEXTS = (
    Rule("PRIVATE_KEY", (
        rf"-----BEGIN[ A-Z0-9]{{0,40}}PRIVATE KEY(?: BLOCK)?-----(?:{_LINE}|[ \t]){{0,8}}+"
        rf"(?:[A-Z][A-Za-z-]{{1,29}}:[^\r\n\\]{{1,100}}+{_LINE}{{1,4}}+){{0,6}}+"
        rf"[A-Za-z0-9+/=]{{24,}}+"
        rf"(?:{_LINE}{{1,4}}+[ \t]{{0,8}}+[A-Za-z0-9+/=]{{1,1024}}+|[ \t]{{1,8}}+[A-Za-z0-9+/=]{{32,}}+)*+"
        rf"(?:{_LINE}{{0,4}}[ \t]{{0,8}}-----END[ A-Z0-9]{{0,40}}PRIVATE KEY(?: BLOCK)?-----)?"),
        "RFC 7468; RFC 4880; gitleaks private-key",
        ("-----BEGIN RSA PRIVATE KEY-----\n{B64}\n{B64}\n{B20}==\n-----END RSA PRIVATE KEY-----",
         "-----BEGIN PRIVATE KEY-----\\n{B64}\\n{B64}\\n-----END PRIVATE KEY-----",
         ("-----BEGIN EC PRIVATE KEY-----\r\nProc-Type: 4,ENCRYPTED\r\nDEK-Info: AES-128-CBC,{H32}\r\n\r\n{B64}\r\n"
          "-----END EC PRIVATE KEY-----"),
         "-----BEGIN PGP PRIVATE KEY BLOCK-----\n\n{B64}\n{B40}\n={B4}\n-----END PGP PRIVATE KEY BLOCK-----",
         '{"private_key": "«-----BEGIN PRIVATE KEY-----\\n{B64}\\n{B64}\\n-----END PRIVATE KEY-----»\\n"}',
         "«-----BEGIN OPENSSH PRIVATE KEY-----\n{B64}\n{B64}» cut off here"),
        ("-----BEGIN PUBLIC KEY-----\n{B64}\n-----END PUBLIC KEY-----",
         "-----BEGIN CERTIFICATE-----\n{B64}\n-----END CERTIFICATE-----",
         'if "-----BEGIN RSA PRIVATE KEY-----" in text:', "-----BEGIN PRIVATE KEY-----\n...\n-----END PRIVATE KEY-----"),
        anchor="-----begin"),
    Rule("URL_PASSWORD", r"://[^\s:/@\"'`<>\\?#]{0,128}+:([^\s@\"'`<>/\\]{1,256}+)@(?=[\w\[.-])",
         "RFC 3986 userinfo; detect-secrets plugins/basic_auth.py",
         ("postgres://app:«{A12}»@db.internal:5432/shop", "mongodb+srv://u:«p%40{A8}»@c0.example.net/x",
         "redis://:«{A16}»@cache:6379/0",
         "amqp://guest:«gu3st»@mq", "git clone https://bot:«{A20}»@git.example.com/a.git"),
         ("postgres://app@db.internal:5432/shop", "postgres://u:${DB_PASSWORD}@h/d", "postgres://user:password@localhost/db",
         "http://localhost:8080/@scope/pkg", "postgres://u:<PASSWORD_k3v7q2ma>@h", "https://a.example:443/p?q=me@example.com",
         "postgresql://{user}:{password}@{host}/x", "mysql://user:***@h"), 0.9, 0.5, "://", needs="@"),
    Rule("AUTHORIZATION",
         rf"authorization{_IS}[bfru]?(?:{_QUOTE})?(?:(?:bearer|basic|token|bot|digest|apikey|api-key)[ \t]{{1,4}}+)?"
         r"(?!aws4-)([^\s\"'`\\<>{}()\[\],;=:]{8,4096}+={0,2})(?![(\[])", "RFC 9110 §11.6.2; gitleaks curl-auth-header",
         ("Authorization: Bearer «{A40}»", '"Authorization": "Basic «{A22}==»"', "-H 'authorization: token «{H40}»'",
         '{\\"Authorization\\": \\"Bearer «{W60}»\\"}', 'headers["Authorization"] = "Bearer «{A32}»"'),
         ("Authorization: Bearer $TOKEN", "Authorization: Bearer <token>", "Authorization: Bearer YOUR_API_KEY",
         "Authorization: required", "Authorization: AWS4-HMAC-SHA256 x",
         'headers["Authorization"] = f"Bearer {token}"', "authorization: bearer-token-scheme"), 0.9, 3.0, "authorization",
          word=True),
    Rule("BEARER_TOKEN", r"bearer[ \t]{1,4}+([\w.~+/-]{16,4096}+={0,2})(?![(\[])", "RFC 6750 §2.1",
         ("use Bearer «{A40}» there",),
         ("Bearer authentication-token", "the bearer of this letter", "Bearer {X20}"), 0.9, 3.0, "bearer", word=True),
    Rule("AWS_SECRET_KEY", rf"(?:(?<=aws[-_ ])secret(?:[-_ ]?access)?[-_ ]?key|secret[-_ ]?access[-_ ]?key){_SAYS}(?:{_QUOTE})?"
         r"([A-Za-z0-9/+=]{40})(?![A-Za-z0-9/+=])", "detect-secrets plugins/aws.py; docs.aws.amazon.com: access keys",
         ("aws_secret_access_key = «{B40}»", "aws_secret_access_key=«/{A3}/{B35}»", '"SecretAccessKey": "«{B40}»"',
         "AWS secret key is «{B40}»"),
         ("aws_secret_access_key = {X40}", "AWS_SECRET_ACCESS_KEY=$SECRET"), anchor="secret"),
    Rule("SECRET", rf"secret(?:[-_ ]?(?:access|key|token|base)){{0,3}}+{_MORE}{_SAYS}{_VALUE}", _SOURCE,
         ("client_secret: «{A32}»", 'SECRET_KEY = "«{W50}»"', '{"clientSecret":"«{A24}»"}', "secret=«{H40}»"),
         ("secret = os.environ['APP_SECRET_9']", "secret_id: {A24}", 'secret = "changeme-please-12345"',
         "secret: process.env.SECRET_2024",
         "secret=${SECRET_V2}", "the secret: be kind to one another"), 0.7, 3.0, "secret", word=True),
    Rule("AZURE_STORAGE_KEY", rf"(?<=account)key{_IS}(?:{_QUOTE})?([A-Za-z0-9+/]{{86}}==)",
         "detect-secrets plugins/azure_storage_key.py",
         ("DefaultEndpointsProtocol=https;AccountName=x;AccountKey=«{B86}==»;EndpointSuffix=core.windows.net",),
         ("AccountKey=$(key)",), anchor="key"),
    Rule("API_KEY", rf"(?:{_KEYS})key{_MORE}{_SAYS}{_VALUE}", _SOURCE,
         ('api_key="«{A32}»"', "x-api-key: «{H32}»", "apiKey: '«{A24}»'", 'OPENAI_API_KEY="«{A40}»"',
         '{\\"api_key\\": \\"«{H40}»\\"}',
         "?api_key=«{A20}»&x=1", "The API key is «{A32}»."),
         ('api_key=os.environ["KEY_1"]', "api_key=openai_api_key_2", 'api_key="<your key 1>"', "api_key: str | None = None",
         "primary_key=user_id_123456",
         'api_key="YOUR_API_KEY_12345"', "api_key=settings.openai_key_2"), 0.7, 3.0, "key", word=True),
    Rule("TOKEN", rf"{_PAGE}token(?:[-_]?(?:secret|key))?{_MORE}{_SAYS}{_VALUE}", _SOURCE,
         ("access_token=«{A40}»", '"refresh_token": "«{W60}»"', "token: «{H40}»"),
         ("max_tokens: 4096", "token: hello", "nextPageToken: {A40}", "token = get_token(user_id_1234)",
         '"token": " world-2"', "token_type: {A24}"),
         0.7, 3.0, "token", word=True),
    Rule("PASSWORD", rf"(?<!by)(?<!com)pass(?:w(?:or)?[dt]|phrase|code|e)?{_MORE}{_SAYS}{_VALUE}", _SOURCE,
         ("password=«Hunt3r!2»", 'DB_PASS="«s3cr3t-{A4}»"', "password: «{A12}»", "My password is «Tr0ub4dor_3»",
         '{\\"password\\": \\"«x9$Kq!{A4}»\\"}', "passphrase: «{A20}»",
         "Passwort: «{A9}!»", 'key="Password" value="«{A12}»"', "passwd = '«a,b;c{D4}»'", "password: '«$Xy%{A6}!»'",
         "password=«/{A3}!{A5}»"),
         ("password=<password>", "password=changeme", "password: xxxxxxxx1", "password: str = None",
         "password=self.password2", 'password = "********"',
         "password is required", "password=${DB_PASS_1}", "password=request.form['pw1']", "compass: 123north",
         "password: /run/secrets/db1", "pass: v1.2.3",
         "password: {{ vault.pw1 }}"),
         0.6, 2.0, "pass", word=True, short=True),
    Rule("PASSWORD", rf"(?<=--)pass(?:word|phrase)?[ \t]{{1,2}}(?:{_VALUE})", "detect-secrets plugins/keyword.py",
         ("tool --password «{A12}» -v", "tool --passphrase '«{A12}»'"), ("tool --password $PASSWORD_1", "tool --password -v"),
         0.6, 2.0, "pass", word=True, short=True),
    Rule("PASSWORD", rf"pwd{_MORE}{_IS}{_VALUE}", _SOURCE, ("Server=db;Uid=sa;Pwd=«Zx9!{A6}»;",), ("PWD=/home/user1/src",
         "pwd = os.getcwd()"),
         0.6, 2.0, "pwd", word=True, short=True),
)
"""Forms that are known by what stands before them. For each anchor, the first that fits counts."""
