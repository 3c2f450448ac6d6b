import csv
import gzip
import json
import re
from pathlib import Path

import pytest

from selfinstruct.errors import InputError, UsageError
from selfinstruct.files import to_toml
from selfinstruct.labelled_data import Columns, FieldSpec, LabelledRow, read_labelled
from selfinstruct.templating import TemplatesConfig
from selfinstruct.templating.caps import Caps
from selfinstruct.templating.clusters import Pattern, read_cluster, shipped_clusters
from selfinstruct.templating.drafts import Draft, TemplateDrafts
from selfinstruct.templating.held_out import HeldOut

# A few rows of each cluster, with what real data has: line breaks, quotes, braces, short texts, numbers, lists.
ROWS = {
    "inference": [
        {"premise": "Two boys carry a ladder.", "hypothesis": "Nobody carries anything.", "label": "contradiction"},
        {"premise": 'He said: "No."\n\nThen he left.', "hypothesis": "He left.", "label": "entailment"},
        {"premise": "A set {1, 2} is given.", "hypothesis": "It is {label} or {premise}.", "label": "neutral"},
    ],
    "paraphrase": [
        {"sentence1": "The bill was passed.", "sentence2": "They passed the bill.", "label": "equivalent"},
        {"sentence1": "How do I swim?", "sentence2": 'How do I "float"?', "label": "not_equivalent"},
    ],
    "sentiment": [
        {"text": "A slow, grey film with one good scene at the very end.", "label": "negative"},
        {"text": "Lovely.", "label": "positive"},
    ],
    "topic": [
        {"text": "The match ended in a draw after a late goal for the guests.", "label": "Sports"},
        {"text": "Shares fell.\nBonds rose.", "label": "Business"},
        {"text": "A probe {X-1} sent home its first images of the far side of the moon.", "label": "Sci/Tech"},
    ],
    "closed_book_qa": [
        {"question": "Which metal is liquid at the temperature of an ordinary room?", "answer": "mercury"},
        {"question": "Name Kenya's capital.", "answer": ["Nairobi", "Nairobi City"]},
        {"question": "How many legs has a spider?", "answer": 8},
    ],
    "reading_comprehension": [
        {"passage": "The ferry leaves at six.\nIt takes an hour.", "question": "When is it due?", "answer": "at seven"},
        {"passage": "Rain fell on Monday.", "question": "did it rain on monday", "answer": ["yes", "Yes, it did"]},
    ],
    "multiple_choice": [
        {"question": "Which of these can fly?", "choices": ["a stone", "an owl", "a trout"], "answer": "an owl"},
        {"question": "Plants take up water above all through their", "choices": ["roots", "petals"], "answer": "A"},
    ],
    "summarisation": [
        {"text": "The council met at two. By five it had agreed to mend the bridge.", "summary": "Bridge to be mended"},
        {"text": "Ann: Tea?\nBob: Please.", "summary": "Bob would like some tea."},
    ],
    "data_to_text": [
        {"facts": "name[The Mill], food[soup]", "text": "The Mill serves soup."},
        {"facts": [["Oslo", "capital of", "Norway"], ["Oslo", "on", "a fjord"]], "text": "Oslo is where they rule."},
        {"facts": {"ship": "Marigold", "built": 1962}, "text": "They launched her in the early sixties as a trawler."},
        {"facts": [{"team": "Reds", "goals": 2}, {"team": "Blues", "goals": 0}], "text": "The first side won."},
    ],
    "translation": [
        {"source": "Guten Tag.", "target": "Good day.", "source_language": "German", "target_language": "English"},
        {"source": "Il pleut.", "target": "It is raining.", "source_language": "French", "target_language": "English"},
    ],
    "coreference": [
        {
            "text": "The cup would not fit on the shelf because it was too big.", "pronoun": "it",
            "choices": ["the cup", "the shelf"], "answer": "the cup",
        },
        {"text": "Ann thanked Eve because _ had helped.", "pronoun": "_", "choices": ["Ann", "Eve"], "answer": "B"},
    ],
    "reasoning": [
        {
            "question": "Tom has three bags with four nuts each. How many nuts has he?", "answer": "12",
            "rationale": "Each bag holds four nuts. Three times four makes a dozen.",
        },
        {"question": "Would a pear sink in a bowl full of liquid mercury?", "answer": "no"},
    ],
}  # fmt: skip
TOPICS = ["World", "Sports", "Business", "Sci/Tech"]
CLUSTERS = {name: read_cluster(path) for name, path in shipped_clusters().items()}
CASES = [
    pytest.param(name, template.name, id=f"{name}-{template.name}")
    for name, cluster in CLUSTERS.items()
    for template in cluster.templates
]


