"""Sets of entities by the rule-book that asks for them. What each does *not* cover stands in docs/detection.md: no set of
patterns makes a text lawful."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal

__all__ = ["PRESETS", "Preset"]

type Preset = Literal["hipaa", "gdpr", "pci"]

_REACH = ("EMAIL_ADDRESS", "PHONE_NUMBER", "IP_ADDRESS", "PERSON")

PRESETS: Mapping[str, tuple[str, ...]] = MappingProxyType({
    "hipaa": (*_REACH, "US_SSN", "US_ITIN", "US_MBI", "US_NPI", "MEDICAL_LICENSE", "ABA_ROUTING_NUMBER", "CREDIT_CARD",
              "IBAN_CODE", "MAC_ADDRESS", "DATE_TIME", "URL"),
    "gdpr": (*_REACH, "MAC_ADDRESS", "CREDIT_CARD", "IBAN_CODE", "CRYPTO", "IT_FISCAL_CODE", "IT_VAT_CODE",
             "FI_PERSONAL_IDENTITY_CODE", "ES_NIE", "ES_NIF", "PL_PESEL", "UK_NHS", "UK_NINO"),
    "pci": ("CREDIT_CARD", "PERSON"),
})
"""None holds a type whose findings all stay below the default threshold: it would only look as if something was looked for."""
