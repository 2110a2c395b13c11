"""What a host of AWS says: the service that signatures are made for, and the region."""

import re

__all__ = ["scope_of"]

_HOST = re.compile(
    r"(?:[a-z0-9-]+\.)?(?P<service>bedrock(?:-[a-z]+)*|runtime(?:-fips)?\.sagemaker)\.(?P<region>[a-z]{2,5}(?:-[a-z]+)+-\d+)"
    r"(?:\.vpce)?\.(?:amazonaws\.(?:com(?:\.cn)?|eu)|api\.aws)")


def scope_of(host: str) -> tuple[str, str]:
    """(signing name, region) of *host*; the region is empty where it tells none.

    >>> scope_of("bedrock-runtime-fips.us-gov-west-1.amazonaws.com")
    ('bedrock', 'us-gov-west-1')"""
    found = _HOST.fullmatch(host.partition(":")[0])
    if found is None:
        return "bedrock", ""
    service = found["service"]
    if service.endswith("sagemaker"):
        return "sagemaker", found["region"]
    return ("bedrock-mantle" if service == "bedrock-mantle" else "bedrock"), found["region"]