def config(name, **options):
    options = {"labels": TOPICS} if name == "topic" and not options.get("labels") else {} | options
    return TemplatesConfig(source="in.jsonl", task=name, out=Path("out.jsonl"), templates_per_row=99, **options)


def drafts(name, values, template=None, **options):
    """The drafts of a row in all templates that suit it, or in one."""
    made = TemplateDrafts(CLUSTERS[name], "data", config(name, **options))(LabelledRow(values, "in.jsonl", 1))
    return [draft for draft in made if template in (None, draft.template)]


def template_of(name, template):
    return next(t for t in CLUSTERS[name].templates if t.name == template)


def prompt(draft):
    return f"{draft.instruction}\n\n{draft.input}"


def alternatives(name, row, **options):
    """The row once for every value that its answer could have."""
    cluster = CLUSTERS[name]
    if cluster.target_kind == "choice":
        return [{**row, cluster.target: choice} for choice in row[cluster.choices]]
    classes = options.get("labels") or (TOPICS if name == "topic" else cluster.class_sets[0])
    return [{**row, cluster.target: label} for label in classes]


# -- the shipped templates ---------------------------------------------------------------------------------------------


def test_clusters_have_enough_templates_of_both_directions():
    assert set(CLUSTERS) == set(ROWS)
    for name, cluster in CLUSTERS.items():
        n_reversed = sum(template.reversed for template in cluster.templates)
        assert len(cluster.templates) >= 10, name
        assert max(2, len(cluster.templates) / 5) <= n_reversed <= len(cluster.templates) / 2, name
        assert len({t.instruction for t in cluster.templates}) >= len(cluster.templates) - 1, name
        assert sum(template.is_gradable for template in cluster.templates) >= 7, name
        assert name in TemplatesConfig.model_fields["task"].description


@pytest.mark.parametrize("name", ROWS)
def test_every_row_has_forward_and_reversed_templates(name):
    for row in ROWS[name]:
        made = drafts(name, row)
        forward = [d for d in made if not template_of(name, d.template).reversed]
        assert len(forward) >= 8
        assert len(made) >= 10 or name == "sentiment"  # whose reversed templates need more than a word or two


@pytest.mark.parametrize(("name", "template"), CASES)
def test_template_is_filled(name, template):
    made = [draft for row in ROWS[name] for draft in drafts(name, row, template)]
    assert made
    for draft in made:
        for text in (draft.instruction, draft.input, *draft.references, *draft.options):
            assert text == text.strip()
            for gap in re.findall(r"\{\w+\}", text):
                assert gap in json.dumps(ROWS[name]), "braces come from the data only"
        assert draft.instruction
        assert all(draft.references)


@pytest.mark.parametrize(("name", "template"), CASES)
def test_template_is_written_neatly(name, template):
    t = template_of(name, template)
    for pattern in (t.instruction, t.input, t.output):
        text = pattern.filled(dict.fromkeys(pattern.gaps, "Gap"))
        assert text == text.strip()
        assert not re.search(r"  | \n|\n\n\n|\.\.| [,.;:?!]|\wGap|Gap\w", text.replace("...", "")), text
        assert text.count('"') % 2 == 0
    assert re.match(r"[A-Z\"]", t.instruction.filled(dict.fromkeys(t.instruction.gaps, "Gap")))


