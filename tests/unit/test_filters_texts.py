"""Filters of texts: languages, refusals, missing inputs, broken forms, personal data. What each lets through, too."""

from __future__ import annotations

import pytest

from selfinstruct.files import shipped
from selfinstruct.filters.format import Format
from selfinstruct.filters.language import Language
from selfinstruct.filters.missing_input import MissingInput
from selfinstruct.filters.personal_data import PersonalData, luhn
from selfinstruct.filters.refusal import Refusal
from selfinstruct.filters.union import USUAL
from selfinstruct.records import Instance
from selfinstruct.seeds import read_seeds
from tests.judging import case_of, rule_of

GERMAN = "Der Fluss entspringt in den Bergen und mündet nach vielen Kilometern ins Meer."
ENGLISH = "The river rises in the mountains and reaches the sea after many miles."
FRENCH = "Le fleuve prend sa source dans les montagnes et se jette dans la mer."


@pytest.mark.parametrize("seed", read_seeds(shipped("seed_tasks.jsonl")), ids=lambda seed: seed.id)
def test_no_shipped_seed_task_is_objected_to(seed):
    case = case_of(seed.instruction, seed.instances)
    assert [verdict for one in USUAL if (verdict := one.judge(case))] == []


# -- language ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("instruction", "output", "language", "rejected"),
    [
        ("Describe how a river reaches the sea.", ENGLISH, "en", False),
        ("Describe how a river reaches the sea.", GERMAN, "en", True),
        ("Beschreibe bitte, wie ein Fluss ins Meer gelangt.", ENGLISH, "en", True),
        ("Beschreibe bitte, wie ein Fluss ins Meer gelangt.", GERMAN, "de", False),
        ("Beschreibe bitte, wie ein Fluss ins Meer gelangt.", ENGLISH, "de", True),
        ("Décris en une phrase le cours d'un fleuve.", FRENCH, "fr", False),
        ("Décris en une phrase le cours d'un fleuve.", ENGLISH, "fr", True),
        ("请用一句话描述一条河流。", "这条河发源于高山，最后流入大海。", "zh", False),
        ("请用一句话描述一条河流。", ENGLISH, "zh", True),
        ("Describe how a river reaches the sea.", "这条河发源于高山，最后流入大海。", "en", True),
        # Another language is what was asked for.
        ("Translate the sentence: the river reaches the sea.", GERMAN, "en", False),
        ("Say in German how a river reaches the sea.", GERMAN, "en", False),
        ("Übersetze den Satz ins Englische.", ENGLISH, "de", False),
        ("请把这句话翻译成英文。", ENGLISH, "zh", False),
        ("Teach me five polite French phrases.", "Bonjour, merci beaucoup, s'il vous plaît, au revoir.", "en", False),
        # Nothing is certain.
        ("Ångström units measure what?", "Lengths.", "en", False),
        ("Élan is a borrowed word; explain it.", "Vigour and style.", "en", False),
        ("Generate a recipe for a chili con carne dish.", "Brown the meat, then add beans.", "en", False),
        ("Name three painters.", "Leonardo da Vinci, Sandro Botticelli, Caravaggio", "en", False),
        ("Solve the equation.", "x = (-b ± sqrt(b^2 - 4ac)) / 2a", "en", False),
        ("Write a loop.", "```python\nfor i in range(10):\n    print(i)\n```", "en", False),
        ("Name a river.", "Rhein", "en", False),
        ("Who said that?", 'Goethe wrote "Über allen Gipfeln ist Ruh" in 1780 on a wall.', "en", False),
    ],
)
def test_language(instruction, output, language, rejected):
    assert rule_of(Language(), instruction, output, language=language) == ("language" if rejected else None)


