"""What is asked of the scanner and what it answers: frozen values, nothing of presidio.

What can be asked for stands in :data:`ENTITIES`; a name that is not there is refused when it is written, not ignored when
a text comes."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple

from douane.detect.custom import Custom

__all__ = ["BY_MODEL", "DEFAULT_ENTITIES", "ENTITIES", "PHONE_REGIONS", "PRIORITY", "Model", "ScanFailedError", "Span",
           "Wanted", "priority"]

ENTITIES = MappingProxyType({
    "EMAIL_ADDRESS": "EmailRecognizer",
    "IBAN_CODE": "IbanRecognizer",
    "CREDIT_CARD": "CreditCardRecognizer",
    "CRYPTO": "CryptoRecognizer",
    "US_SSN": "UsSsnRecognizer",
    "IT_FISCAL_CODE": "ItFiscalCodeRecognizer",
    "FI_PERSONAL_IDENTITY_CODE": "FiPersonalIdentityCodeRecognizer",
    "ES_NIE": "EsNieRecognizer",
    "ES_NIF": "EsNifRecognizer",
    "KR_RRN": "KrRrnRecognizer",
    "PL_PESEL": "PlPeselRecognizer",
    "TH_TNIN": "ThTninRecognizer",
    "IN_AADHAAR": "InAadhaarRecognizer",
    "UK_NHS": "NhsRecognizer",
    "AU_MEDICARE": "AuMedicareRecognizer",
    "AU_TFN": "AuTfnRecognizer",
    "AU_ABN": "AuAbnRecognizer",
    "AU_ACN": "AuAcnRecognizer",
    "NG_NIN": "NgNinRecognizer",
    "IT_VAT_CODE": "ItVatCodeRecognizer",
    "US_ITIN": "UsItinRecognizer",
    "UK_NINO": "UkNinoRecognizer",
    "SG_NRIC_FIN": "SgFinRecognizer",
    "MEDICAL_LICENSE": "MedicalLicenseRecognizer",
    "US_NPI": "UsNpiRecognizer",
    "ABA_ROUTING_NUMBER": "AbaRoutingRecognizer",
    "US_MBI": "UsMbiRecognizer",
    "IN_GSTIN": "InGstinRecognizer",
    "IN_PAN": "InPanRecognizer",
    "IN_VOTER": "InVoterRecognizer",
    "KR_FRN": "KrFrnRecognizer",
    "KR_BRN": "KrBrnRecognizer",
    "SG_UEN": "SgUenRecognizer",
    "IP_ADDRESS": "IpRecognizer",
    "MAC_ADDRESS": "MacAddressRecognizer",
    "PHONE_NUMBER": "PhoneRecognizer",
    "US_PASSPORT": "UsPassportRecognizer",
    "US_BANK_NUMBER": "UsBankRecognizer",
    "US_DRIVER_LICENSE": "UsLicenseRecognizer",
    "UK_PASSPORT": "UkPassportRecognizer",
    "IN_PASSPORT": "InPassportRecognizer",
    "IN_VEHICLE_REGISTRATION": "InVehicleRegistrationRecognizer",
    "IT_DRIVER_LICENSE": "ItDriverLicenseRecognizer",
    "IT_IDENTITY_CARD": "ItIdentityCardRecognizer",
    "IT_PASSPORT": "ItPassportRecognizer",
    "KR_DRIVER_LICENSE": "KrDriverLicenseRecognizer",
    "KR_PASSPORT": "KrPassportRecognizer",
    "NG_VEHICLE_REGISTRATION": "NgVehicleRegistrationRecognizer",
    "UK_VEHICLE_REGISTRATION": "UkVehicleRegistrationRecognizer",
    "UK_POSTCODE": "UkPostcodeRecognizer",
    "URL": "UrlRecognizer",
    "DATE_TIME": "DateRecognizer",
    "PERSON": "",
    "LOCATION": "",
    "ORGANIZATION": "",
    "NRP": "",
})
"""Entity → the class of ``presidio_analyzer.predefined_recognizers`` that finds it; PERSON is found by list, by rule
(``names.py``) or by a language model, the last three by a model alone. Their order is their priority where two overlap: what is
surest and most telling first."""

BY_MODEL = ("PERSON", "LOCATION", "ORGANIZATION", "NRP")
"""What a language model may be asked for. NRP: nationality, religion, politics."""

PRIORITY = MappingProxyType({name: rank for rank, name in enumerate(ENTITIES)})


def priority(kind: str) -> int:
    """What operators describe themselves goes before all else."""
    return PRIORITY.get(kind, -1)


PHONE_REGIONS = ("US", "GB", "DE", "FR", "IL", "IN", "BR")
"""Whose numbers are read as they are written at home; with ``+`` and a country code any is. Presidio's own list (in which two
are misspelt), without Canada: its numbers are read by the rules of the US."""

DEFAULT_ENTITIES = (
    "EMAIL_ADDRESS", "PHONE_NUMBER", "CREDIT_CARD", "IBAN_CODE", "CRYPTO", "IP_ADDRESS", "PERSON", "US_SSN", "IT_FISCAL_CODE",
    "FI_PERSONAL_IDENTITY_CODE", "ES_NIE", "ES_NIF", "KR_RRN", "PL_PESEL", "TH_TNIN", "IN_AADHAAR", "UK_NHS")

_MOST_NAMES = 1000


class ScanFailedError(Exception):
    """A text could not be scanned to its end: a detector ran out of time, failed or died. The caller denies. The message
    names no part of the text."""


class Span(NamedTuple):
    """*type* stands at ``text[start:end]`` (characters); *score* from 0 to 1, as presidio gives it."""

    type: str
    start: int
    end: int
    score: float


@dataclass(frozen=True, slots=True)
class Model:
    """A language model that was found and tried (``models.py``)."""

    name: str
    """A folder's path, or the name of an installed spaCy package."""
    entities: tuple[str, ...]
    seconds: float
    """What it may take for one call."""
    stamp: str = ""
    """Of its files: other files are another model."""
    transformers: str = ""
    """Folder of a transformers model that finds in place of spaCy's, or nothing."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to look for. Raises ValueError for a name, threshold or list that cannot be meant."""

    entities: tuple[str, ...] = DEFAULT_ENTITIES
    threshold: float = 0.4
    """Findings below it are dropped. 0.4 is a number that only has the shape; 1.0 one whose checksum holds."""
    names: tuple[str, ...] = ()
    """People to find as PERSON: whole words, whatever their case."""
    by_rule: bool = True
    """Find people's names by lists and a rule, where PERSON is wanted."""
    model: Model | None = None
    thresholds: tuple[tuple[str, float], ...] = ()
    """Of single types, in place of *threshold*."""
    custom: tuple[Custom, ...] = ()
    """Types of the operator's own."""
    phone_regions: tuple[str, ...] = PHONE_REGIONS

    def __post_init__(self) -> None:
        for name in self.entities:
            if name not in ENTITIES:
                raise ValueError(f"entities: {name} is not known; allowed: {', '.join(sorted(ENTITIES))}")
        for one in (self.threshold, *(one for _, one in self.thresholds)):
            if not 0 <= one <= 1:
                raise ValueError(f"threshold: {one} is not between 0 and 1")
        if len(self.names) > _MOST_NAMES or not all(name.strip() for name in self.names):
            raise ValueError(f"names: at most {_MOST_NAMES}, none empty")

    def threshold_of(self, kind: str) -> float:
        return dict(self.thresholds).get(kind, self.threshold)

    @classmethod
    def read(cls, told: Mapping[str, Any]) -> "Wanted":
        """What ``dataclasses.asdict`` and JSON have made of one."""
        def plain(value: Any) -> Any:
            return tuple(map(plain, value)) if isinstance(value, list) else value

        given = {name: plain(value) for name, value in told.items()}
        model = told["model"]
        given["model"] = None if model is None else Model(**{name: plain(value) for name, value in model.items()})
        given["custom"] = tuple(Custom(**{name: plain(value) for name, value in one.items()}) for one in told["custom"])
        return cls(**given)