@pytest.mark.parametrize(("name", "template"), CASES)
def test_template_says_all_that_is_needed(name, template):
    cluster, t = CLUSTERS[name], template_of(name, template)
    origins = cluster.origins()
    used = {origins[gap] for gap in t.prompt_gaps | t.output.gaps}
    required = {field for field, spec in cluster.fields.items() if not spec.optional}
    # The language that a text is in can be seen; whether a book or a bare quiz asks makes no difference.
    assert required - used <= ({"source_language"} if name == "translation" and not t.reversed else set())


@pytest.mark.parametrize(("name", "template"), CASES)
def test_prompt_does_not_depend_on_the_answer(name, template):
    cluster, t = CLUSTERS[name], template_of(name, template)
    for row in ROWS[name]:
        if cluster.target_kind in ("class", "choice"):
            versions = [drafts(name, version, template) for version in alternatives(name, row)]
            prompts = {prompt(draft) for made in versions for draft in made}
            outputs = {draft.references[0] for made in versions for draft in made}
            if t.reversed:
                assert len(prompts) == len([made for made in versions if made])  # the answer is given in words
                assert len(outputs) <= 1
            else:
                assert len(prompts) == 1
                assert len(outputs) == len(set(drafts(name, row, template)[0].options)) >= 2
        else:
            for draft in drafts(name, row, template):
                for reference in draft.references:
                    assert not re.search(rf"\b{re.escape(reference)}(?!\w)", prompt(draft), re.IGNORECASE)


@pytest.mark.parametrize(("name", "template"), [case for case in CASES if template_of(*case.values).reversed])
def test_reversed_answer_is_in_the_row(name, template):
    for row in ROWS[name]:
        for draft in drafts(name, row, template):
            texts = [value for value in row.values() if isinstance(value, str)]
            is_listing = name == "data_to_text" and not isinstance(row["facts"], str)
            assert draft.references[0] in texts or is_listing
            assert len(draft.references) == 1
            assert draft.options == ()


@pytest.mark.parametrize("name", [name for name, cluster in CLUSTERS.items() if cluster.class_sets])
def test_every_class_has_words_in_at_least_ten_templates(name):
    for classes in CLUSTERS[name].class_sets:
        row = {**ROWS[name][0], "label": classes[-1]}
        made = drafts(name, row, labels=list(classes))
        assert len(made) >= 10
        for draft in made:
            t = template_of(name, draft.template)
            words = t.options(classes)
            assert all(words)
            if not t.reversed:
                assert list(draft.options) == words
                assert draft.references[0] == t.word(classes[-1]) in words
                assert all(word in prompt(draft) for word in words), "the options are named or listed"


def test_options_are_listed_only_where_they_are_not_named():
    row = ROWS["inference"][0]
    (named,) = drafts("inference", row, "does_it_follow")
    assert prompt(named) == (
        "Does the second text follow from the first? Answer yes or no.\n\n"
        "First text: Two boys carry a ladder.\nSecond text: Nobody carries anything."
    )
    (listed,) = drafts("inference", row, "if_true_then_true")
    assert listed.input == (
        "Premise: Two boys carry a ladder.\nHypothesis: Nobody carries anything.\n\n"
        "OPTIONS:\n- yes\n- no\n- it is impossible to tell"
    )
    (without,) = drafts("inference", row, "if_true_then_true", options=False)
    assert listed.input.startswith(without.input)
    assert "OPTIONS" not in without.input
    (in_instruction,) = drafts("sentiment", ROWS["sentiment"][1], "text_then_question")
    assert in_instruction.instruction.endswith("the text above?\n\nOPTIONS:\n- negative\n- positive")
    assert in_instruction.input == ""