# Written when the filter was finished.
FOREIGN = {
    "en": (
        "Traduis ce proverbe et donne un exemple.",
        "Donne trois conseils pour mieux dormir la nuit.",
        "Raconte une histoire courte avec un chien perdu.",
        "Eski bir evin bahçesini kısaca anlat.",
        "Bana iki kolay çorba tarifi ver.",
        "Cuenta una leyenda breve de tu pueblo.",
        "Wie pflanzt man einen Apfelbaum richtig?",
        "Scrivi una lettera a un vecchio amico.",
        "Opowiedz krótko bajkę o lisie i kruku.",
        "Berikan tiga contoh hewan yang hidup di laut.",
        "Расскажи сказку про лису и журавля.",
        "写一个关于狐狸的童话故事。",
        "狐の昔話を一つ書いてください。",
        "여우에 관한 동화를 하나 써 주세요.",
    ),
    "zh": (
        "Tell me a short tale with a fox in it.",
        "Name three lakes of Canada.",
        "Summarize this news report in one sentence.",
        "Donne trois conseils pour mieux dormir la nuit.",
        "Расскажи сказку про лису и журавля.",
        "狐の昔話を一つ書いてください。",
    ),
    "ru": ("Tell me a short tale with a fox in it.", "写一个关于狐狸的童话故事。"),
    "es": ("Tell me a short tale with a fox in it.", "Which of these two metals melts first, and why?"),
}
RIGHT = {
    "en": (
        "Compare ricotta, mozzarella and provolone.",
        "Explain the phrase faux pas.",
        "Rank paella, gazpacho, tortilla by cooking time.",
        "Translate into French: where does the old man live?",
        "Rewrite in formal Japanese: 明日は行けない。",
        "Correct this German sentence: Ich habe gegangen nach Hause gestern.",
        "What does 'chacun voit midi à sa porte' advise?",
        "Convert 3 km into miles.",
        "List five synonyms: brave, timid, calm",
        "Fix the query: SELECT nom, prenom FROM clients WHERE ville = 'Lyon'",
        "Paraphrase Goethe, Schiller and Kleist in plain terms.",
        "Give the plural: datum, medium, bacterium",
    ),
    "zh": (
        "请把下面的句子翻译成中文：The old man lives in a small house by the sea.",
        "修复这段代码：def mean(xs): return sum(xs) / len(x)",
        "Python 里的 list comprehension 是什么意思？",
        "用 Excel 的 VLOOKUP 函数查找价格。",
        "比较 iPhone 和 Samsung Galaxy 的优缺点。",
        "“Practice makes perfect” 这句话是什么意思？",
    ),
    "ru": ("Переведи на русский: The old man lives in a small house by the sea.", "Что такое machine learning?"),
    "es": ("¿Qué significa the show must go on?", "Explica qué es el machine learning."),
}


@pytest.mark.parametrize(("language", "text"), [(code, text) for code, texts in FOREIGN.items() for text in texts])
def test_foreign_instructions(language, text):
    assert rule_of(Language(), text, "42", language=language) == "language"


@pytest.mark.parametrize(("language", "text"), [(code, text) for code, texts in RIGHT.items() for text in texts])
def test_instructions_that_only_speak_of_another_language(language, text):
    assert rule_of(Language(), text, "42", language=language) is None


def test_language_follows_that_of_the_input_and_is_named():
    correct = "Correct the mistakes and keep the rest."
    assert rule_of(Language(), correct, GERMAN, input=GERMAN.replace("den Bergen", "dem Berge")) is None
    assert rule_of(Language(), correct, GERMAN, input=ENGLISH) == "language"
    verdict = Language().judge(case_of(correct, (Instance("", GERMAN),)))
    assert verdict is not None
    assert verdict.detail == "the answer seems to be in German"
    verdict = Language().judge(case_of(GERMAN))
    assert verdict is not None
    assert verdict.detail == "the instruction seems to be in German"


# -- refusals ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "output",
    [
        "As an AI language model, I don't have personal opinions.",
        "Rome is lovely. As an AI, I do not travel, but many people do.",
        "I'm sorry, but I cannot provide medical advice.",
        "I’m sorry, but I can’t help with that.",
        "Sorry, I can't assist with this request.",
        "Unfortunately, I cannot access the internet.",
        "I cannot provide an answer to this question.",
        "I am unable to generate images.",
        "I don't have access to real-time data.",
        "Sure! I'm sorry, but I cannot see the picture.",
        "Please provide the text that you want me to summarize.",
        "Could you please provide more details?",
        "There is no text provided.",
        "I'm sorry, but you need to specify the product.",
        "I am an AI language model and cannot feel anything.",
        "作为一个人工智能语言模型，我没有个人感受。",
        "很抱歉，我无法提供这些信息。",
        "Als KI-Sprachmodell habe ich keine Gefühle.",
        "Es tut mir leid, aber ich kann dir dabei nicht helfen.",
        "En tant que modèle de langage, je n'ai pas d'opinion.",
        "Je suis désolé, mais je ne peux pas répondre à cette question.",
        "Como modelo de lenguaje, no tengo opiniones.",
        "Lo siento, pero no puedo ayudarte con eso.",
        "Как языковая модель, я не имею мнения.",
        "Извините, но я не могу помочь с этим.",
        "AIとして、私には意見がありません。",
        "申し訳ありませんが、その質問にはお答えできません。",
        "Como modelo de linguagem, não tenho opiniões.",
        "Desculpe, mas não posso ajudar com isso.",
        "Mi dispiace, ma non posso aiutarti.",
        "죄송합니다. 해당 정보를 제공할 수 없습니다.",
        "عذرا، لا يمكنني تقديم هذه المعلومات.",
    ],
)
def test_refusals(output):
    assert rule_of(Refusal(), "Name the largest city of the land.", output) == "refusal"


