"""Answers that refuse, or that speak of being a language model, instead of answering."""

from __future__ import annotations

import re
from typing import Literal

from selfinstruct.filters import Case, Filter
from selfinstruct.filters.asked import CODE, MAX_CHARACTERS, QUOTED, lines, straight, words
from selfinstruct.records import Verdict

# Each line a pattern; the languages are English, Chinese, German, French, Spanish, Russian, Japanese, Portuguese,
# Italian, Korean and Arabic. All are looked for in every run, since models refuse in English anywhere.
# "As an AI language model, I ...", wherever it stands: who answers is no part of an answer.
_AS_A_MODEL = lines(r"""
    \bas an? (?:\w+ ){0,3}?(?:language model|chat ?bot|ai)(?: \w+){0,2}\b[^.!?\n]{0,40}?\bi\b
    \bi(?:'m| am)(?: just| only)? an? (?:\w+ ){0,3}?(?:language model|chat ?bot|ai)(?: \w+)?\b
        [^.!?\n]{0,40}?\b(?:and|so|but|i)\b
    \bmy (?:training data|knowledge cut-?off)\b
    (?:作为|作為|身為)(?:一个|一個|一名|一款)?(?:大型|人工智能|人工智慧|AI)*
        (?:语言模型|語言模型|助手|模型|AI|人工智能|人工智慧)
    \bals (?:\w+ ){0,2}?(?:ki|ai|\w*sprachmodell|\w*assistent|künstliche intelligenz)(?:-\w+)?\b[^.!?\n]{0,20}?\bich\b
    \ben tant qu(?:e |')(?:une? )?(?:\w+ )?(?:modèle|assistante?|ia|intelligence artificielle)\b
    \bcomo (?:una? )?(?:modelo de lenguaje|asistente virtual|ia|inteligencia artificial)\b[^.!?\n]{0,20}?,? no\b
    \b(?:как|будучи|являясь) (?:\w+ )?(?:языков\w+ модел\w+|ии|искусственн\w+ интеллект\w*)\b
    (?:AI|言語モデル|人工知能)(?:アシスタント)?として[、は]
    \bcomo (?:uma? )?(?:modelo de linguagem|assistente virtual|ia|inteligência artificial)\b[^.!?\n]{0,20}?,? não\b
    \bin quanto (?:\w+ )?(?:modello|assistente|ia|intelligenza artificiale)\b
    (?:AI|인공지능|언어 ?모델)(?:로서| 언어 ?모델로서| 어시스턴트로서)
    (?:كنموذج لغ|بصفتي (?:نموذج|مساعد)|باعتباري نموذج)
""")
_SORRY = lines(r"""
    (?:(?:i'm|i am|we're) )?(?:(?:very|really|so|truly) )?sorry
    unfortunately
    i apologi[sz]e
    my apologies
    i regret
    (?:很|非常)?抱歉
    对不起
    對不起
    (?:es )?tut mir (?:sehr )?leid
    entschuldigung
    leider
    (?:(?:je suis|nous sommes) )?(?:vraiment )?désolée?s?
    malheureusement
    lo siento
    lamento
    lamentablemente
    disculpa
    извините
    простите
    к сожалению
    мне жаль
    desculpe
    sinto muito
    infelizmente
    mi dispiace
    purtroppo
    죄송(?:합니다|하지만)
    عذرا
    آسف
    أعتذر
""") + rf"[,，.。!、، ]{{0,2}}{words('but that 但是 但 aber mais pero mas ma но')}? ?"  # fmt: skip
_DO = words(
    "provide assist help answer complete fulfil?l generate create access comply give offer determine perform process"
    " share respond summari[sz]e translate retrieve display see view browse find identify write engage discuss"
    " estimate read tell"
)
_TEXT = rf"{words('text input image article passage document data list sentence context information')}\w*"
# How a refusal begins, after an apology or without.
_REFUSES = lines(rf"""
    i (?:can't|cannot|can not|couldn't|could not|won't|am (?:not able|unable) to|am not capable of) {_DO}\b
    i'm (?:not able|unable) to {_DO}\b
    i (?:do not|don't) (?:possess|have {words("access enough sufficient the_ability personal real-time")})
    i need (?:more|additional|further) (?:information|context|details)
    (?:it is|it's) not (?:possible|appropriate) for me to
    (?:there (?:is|was|are|were) )?no {_TEXT}(?: was| is| has been| were)? (?:provided|given|attached|supplied)
    (?:please|(?:could|can) you(?: please)?) (?:provide|share|supply|specify)
        [ ](?:the|a|an|more|your|some|additional)\b
    you (?:did not|didn't|haven't|have not|need to) (?:provide|specif|includ|suppl)\w*
    (?:作为.{{1,10}})?我?(?:目前|暂时|暫時)?(?:无法|無法|不能)(?:为您|帮您|直接)?
        {words("提供 回答 完成 帮助 協助 访问 生成 满足 执行 查看")}
    (?:ich )?(?:kann|darf|bin)(?: ich)?(?: \w+){{0,6}}? (?:nicht|keine?n?|leider)\b
    je ne (?:peux|suis|dispose|puis)(?: \w+)? pas\b(?: (?:en mesure|capable))?(?: de)? ?(?:\w+ )?
        {words("fournir répondre aider accéder générer faire")}
    no (?:puedo|me es posible|tengo acceso)(?: \w+)? ?
        {words("proporcionar ayudar ayudarte responder acceder cumplir generar realizar a")}\b
    я не (?:могу|имею)(?: \w+)? {words("предоставить помочь ответить выполнить доступа возможности создать")}
    (?:申し訳(?:ありません|ございません)|すみません)[^。\n]{{0,40}}?
        {words("できません できかねます わかりかねます 持っていません")}
    (?:eu )?não (?:posso|consigo|tenho acesso)(?: \w+)? ?
        {words("fornecer ajudar responder acessar cumprir gerar a")}\b
    non (?:posso|sono in grado di|ho accesso)(?: \w+)? ?
        {words("fornire aiutare aiutarti rispondere accedere generare a")}\b
    [^.\n]{{0,30}}?{words("제공할 도와드릴 답변할 답변드릴 수행할 생성할")} 수 없습니다
    (?:لكن )?(?:لا أستطيع|لا يمكنني) (?:تقديم|مساعد|الإجابة|توفير)
""")
_COMPLAINS = rf"(?:you|the {_TEXT}|this|that|there)\b(?=[^.!?\n]{{0,60}}(?:n't|not|no|need|insufficient|missing)\b)"
_GREETING = r"[\s\"'*]{0,9}(?:(?:sure|certainly|hello|hi|hey|well|oh|ok(?:ay)?|thank(?:s| you)[^.!\n]{0,60})[,.!:]? ?)?"
_BOILERPLATE = re.compile(_AS_A_MODEL, re.I)
_REFUSAL = re.compile(rf"{_GREETING}(?P<what>(?:{_SORRY})?{_REFUSES}|{_SORRY}{_COMPLAINS})", re.I)
# Where a refusal, or a word on language models, may be what was asked for.
_MAY_REFUSE = re.compile(
    lines(r"""
        refus|declin|reject|apolog|sorry|excuse|polite|unable|cannot|can't|rewrite|rephrase|paraphrase|translat|correct
        (?:turn(?:s|ed|ing)? down|say(?:s|ing)? no)\b
        \b(?:e-?mail|letter|message|reply|respon[ds]\w*|dialog|dialogue|conversation|chat|note|notice|script)\b
        \b(?:story|scene|role)\b
        拒绝|拒絕|道歉|邮件|信|翻译|回复|断り|詫び|謝|返信|手紙|メール|訳|거절|사과|편지|번역|رفض|اعتذار|رسالة
        ablehn|absag|entschuldig|antwort|mail|brief|übersetz|décli|excus|lettre|courriel|tradu|rechaz|disculp|carta
        correo|отказ|извин|письмо|ответ|перев
    """),
    re.I,
)
_ABOUT_MODELS = re.compile(
    lines(r"""
        \b(?:ai|artificial intelligence|language models?|llms?|chat ?bots?|gpt\S*|machine learning|robots?|ki|ia|ии)\b
        künstliche|intelig|intellig|искусственн|人工智能|人工智慧|语言模型|語言模型|人工知能|言語モデル|인공지능|الذكاء
    """),
    re.I,
)


class Refusal(Filter):
    """The answer refuses ("I'm sorry, but I cannot provide"), asks for the text, or says "as an AI language model".

    Quotations do not count. Nor do refusals where the task may ask for one (a letter, a reply, a dialogue, a rewording,
    an apology), or words on language models where the task is about them.
    """

    kind: Literal["refusal"] = "refusal"

    def judge(self, case: Case) -> Verdict | None:
        """By each answer."""
        for instance in case.instances:
            task = straight(f"{case.instruction}\n{instance.input}"[:MAX_CHARACTERS])
            answer = QUOTED.sub(" … ", CODE.sub(" … ", straight(instance.output[:MAX_CHARACTERS]))).lstrip()
            if not _ABOUT_MODELS.search(task) and (boilerplate := _BOILERPLATE.search(answer)):
                return _verdict(boilerplate[0])
            if not _MAY_REFUSE.search(task) and (refusal := _REFUSAL.match(answer)):
                return _verdict(refusal["what"])
        return None


def _verdict(words: str) -> Verdict:
    return Verdict("refusal", f"'{' '.join(words.split())[:60]}'")