def test_data_sets_with_two_classes_get_words_for_two():
    row = {**ROWS["inference"][0], "label": "0"}
    labels = ["1=not_entailment", "0=entailment"]
    (draft,) = drafts("inference", row, "claim_and_source", labels=labels)
    assert draft.input.endswith("OPTIONS:\n- supports it\n- does not support it")
    assert (draft.references, draft.label) == (("supports it",), "entailment")
    assert "can_both_be_true" not in [d.template for d in drafts("inference", row, labels=labels)]
    three = drafts("sentiment", {"text": "It is.", "label": 3}, labels=["1=negative", "3=neutral", "5=positive"])
    assert "Is the sentiment of this text positive, negative or neutral?" in [d.instruction for d in three]


def test_choices_and_letters():
    row = ROWS["multiple_choice"][0]
    (letter,) = drafts("multiple_choice", row, "letter_only")
    assert letter.input == "Which of these can fly?\n\nA. a stone\nB. an owl\nC. a trout"
    assert (letter.references, letter.options, letter.label) == (("B",), ("A", "B", "C"), "B")
    (both,) = drafts("multiple_choice", row, "letter_and_text")
    assert both.references == ("B. an owl",)
    (back,) = drafts("multiple_choice", row, "ask_with_choices")
    assert (back.input, back.references) == (
        "Choices:\n- a stone\n- an owl\n- a trout\n\nRight choice: an owl",
        ("Which of these can fly?",),
    )


def test_templates_with_reasoning_need_it():
    with_it, without_it = (
        {
            d.template
            for d in drafts("reasoning", row)
            if "rationale" in template_of("reasoning", d.template).output.gaps
        }
        for row in ROWS["reasoning"]
    )
    assert with_it == {"step_by_step", "reason_then_conclude", "show_the_work", "explain_the_answer"}
    assert without_it == set()


def test_facts_become_lines():
    inputs = [drafts("data_to_text", row, "put_into_words")[0].input for row in ROWS["data_to_text"]]
    assert inputs == [
        "name[The Mill], food[soup]",
        "Oslo | capital of | Norway\nOslo | on | a fjord",
        "ship: Marigold\nbuilt: 1962",
        "team: Reds, goals: 2\nteam: Blues, goals: 0",
    ]


def test_all_acceptable_answers_are_references_and_the_first_is_learnt():
    (draft,) = drafts("closed_book_qa", ROWS["closed_book_qa"][1], "question_alone")
    assert draft.as_task()["references"] == ["Nairobi", "Nairobi City"]
    assert draft.as_task()["metric"] == "exact_match"
    assert draft.as_instruction()["output"] == "Nairobi"


# -- template files ----------------------------------------------------------------------------------------------------

FILE = {
    "about": "Spam or not.",
    "class_sets": [["spam", "ham"]],
    "fields": {"text": {"about": "A mail."}, "label": {"about": "What it is.", "kind": "class"}},
    "templates": [
        {
            "name": "is_it_spam", "instruction": "Is this spam?", "input": "{text}", "output": "{label}",
            "words": {"spam": "yes", "ham": "no"},
        }
    ],
}  # fmt: skip
QUIZ = {
    "about": "A quiz.",
    "fields": {
        "question": {"about": "It."},
        "choices": {"about": "Them.", "kind": "choices"},
        "answer": {"about": "The right one.", "kind": "choice"},
    },
    "templates": [{"name": "quiz", "instruction": "{question}\n{choices}", "output": "{answer}"}],
}


def written(tmp_path, file, **changes):
    path = tmp_path / "spam.toml"
    template = {**file["templates"][0], **changes}
    path.write_text(to_toml({**file, "templates": [template]}))
    return path


def test_own_template_file(tmp_path):
    cluster = read_cluster(written(tmp_path, FILE, instruction="Is this spam, in {{braces}}?"))
    assert (cluster.name, cluster.target, cluster.class_sets) == ("spam", "label", (("spam", "ham"),))
    made = TemplateDrafts(cluster, "mails", config("spam"))
    (draft,) = made(LabelledRow({"text": "Buy {label}!", "label": "spam"}, "m.jsonl", 1))
    assert prompt(draft) == "Is this spam, in {braces}?\n\nBuy {label}!\n\nOPTIONS:\n- yes\n- no"
    assert draft.references == ("yes",)
    assert read_cluster(written(tmp_path, QUIZ)).choices == "choices"