@pytest.mark.parametrize(
    ("instruction", "input", "output"),
    [
        ("Write a letter that declines an invitation.", "", "I'm sorry, but I cannot give the talk in May."),
        ("Answer the customer's complaint by e-mail.", "", "I'm sorry, but I cannot offer a refund."),
        ("Make this friendlier.", "I can't help you.", "I'm sorry, but I can't help you this time."),
        ("Invent an excuse for a late essay.", "", "I'm sorry, but I could not complete it: my cat was ill."),
        ("What is a language model?", "", "As an AI language model, I predict words."),
        ("Label the tone.", "", '"I\'m sorry, but I cannot provide that" is polite.'),
        ("What does the assistant say?", "", "It says “As an AI language model, I have no taste”."),
        ("Name a river of Asia.", "", "Sure! Here is one: the Ob."),
        ("Explain why bees matter.", "", "The importance of bees cannot be overstated."),
        ("Give a tip for shy people.", "", "Sorry is a word that you can use less."),
        ("What is an anaesthetic?", "", "A drug; unable to feel pain, the patient sleeps."),
        ("Why do cats land on their feet?", "", "I can't explain it better than physicists: they twist."),
        ("Sagt man so?", "", "Leider regnet es morgen den ganzen Tag."),
        ("Comment va le climat ?", "", "En tant que pays insulaire, le Japon craint la mer."),
        ("Describe como es la ciudad.", "", "Como ciudad antigua, no tiene metro."),
    ],
)
def test_what_only_sounds_like_a_refusal(instruction, input, output):
    assert rule_of(Refusal(), instruction, output, input) is None


# -- missing inputs ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("instruction", "input", "rejected"),
    [
        ("Summarize the following paragraph.", "", True),
        ("Summarize the following paragraph.", "Bees are in decline.", False),
        ("Summarize the following paragraph: bees are in decline.", "", False),
        ("Summarize the following paragraph.\nBees are in decline.", "", False),
        ("Summarize the following paragraph - bees are in decline.", "", False),
        ('Rewrite the following sentence, "The cat sat."', "", False),
        ("Answer the following question. Who wrote Hamlet?", "", False),
        ("Summarize the following article. Use two sentences. Keep all names.", "", True),
        ("Find the errors in the sentences below.", "", True),
        ("Sort the words given.", "", True),
        ("Use the provided table to find the mean.", "", True),
        ("Translate this sentence.", "", True),
        ("Translate this sentence: it rains.", "", False),
        ("Add the following numbers: 3, 4, 5.", "", False),
        ("Add the following numbers 3, 4 and 5.", "", False),
        ("Write an essay on bees. Begin this essay with a question.", "", False),
        ("Write a function that sorts the given list.", "", False),
        ("Tell a story with the following morals and no names.", "", False),
        ("Name the days that come in the following week.", "", False),
        ("In one sentence, describe what is in this article.", "", True),
        ("In one sentence, describe what is in this article.", "Bees are in decline.", False),
        ("Describe what is in this article: bees are in decline.", "", False),
        ("Describe what happens in this short story.", "", True),
        ("Tell me who is mentioned in this letter.", "", True),
        ("What is the main idea of this paragraph?", "", True),
        ("What is the main idea of the passage?", "", True),
        ("Identify the tone of these two reviews.", "", True),
        ("What does this poem say about death?", "", True),
        ("What do these words have in common?", "", True),
        ("What is your answer to this question?", "", True),
        ("What do these words have in common? Tea, tree, ten.", "", False),
        ("Which verb is in this sentence?", "", True),
        ("Based on this table, which city is the largest?", "", True),
        ("Summarize the article.", "", True),
        ("Translate the text into French.", "", True),
        ("Shorten the passage in two sentences.", "", True),
        ("Bees are in decline. What is the main idea of this paragraph?", "", False),
        ("The cat sat on the mat. Which verb is in this sentence?", "", False),
        ("How many words are in this sentence?", "", False),
        ("What is the moral of the story of the fox and the grapes?", "", False),
        ("Describe what happens in the story of Cinderella.", "", False),
        ("Explain how to cite a source that is mentioned in the text.", "", False),
        ("Write a story about a fox. In this story, the fox is kind.", "", False),
        ("Explain what an author is in the publishing trade.", "", False),
        ("Describe a garden in one paragraph. End this paragraph with a question.", "", False),
        ("What is the point of the article before a noun?", "", False),
        ("Translate the text of the Magna Carta's first clause.", "", False),
        ("Edit the text messages of a novel so that they sound natural; how?", "", False),
        ("Summarize the text.", "[insert article here]", True),
        ("Summarize the text.", "<text>", True),
        ("Summarize the text.", "[Your article]", True),
        ("Summarize the text.", "...", True),
        ("Summarize the text.", "Lorem ipsum dolor sit amet, consectetur", True),
        ("Summarize the text: [insert text here]", "", True),
        ("Paste text here, they said; why?", "Paste your text here", True),
        ("Sort the list.", "[3, 1, 2]", False),
        ("What does this tag do?", "<p>", False),
        ("Fill in the name.", "Dear [Your Name], we thank you.", False),
        ("Name the language.", "(le texte)", False),
        ("What comes next?", "???? is not it", False),
    ],
)
def test_missing_input(instruction, input, rejected):
    assert rule_of(MissingInput(), instruction, input=input) == ("missing_input" if rejected else None)


