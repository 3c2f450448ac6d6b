"""The novelty filter: how much a text resembles the pool by ROUGE-L, with exactly rouge_score's floats.

F = 2PR / (P + R) with P = LCS / len(candidate) and R = LCS / len(reference) over tokens (Lin, 2004; rouge_score's
`_score_lcs` and `fmeasure`). Both originals reject a candidate whose largest F against seeds and accepted is above 0.7.
"""

from selfinstruct.novelty.index import NoveltyIndex as NoveltyIndex
from selfinstruct.novelty.matches import Judged as Judged
from selfinstruct.novelty.matches import Match as Match
from selfinstruct.novelty.matches import Matches as Matches
from selfinstruct.novelty.tokens import UNSPACED as UNSPACED
from selfinstruct.novelty.tokens import Tokenizer as Tokenizer
from selfinstruct.novelty.tokens import rouge_l as rouge_l
from selfinstruct.novelty.tokens import tokenize as tokenize