@pytest.mark.parametrize(
    ("file", "changes", "message"),
    [
        (FILE, {"input": "{txt}"}, "templates.is_it_spam': '{txt}' is none of its fields: text, label"),
        (FILE, {"input": "{text!r}"}, "is_it_spam.input': '{text}' is not the plain name of a field. Write {{ and }}"),
        (FILE, {"input": "{text:>9}"}, "is not the plain name"),
        (FILE, {"input": "{text.real}"}, "is not the plain name"),
        (FILE, {"input": "{}"}, "is not the plain name"),
        (FILE, {"input": "{text"}, "is_it_spam.input': expected '}'"),
        (FILE, {"input": "text}"}, "is_it_spam.input': Single '}'"),
        (FILE, {"input": "{text} {label}"}, "gives the 'label' that it asks for"),
        (FILE, {"output": "spam"}, "asks for no field"),
        (FILE, {"output": "{options}"}, "asks for no field"),
        (FILE, {"reversed": True}, "must be reversed exactly if it does not ask for 'label'"),
        (FILE, {"input": "It is {label}.", "output": "{text}"}, "must be reversed exactly if"),
        (FILE, {"words": {"spam": "yes"}}, "needs a word for every class"),
        (FILE, {"words": {}}, "needs a word for every class"),
        (FILE, {"words": {"spam": "yes", "ham": "yes"}}, "at least two different ones"),
        (FILE, {"words": {"spam": "yes", "ham": "no", "eggs": "no"}}, "has words for what is no class"),
        (FILE, {"words": {"spam": "yes", "ham": ""}}, "at least 1 character"),
        (FILE, {"name": "Is it?"}, "templates.0.name"),
        (FILE, {"hint": "x"}, "is not a known field"),
        (QUIZ, {"instruction": "{question}"}, "must show {choices} or {lettered}"),
        (QUIZ, {"output": "{letter}"}, "must show {lettered}"),
    ],
)
def test_wrong_template(tmp_path, file, changes, message):
    path = written(tmp_path, file, **changes)
    with pytest.raises(InputError, match=re.escape(message)) as raised:
        read_cluster(path)
    assert str(raised.value).startswith(f"{path}: field 'templates.")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"more": {"about": "x", "kind": "answer"}}, "may hold one class, one answer, or one choice"),
        ({"more": {"about": "x", "kind": "choices"}}, "may hold one class, one answer, or one choice"),
        ({"more": {"about": "x", "once_in": "label"}}, "fields.more': once_in is for texts that no row lacks"),
        ({"more": {"about": "x", "kind": "number"}}, "fields.more.kind"),
    ],
)
def test_wrong_fields(tmp_path, fields, message):
    with pytest.raises(InputError, match=re.escape(message)):
        read_cluster(written(tmp_path, {**FILE, "fields": {**FILE["fields"], **fields}}))


def test_template_names_are_unique(tmp_path):
    path = tmp_path / "spam.toml"
    path.write_text(to_toml({**FILE, "templates": FILE["templates"] * 2}))
    with pytest.raises(InputError, match=r"templates\.is_it_spam': is a name used twice"):
        read_cluster(path)


def test_pattern_takes_values_as_they_are():
    pattern = Pattern.parse("{a} and {{a}} and {b}")
    assert pattern.gaps == {"a", "b"}
    assert pattern.filled({"a": "{b}", "b": "{a} {{}} }"}) == "{b} and {a} and {a} {{}} }"


# -- finding the fields ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("a", 1),
        ("b.c", 2),
        ("d.e", [3, 4]),
        ("a,b.c", [1, 2]),
        ("f.g", 5),
        ("h,i", 6),
        ("x", None),
        ("a.x", None),
        ("b.x.y", None),
    ],
)
def test_column(path, value):
    values = {"a": 1, "b": {"c": 2}, "d": [{"e": 3}, {"e": 4}], "f.g": 5, "h,i": 6}
    assert LabelledRow(values, "in.jsonl", 1).column(path) == value