# -- form --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        ("All is well.", None),
        ("```python\nprint(1)\n```", None),
        ("Use this:\n```python\nprint(1)", "incomplete"),
        ("Rivers rise in the hills (often near glaciers", "incomplete"),
        ("Rivers rise in the hills (often near glaciers).", None),
        ("The interval is [0, 1)", None),
        ("We had a great time :(", None),
        ("1) rise, 2) flow, 3) end", None),
        ("She answered “never again", "incomplete"),
        ("彼は「もう行かない", "incomplete"),
        ("Rivers rise in the hills, cross the plain,", "incomplete"),
        ("Thank you for your visit.\n\nBest regards,", None),
        ("Rivers rise in the hills and reach the", "incomplete"),
        ("Rivers rise in the hills and", "incomplete"),
        ("and", None),
        ("This is the shore that I came from", None),
        ("Oslo", None),
        ("Output: Oslo", "format"),
        ("### Response:\nOslo", "format"),
        ("## Rivers\n\nThey flow.", None),
        ("Oslo\n###", "format"),
        ("Oslo\n##", "format"),
        ("Oslo\n\n## ", "format"),
        ("Oslo ##", "format"),
        ("Oslo. ###\n", "format"),
        ("Oslo.###", "format"),
        ("## Rivers ##", None),
        ("Oslo\n## Rivers ##", None),
        ("Play it in C#", None),
        ("Written as F ##, doubly sharp", None),
        ("```\n######\n# ab #\n######\n```", None),
        ("Oslo\n5. Input:\nBergen", "format"),
        ("Oslo\n5. Input: Bergen", "format"),
        ("Oslo\n**5. Output: Bergen", "format"),
        ("Oslo。\n5. 输入：卑尔根", "format"),
        ("1. Oslo\n2. Bergen\n5. Input: Bergen", "format"),
        ("1. Oslo\n2. Bergen\n3. Input: a town", None),
        ("1. Input: keys are pressed.\n2. Output: letters are shown.", None),
        ("Instruction: name a city", "format"),
        ("Oslo.\n\nTask 5: name a river.", "format"),
        ("Task 1: pack. \nTask 2: leave.", None),
        ("Oslo<|im_end|>", "format"),
        ("Oslo</s>", "format"),
        ("<s>Oslo", None),
        ("[INST] Oslo", "format"),
        ("<think>hmm</think> Oslo", "format"),
        ("Os\x00lo", "format"),
        ("Os\x1b[31mlo", "format"),
        ("caf\N{REPLACEMENT CHARACTER}", "format"),
        ("tabs\tand\nlines\r\nare fine", None),
        ("a \ud800 surrogate", "format"),
        ("Name a city of the north!", "format"),
        ("", None),
    ],
)
def test_format(output, expected):
    assert rule_of(Format(), "Name a city of the North.", output) == expected


