"""AWS Signature Version 4: a request signed anew with keys that the app never has.

Law 3: what is signed is what is sent, and with nothing that the app signed: its signature, date and token leave. The region
is what the host that is called tells, else the host that the app named, else the policy file. botocore does the
arithmetic; its import takes 0.4 s, so this module is imported only where policy files hold such keys.
https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html
"""

import logging
from dataclasses import dataclass

from botocore.auth import SigV4Auth  # type: ignore[import-untyped]
from botocore.awsrequest import AWSRequest  # type: ignore[import-untyped]
from botocore.credentials import Credentials  # type: ignore[import-untyped]

from douane.call import Headers, Outgoing
from douane.providers.awshosts import scope_of
from douane.secrets import Secret

__all__ = ["AwsKeys"]

logging.getLogger("botocore.auth").setLevel(logging.INFO)  # law 7: at DEBUG it writes tokens and signatures down

_WRITTEN = frozenset({b"authorization", b"x-amz-date", b"date", b"x-amz-content-sha256", b"x-amz-security-token"})


@dataclass(frozen=True, slots=True)
class AwsKeys:
    """A Signer. *region*: for hosts that tell none."""

    access: Secret
    secret: Secret
    token: Secret | None = None
    region: str = ""

    def secrets(self) -> tuple[Secret, ...]:
        return (self.secret,) if self.token is None else (self.secret, self.token)

    def sign(self, request: Outgoing) -> Headers:
        """Signed are method, path, query, body, Host, Content-Type and every ``x-amz-`` header."""
        service, region = scope_of(request.authority)
        if not region:  # it goes by another way to the host that was asked for
            service, region = scope_of(request.asked)
        region = region or self.region
        if not region:
            raise ValueError("the host tells no region, and the credential has none")
        kept = tuple(one for one in request.headers if one[0] not in _WRITTEN)
        signed = AWSRequest(request.method, f"https://{request.authority}{request.path}", data=request.body)
        signed.headers["host"] = request.authority
        for name, value in kept:
            if name == b"content-type" or name.startswith(b"x-amz-"):
                signed.headers[name.decode()] = value.decode("latin-1")
        keys = Credentials(self.access.reveal(), self.secret.reveal(), self.token and self.token.reveal())
        SigV4Auth(keys, service, region).add_auth(signed)
        made = ("Authorization", "X-Amz-Date", "X-Amz-Security-Token")
        return (*kept, *((name.lower().encode(), signed.headers[name].encode()) for name in made if name in signed.headers))