def test_openings_leave_as_much_untold():
    fields = {"text": FieldSpec(about="x")}
    texts = ["one two  three\nfour five six seven eight", "one two three four five six seven"]
    cases = [Columns({}, {}, {}).case(LabelledRow({"text": text}, "x", 1), fields, ()) for text in texts]
    assert [case.texts.get("text_opening") for case in cases] == ["one two  three\nfour", None]


@pytest.mark.parametrize(
    ("name", "changes", "options", "message"),
    [
        ("inference", {"premise": None}, {}, "in.jsonl:1: field 'premise': has no value in column 'premise'. Name the"),
        ("inference", {"premise": "  "}, {}, "has no value in column 'premise'"),
        ("inference", {}, {"map": ["premise=text"]}, "--map premise=COLUMN; the row has premise, hypothesis, label"),
        ("inference", {"premise": ["a"]}, {}, "field 'premise': must be text, not ['a']"),
        ("inference", {"premise": True}, {}, "field 'premise': must be text, not True"),
        ("inference", {"label": "unsure"}, {}, "'label': 'unsure' is none of entailment, neutral, contradiction. Name"),
        ("inference", {"label": 2}, {"labels": ["0=entailment", "1=neutral"]}, "'2' is none of entailment, neutral"),
        ("inference", {"label": True}, {}, "is true. Say what that stands for: --labels true=yes"),
        ("inference", {"label": ["neutral", "entailment"]}, {}, "must be one label, not 2"),
        ("inference", {"label": "not_entailment"}, {}, "is none of"),
        ("multiple_choice", {"answer": "a bat"}, {}, "'a bat' is neither a choice nor the letter of one. Say which"),
        ("multiple_choice", {"answer": "D"}, {}, "'D' is neither a choice nor the letter"),
        ("multiple_choice", {"answer": 1}, {}, "'1' is neither a choice nor the letter"),
        ("multiple_choice", {"answer": "A", "choices": ["B", "A"]}, {}, "'A' is a choice and the letter of another"),
        ("multiple_choice", {"choices": "an owl"}, {}, "must be a list of 2 to 26 different texts"),
        ("multiple_choice", {"choices": ["x", "x"]}, {}, "must be a list of 2 to 26 different texts"),
        ("multiple_choice", {"choices": ["x", None]}, {}, "has no value in column 'choices'"),
        ("coreference", {"pronoun": "fit on it"}, {}, "stands 0 times in 'text' and not once"),
        ("closed_book_qa", {"answer": []}, {}, "has no value in column 'answer'"),
        ("data_to_text", {"facts": [True]}, {}, "must be text, not True"),
    ],
)
def test_wrong_rows(name, changes, options, message):
    values = {**ROWS[name][0], **changes}
    with pytest.raises(InputError, match=re.escape(message)) as raised:
        drafts(name, values, **options)
    assert str(raised.value).startswith("in.jsonl:1: field ")


def test_a_pronoun_that_stands_twice_has_to_be_marked():
    row = {**ROWS["coreference"][0], "text": "It fell, and when it fell, it broke."}
    with pytest.raises(InputError, match=r"'it' stands 2 times .* such as \[it\]"):
        drafts("coreference", row)
    assert drafts("coreference", {**row, "text": row["text"].replace("it b", "[it] b"), "pronoun": "[it]"})


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("inference", {"map": ["premis=a"]}, "--map: there is no field 'premis'; the fields are premise, hypothesis"),
        ("inference", {"map": ["premise"]}, "--map 'premise' must be NAME=VALUE"),
        ("inference", {"map": ["premise="]}, "must be NAME=VALUE"),
        ("inference", {"map": ["premise=a", "premise=b"]}, "--map: 'premise' is given twice"),
        ("inference", {"constant": ["x=a"]}, "--constant: there is no field 'x'"),
        ("inference", {"labels": ["0=entailment"]}, "--labels: name the classes of the data, as in --labels 0=entail"),
        ("inference", {"labels": ["0=yes", "1=no"]}, "--labels: yes, no are no classes of inference, which are entail"),
        ("inference", {"labels": ["0=neutral", "1=not_entailment"]}, "are no classes of inference"),
        ("summarisation", {"labels": ["0=a"]}, "--labels: there are none in summarisation"),
        ("inference", {"only": ["x"]}, "--only: there is no template 'x'; the templates are does_it_follow, "),
        ("inference", {"only": ["write_the_premise"], "reversed": False}, "no template is left"),
        ("inference", {"only": ["write_the_premise"], "format": "tasks"}, "no template is left"),
    ],
)
def test_wrong_options(name, options, message):
    with pytest.raises(UsageError, match=re.escape(message)):
        drafts(name, ROWS[name][0], **options)


