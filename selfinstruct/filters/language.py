"""Tasks in another language than the run's."""

from __future__ import annotations

import re
from typing import ClassVar, Literal

from selfinstruct.filters import Case, Filter
from selfinstruct.filters.asked import MAX_CHARACTERS
from selfinstruct.languages import english_share, identify, is_in_script_of, is_written_in, language_name
from selfinstruct.records import Verdict

_MIN_CONFIDENCE = 0.9  # of a language among others of its script; related ones share what is certain of them
_MIN_ENGLISH = 0.15  # share of words that make a text English; "a dish of chili con carne" is Italian with 0.77
_MAX_CAPITALISED = 0.6  # share of words; beyond, they are names, which have no language. (German has about 0.4.)
# A task about languages may well be answered in another one.
_ABOUT_LANGUAGES = re.compile(
    r"translat|locali[sz]|languages?\b|idioms?\b|lyrics|übersetz|sprache|tradu[cisz]|lingu|idioma|перев[её]"
    r"|язык"
    r"|翻[译譯訳]|译成|訳し|[语語文]に|번역|언어|ترجم|لغة|अनुवाद|भाषा|çevir|tłumacz|vertaal|dịch",
    re.I,
)


class Language(Filter):
    """The instruction or an answer is certainly written in another language than the run's.

    Short texts, names, formulas, code and quotations get the benefit of the doubt. An answer in another language is
    fine where the task is about languages, or names that one, or has its input in it. The originals look at nothing but
    an instruction's first character, which in English has to be ASCII ("Ångström units measure what?" is refused).
    """

    kind: Literal["language"] = "language"
    by_instruction: ClassVar[bool] = True

    def judge(self, case: Case) -> Verdict | None:
        """By the instruction, then by each answer."""
        if found := _foreign(case.instruction, case.language):
            return Verdict("language", f"the instruction seems to be in {language_name(found)}")
        for instance in case.instances:
            found = _foreign(instance.output, case.language)
            if found and not _may_be_in(found, f"{case.instruction}\n{instance.input}", instance.input):
                return Verdict("language", f"the answer seems to be in {language_name(found)}")
        return None


def _foreign(text: str, language: str) -> str | None:
    """The language of a text that is certainly in another one than it should be.

    A script in which the language is not written settles it. So do English words, in an English run and in another;
    without any, a text that is not English need not be known for what it is.
    """
    if is_written_in(text, language) is not False:
        return None
    words = text[:MAX_CHARACTERS].split()
    if sum(word[0].isupper() for word in words) > _MAX_CAPITALISED * len(words):
        return None
    found, confidence = identify(text)
    if not is_in_script_of(text, language):
        return found
    english, may_be_english = english_share(text), language.split("-")[0] == "en"
    if english >= _MIN_ENGLISH:
        return None if may_be_english else found
    return found if confidence >= _MIN_CONFIDENCE or (may_be_english and not english) else None


def _may_be_in(language: str, task: str, input: str) -> bool:
    """Whether a task may be answered in a language that is not the run's."""
    named = language_name(language).casefold() in task.casefold()
    return named or bool(_ABOUT_LANGUAGES.search(task)) or is_written_in(input, language) is True
