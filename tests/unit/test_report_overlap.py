from hypothesis import given
from hypothesis import strategies as st
from rapidfuzz.distance import LCSseq

from selfinstruct.novelty import tokenize
from selfinstruct.page.overlap import in_common


def test_words_that_both_have_in_order_are_marked():
    ours, theirs = in_common("Name the largest river, please.", "Name a large river of the North.")
    assert ours == [("Name", True), (" the largest ", False), ("river", True), (", please.", False)]
    assert theirs == [("Name", True), (" a large ", False), ("river", True), (" of the North.", False)]


@given(st.text("ab -\n", max_size=40), st.text("ab -\n", max_size=40))
def test_nothing_is_lost_and_the_most_is_marked(a, b):
    marked = []
    for text, pieces in zip((a, b), in_common(a, b), strict=True):
        assert "".join(piece for piece, _ in pieces) == text
        marked.append([piece for piece, is_common in pieces if is_common])
    assert marked[0] == marked[1]
    assert len(marked[0]) == LCSseq.similarity(tokenize(a, "rouge"), tokenize(b, "rouge"))