def test_topics_have_to_be_named():
    unnamed = TemplatesConfig(source="x", task="topic", out=Path("y"))
    with pytest.raises(UsageError, match="name the classes of the data, as in --labels 0=sport --labels 1=politics"):
        TemplateDrafts(CLUSTERS["topic"], "data", unnamed)


def test_labels_map_many_to_one_and_to_nothing():
    labels = ["1=negative", "2=negative", "4=positive", "true=positive", "3="]
    for value, label in [(1, "negative"), ("2", "negative"), (4, "positive"), (True, "positive")]:
        assert drafts("sentiment", {"text": "Well.", "label": value}, labels=labels)[0].label == label
    assert drafts("sentiment", {"text": "Well.", "label": 3}, labels=labels) == []
    row = {**ROWS["reading_comprehension"][1], "answer": True}
    (draft,) = drafts("reading_comprehension", row, "read_and_answer", labels=["true=yes"])
    assert draft.references == ("yes",)


# -- reading -----------------------------------------------------------------------------------------------------------


def rows_of(path):
    return [(row.line, dict(row.values)) for row in read_labelled(str(path))]


def test_text_tables(tmp_path):
    path = tmp_path / "in.csv"
    path.write_bytes(b'\xef\xbb\xbfa,b\n1,"x, ""y""\nz"\n\n2,\xc3\xa9\n')
    assert rows_of(path) == [(2, {"a": "1", "b": 'x, "y"\nz'}), (5, {"a": "2", "b": "é"})]
    with gzip.open(tmp_path / "in.csv.gz", "wb") as file:
        file.write(path.read_bytes())
    assert rows_of(tmp_path / "in.csv.gz") == rows_of(path)
    (tmp_path / "in.tsv").write_text('a\tb\n"1\tx "y"\n')
    assert rows_of(tmp_path / "in.tsv") == [(2, {"a": '"1', "b": 'x "y"'})]
    long = tmp_path / "long.csv"
    long.write_text(f"a\n{'x' * (csv.field_size_limit(131072) and 200_000)}\n")
    assert len(rows_of(long)[0][1]["a"]) == 200_000


def test_data_can_be_read_again(tmp_path):
    path = tmp_path / "mrpc.train.jsonl"
    path.write_text('{"a": 1}\n\n{"a": 2}\n')
    data = read_labelled(str(path))
    assert (data.name, data.n_rows) == ("mrpc", 2)
    assert [row.values for row in data] == [row.values for row in data] == [{"a": 1}, {"a": 2}]


def test_parquet(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [{"question": "Q?", "choices": {"text": ["x", "y"], "label": ["A", "B"]}}] * 3
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "arc.parquet", row_group_size=2)
    with gzip.open(tmp_path / "arc.parquet.gz", "wb") as file:
        file.write((tmp_path / "arc.parquet").read_bytes())
    for name in ("arc.parquet", "arc.parquet.gz"):
        data = read_labelled(str(tmp_path / name))
        assert data.n_rows == 3
        assert [(row.line, row.column("choices.text")) for row in data] == [(n, ["x", "y"]) for n in (1, 2, 3)]


