"""Numbers that have the form of somebody's and are nobody's: by what stands around them, or as the number that everybody knows.

Law: only what cannot be a person's is left out. A fraction has no card number behind its ``0.``, an identity number is no part
of a longer number, a UUID holds none, no address has six parts; where it may be either, it is found."""

import ipaddress
import re

__all__ = ["is_network", "is_nobodys_address", "stands_for_nothing"]

_NOBODYS = [ipaddress.ip_network(one) for one in (
    "0.0.0.0/8", "240.0.0.0/4", "192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24", "::/112", "2001:db8::/32")]
"""Nowhere, everybody, those kept for examples."""
_IN_USE = [ipaddress.ip_network(one) for one in ("2000::/3", "fc00::/7", "fe80::/9", "64:ff9b::/32")]
"""What there is of IPv6."""
_PREFIX = re.compile(r"/(\d{1,3})(?![\d.])")
_KNOWN = frozenset({"0123456789", "1234567890", "9876543210", "2147483647", "2147483648", "4294967295", "4294967296"})
"""All digits, and the ends of what 32 bits hold."""
_FRACTION = re.compile(r"(?<![\d.])0\.\Z")
_EXPONENT = re.compile(r"[-+]?\d")
_UUID = re.compile(r"(?<![0-9A-Fa-f])[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}(?![0-9A-Fa-f])")
_UUID_LONG = 36
_PARTS = re.compile(r"\d+(?:\.\d+){5,}")
_PARTS_LONG = 80
"""Characters to both sides in which such a one is looked for."""
_OBJECT = re.compile(r"\d+(?:\.\d+){7,}")
"""The name of an object in ASN.1 and SNMP: a phone number has seven parts at most (``00.33.6.12.34.56.78``)."""
_GOES_ON, _INDEX = re.compile(r"[0-9A-Fa-f]+(?!\w)"), re.compile(r"[\w\])]\[\Z")
"""Presidio's pattern ends behind ``::``, whatever comes."""
_STATE, _ZIP = re.compile(r"(?:^|[^A-Za-z])[A-Z]{2},? {1,3}\Z"), re.compile(r"\d{5}-\d{4}")
_ANCHOR = re.compile(r"#[a-z]{3,20}-\Z")
_RELEASED = re.compile(r"\d{1,2}(?:[.-]\d{1,3})*-20\d\d(-?)(?:0[1-9]|1[0-2])\1(?:0[1-9]|[12]\d|3[01])")
_BACK = 24
"""Characters before a number that say what it is."""


def is_nobodys_address(text: str) -> bool:
    """Whether the IP address *text* is this host itself or one of those that nobody has."""
    address = ipaddress.ip_address(text)
    return address.is_loopback or address.is_multicast or any(
        address in network for network in _NOBODYS if network.version == address.version)


def is_network(text: str, start: int, end: int) -> bool:
    """Whether the address there is a network's (``10.0.0.0/8``)."""
    prefix = _PREFIX.match(text, end)
    if prefix is None:
        return False
    try:
        network = ipaddress.ip_network(f"{text[start:end]}/{prefix[1]}")
    except ValueError:  # an address in that network, or none at all
        return False
    return network.num_addresses > 1


def stands_for_nothing(kind: str, text: str, start: int, end: int) -> bool:
    """Whether what was found as *kind* is a part of something else, or a number that everybody knows."""
    found, before = text[start:end], text[max(0, start - _BACK):start]
    if found.lstrip("(") in _KNOWN:
        return True
    if found.isdecimal() and _FRACTION.search(before) is not None:
        return True
    if "-" in text[max(0, start - 1):end + 1] and any(one.start() <= start and end <= one.end() for one in _UUID.finditer(
            text, max(0, start - _UUID_LONG), end + _UUID_LONG)):
        return True
    match kind:
        case "PL_PESEL":
            return before[-1:].isdecimal() or text[end:end + 1].isdecimal()
        case "ES_NIF":
            return found[-1] in "Ee" and before[-1:] == "." and _EXPONENT.match(text, end) is not None
        case "IP_ADDRESS" if "." in found:
            return any(one.start() <= start and end <= one.end() for one in _PARTS.finditer(
                text, max(0, start - _PARTS_LONG), end + _PARTS_LONG))
        case "IP_ADDRESS":
            return found.endswith("::") and _is_no_prefix(found, before, text[end:end + _BACK])
        case "PHONE_NUMBER":
            return _is_no_phone(found, before)
    return False


def _is_no_prefix(found: str, before: str, behind: str) -> bool:
    """A scope (``B::name``) or a slice (``x[1::2]``), where nobody's addresses begin so."""
    address = ipaddress.ip_address(found)
    return not any(address in network for network in _IN_USE) and (
        _GOES_ON.match(behind) is None or _INDEX.search(before) is not None)


def _is_no_phone(found: str, before: str) -> bool:
    """The ZIP code of an address in the US, a comment on the web, an object's name, a model's version."""
    return (_ANCHOR.search(before) is not None or _OBJECT.fullmatch(found) is not None
            or (_ZIP.fullmatch(found) is not None and _STATE.search(before) is not None)
            or (_RELEASED.fullmatch(found) is not None and _after_a_word(before)))


def _after_a_word(before: str) -> bool:
    """As the version of a model: ``gpt-4.1-2025-04-14``."""
    return before[-1:] == "-" and before[-2:-1].isalpha()