@pytest.mark.parametrize(
    ("instruction", "output"),
    [
        ("What does the token <|im_end|> mark?", "<|im_end|> marks the end of a turn."),
        ("Write a function that doubles, with an example.", "Input: 2\nOutput: 4"),
        ("Show a loop.", "```\nprint(4)\n```\nOutput:\n4"),
    ],
)
def test_marks_that_the_task_speaks_of_are_fine(instruction, output):
    assert rule_of(Format(), instruction, output) is None


def test_form_of_instruction_and_input_counts_too():
    assert rule_of(Format(), "Name a city.\n3. Input:", "Oslo.") == "format"
    assert rule_of(Format(), "Name a city.", "Oslo.", input="Norway</s>") == "format"
    verdict = Format().judge(case_of("Name a city.", (Instance("Norway\x07", "Oslo."),)))
    assert verdict is not None
    assert verdict.detail == "input: character U+0007"


@pytest.mark.parametrize(
    ("language", "output", "expected"),
    [
        ("de", "Der Fluss entspringt in den Bergen und", "incomplete"),
        ("en", "They knew that one day they would all die", None),
        ("de", "Der Fluss kommt aus dem Gebirge, und ich frage, warum die", None),
        ("fr", "Le fleuve traverse la plaine et", "incomplete"),
        ("zh", "这条河流过平原和山地以及许多城市，", "incomplete"),
        ("zh", "尊敬的先生，", None),
        ("xx", "nothing is known of this and", None),
    ],
)
def test_last_words_depend_on_the_language(language, output, expected):
    assert rule_of(Format(), "Name a city.", output, language=language) == expected


# -- personal data -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("Write to anna.berg@gmail.com today.", "an e-mail address"),
        ("Write to a_b+c@mail.uni-bonn.de.", "an e-mail address"),
        ("Write to info@example.com or me@example.co.uk.", None),
        ("Write to john@yourcompany.com or x@localhost.", None),
        ("Ask @anna on the site, or see user@host.", None),
        ("r'[\\w.]+@[\\w.]+' finds addresses.", None),
        ("Call (212) 664-7665.", "a telephone number"),
        ("Call 1-800-356-9377 now.", "a telephone number"),
        ("Call 212.664.7665.", "a telephone number"),
        ("Call (212) 555-0147 or 555-0123.", None),
        ("Call 123-456-7890.", None),
        ("Call +44 20 8946 1234.", "a telephone number"),
        ("Call +49 (0)30 901820.", "a telephone number"),
        ("Call +44 20 7946 0958.", None),
        ("Call +44 7700 900123.", None),
        ("x +49 = 50 and y+491234 = 0", None),
        ("It is +30 degrees, +45 more than before.", None),
        ("Pay with 4539 1488 0343 6467.", "a payment card's number"),
        ("Pay with 4539 1488 0343 6468.", None),  # the check digit is wrong
        ("Pay with 4111 1111 1111 1111 or 4242-4242-4242-4242.", None),
        ("ISBN 978-3-16-148410-0 and 9780306406157", None),
        ("Version 10.15.7, on 2024-01-31 at 12:30:45.", None),
        ("3.14159265358979 is pi, 1618033988749894 is not.", None),
        ("192.168.100.200 and 1234567890", None),
        ("In 1914-1918 and 1939-1945, 12-345-6789 pieces.", None),
    ],
)
def test_personal_data(text, kind):
    for instances in ((Instance(text, "Yes."),), (Instance("", text),)):
        verdict = PersonalData().judge(case_of("What is this about?", instances))
        assert (verdict.detail.partition(": ")[2] if verdict else None) == kind


def test_personal_data_are_never_quoted():
    verdict = PersonalData().judge(case_of("Write to anna.berg@gmail.com, please."))
    assert verdict is not None
    assert (verdict.rule, verdict.detail) == ("personal_data", "instruction: an e-mail address")


@pytest.mark.parametrize("digits", ["0", "18", "79927398713", "4539148803436467"])
def test_luhn(digits):
    assert luhn(digits)
    assert not any(luhn(digits[:-1] + str((int(digits[-1]) + n) % 10)) for n in range(1, 10))