def test_json_lists(tmp_path):
    (tmp_path / "in.json").write_text('[{"a": 1}, {"a": 2}]')
    rows = list(read_labelled(str(tmp_path / "in.json")))
    assert [row.values for row in rows] == [{"a": 1}, {"a": 2}]
    assert [row.place for row in rows] == [f"{tmp_path}/in.json[{n}]" for n in (0, 1)]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("in.jsonl", b"", "holds no row"),
        ("in.jsonl", b"{}\n[1]\n", "in.jsonl:2: must be a JSON object"),
        ("in.jsonl.gz", b"{}", "is a broken gzip file"),
        ("in.csv", b"", "holds no row"),
        ("in.csv", b"a,b\n", "holds no row"),
        ("in.csv", b"a,a\n1,2\n", "in.csv:1: names a column twice"),
        ("in.csv", b"a,b\n1,2\n1\n", "in.csv:3: has 1 cells where the header has 2"),
        ("in.csv", b'a,b\n1,"2\n3,4\n', "in.csv:2: is not valid CSV (unexpected end of data)"),
        ("in.csv", b"a,b\n1,2\n\xff,3\n", "in.csv:3: is not UTF-8 text"),
        ("in.parquet", b"PAR1", "in.parquet: is not Parquet"),
        ("in.txt", b"a", "in.txt: is of no kind that is read"),
        ("in.json", b"[]", "in.json: holds no row"),
        ("in.json", b"{}", "in.json: must be a list of rows"),
        ("in.json", b"[{}, 1]", "in.json[1]: must be a JSON object"),
    ],
)
def test_broken_files(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=re.escape(message)):
        rows_of(tmp_path / name)


@pytest.mark.parametrize("name", ["no.jsonl", "no.csv.gz", "no.parquet", "no"])
def test_missing_files(tmp_path, name):
    with pytest.raises(InputError, match="no such file"):
        read_labelled(str(tmp_path / name))


# -- caps and held-out data --------------------------------------------------------------------------------------------


def draft(template="t", dataset="d"):
    return Draft("0", "c", dataset, template, "i", "", ("o",))


def test_caps_keep_the_smallest_places_of_a_data_set_and_of_a_template():
    places = [(key, number) for number, key in enumerate([5, 3, 9, 3, 1, 7, 2], start=1)]
    made = [draft("t" if number % 2 else "u") for _, number in places]
    caps = Caps(max_rows=4, per_template_max=2)
    assert caps.may_bind(1)
    for place, d in zip(places, made, strict=True):
        caps.add(place, [d])
    kept = [p for p, d in zip(places, made, strict=True) if caps.allow_row(p, d)]
    assert kept == [(3, 2), (3, 4), (1, 5), (2, 7)]  # of equal ones the first
    both = [p for p, d in zip(places, made, strict=True) if caps.allow_row(p, d) and caps.allow_draft(p, d)]
    assert both == kept
    assert [p for p, d in zip(places, made, strict=True) if caps.allow_draft(p, d)] == kept
    assert caps.allow_row((10, 8), draft(dataset="another"))


def test_no_caps():
    caps = Caps(0, None)
    assert not caps.may_bind(10**9)
    assert caps.allow_row((1, 1), draft())
    assert caps.allow_draft((1, 1), draft())
    assert not Caps(5, None).may_bind(5)
    assert Caps(5, None).may_bind(6)


@pytest.mark.parametrize(
    ("cluster", "dataset", "held"),
    [
        ("data_to_text", "e2e", True),
        ("Data-to-Text", "e2e", True),
        ("summarization", "xsum", True),
        ("topic", "glue_mrpc", True),
        ("topic", "glue/mrpc", True),
        ("topic", "ag_news", False),
        ("text", "data", False),
    ],
)
def test_held_out_names(cluster, dataset, held):
    names = frozenset({"data_to_text", "summarisation", "glue_mrpc"})
    assert HeldOut(names, wanted=False).keeps(cluster, dataset) != held
    assert HeldOut(names, wanted=True).keeps(cluster, dataset) == held
    assert HeldOut(frozenset(), wanted=False).keeps(cluster, dataset)
    assert HeldOut(frozenset(), wanted=True).keeps(cluster, dataset)
