"""Answers and inputs with what may be a real person's address or number."""

from __future__ import annotations

import re
from typing import Literal

from selfinstruct.filters import Case, Filter
from selfinstruct.records import Verdict

_EMAIL = re.compile(r"(?<![\w.+-])[\w.+-]{1,64}@(?P<domain>(?:[\w-]{1,63}\.){1,8}[a-z]{2,24})\b", re.I)
# Domains that nobody has (RFC 2606, RFC 6761), and names that every model makes up.
_NO_DOMAIN = re.compile(
    r"(?:.*\.)?(?:test|invalid|localhost|local|internal|[\w-]*example[\w-]*(?:\.[\w.]+)?"
    r"|(?:your|my)?-?(?:domain|company|website)(?:name)?\.[\w.]+|(?:email|acme|abc|xyz|sample)\.[\w.]+)",
    re.I,
)
# North America: area code and exchange begin with 2 to 9 (NANP). No person has the exchange 555.
_NANP = re.compile(
    r"(?<![\w.+-])(?:\+?1[ .-]?)?(?:\([2-9]\d\d\) ?|[2-9]\d\d[ .-])(?P<exchange>[2-9]\d\d)[ .-]\d{4}(?![\w-]|\.\d)"
)
# E.164: a plus sign, a country code, up to 15 digits in groups.
_INTERNATIONAL = re.compile(
    r"(?<![\w+)\].-])\+(?P<digits>[2-9]\d{0,2}[ -]?(?:\(\d{1,4}\)[ -]?)?(?:\d{1,5}[ -]?){1,5}\d{2,5})(?![\w-]|\.\d)"
)
# Ofcom's numbers for drama, and runs of digits that are obviously made up.
_DRAMA = re.compile(r"44(?:7700900|2079460|1\d{2}4960)\d{3}|.*(?:555|123456|000000|1{5}|987654).*")
_CARD = re.compile(r"(?<![\w.-])(?:\d[ -]?){12,18}\d(?![\w-]|\.\d)")
_TEST_CARDS = re.compile(
    r"4(?:1{15}|2{15}|(?:42){7}4)|4242424242424242|5555555555554444|378282246310005|6011111111111117|(\d)\1+"
)
# Beginnings and lengths by issuer (ISO/IEC 7812): Visa, Mastercard, American Express, Diners, Discover, UnionPay.
_ISSUED = re.compile(
    r"4(?:\d{12}|\d{15}|\d{18})|5[1-5]\d{14}|2(?:22[1-9]|2[3-9]\d|[3-6]\d\d|7[01]\d|720)\d{12}|3[47]\d{13}"
    r"|3(?:0[0-5]|[68]\d)\d{11}|6(?:011|2\d\d|4[4-9]\d|5\d\d)\d{12}"
)


class PersonalData(Filter):
    """An input or answer holds an e-mail address, a telephone number or a payment card's number that may be real.

    Reserved domains (example.com), numbers for fiction (555), test cards, and what only looks alike (dates, versions,
    ISBNs, equations) pass. The detail names the kind, never the value.
    """

    kind: Literal["personal-data"] = "personal-data"

    def judge(self, case: Case) -> Verdict | None:
        """By the instruction and each field of each instance."""
        texts = [("instruction", case.instruction)]
        texts += [pair for i in case.instances for pair in (("input", i.input), ("output", i.output))]
        for field, text in texts:
            if found := _kind_of_data(text):
                return Verdict("personal_data", f"{field}: {found}")
        return None


def _kind_of_data(text: str) -> str | None:
    if any(not _NO_DOMAIN.fullmatch(found["domain"]) for found in _EMAIL.finditer(text)):
        return "an e-mail address"
    if any(found["exchange"] != "555" for found in _NANP.finditer(text)):
        return "a telephone number"
    if any(_may_be_called(re.sub(r"\D", "", found["digits"])) for found in _INTERNATIONAL.finditer(text)):
        return "a telephone number"
    if any(_may_be_charged(re.sub(r"\D", "", found[0])) for found in _CARD.finditer(text)):
        return "a payment card's number"
    return None


def _may_be_called(digits: str) -> bool:
    return 8 <= len(digits) <= 15 and not _DRAMA.fullmatch(digits)


def _may_be_charged(digits: str) -> bool:
    return bool(_ISSUED.fullmatch(digits)) and not _TEST_CARDS.fullmatch(digits) and luhn(digits)


def luhn(digits: str) -> bool:
    """Whether the last digit is the check digit of the others (ISO/IEC 7812-1, annex B)."""
    doubled = [int(d) * (1 + i % 2) for i, d in enumerate(reversed(digits))]
    return sum(d - 9 * (d > 9) for d in doubled) % 10 == 0
