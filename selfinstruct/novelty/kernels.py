"""The compiled inner loops of the novelty index, over flat arrays. `segments` says how they fit together.

Compiled once for a machine and kept on disk; they release the interpreter's lock, so threads may share a search. In the
innermost ones arrays are indexed and not sliced: a slice counts references, which takes longer than a short loop.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
from numba import njit

FunctionT = TypeVar("FunctionT", bound=Callable[..., Any])

# Rarest terms of a candidate whose records are looked at one by one, as long as they are no more than this in all.
MAX_LISTED = 32
# Order keys of terms that have a bitmap begin here: they count as more frequent than all that are listed.
DENSE = 1 << 20
ONE, ALL = np.uint64(1), ~np.uint64(0)
# Words of a bitmap at most, and where counters lie: plane 0 to 3, what they carry, who has what it needs, then planes
# from 4 on.
WORDS = 1 << 10
P1, P2, P3, CARRY, REACHED = (np.uint64(number * WORDS) for number in range(1, 6))
# Bounds in floats are a little looser than what rounding could do to them; exact floats decide later.
LOOSE = 1 - 1e-12


def _compiled(function: FunctionT) -> FunctionT:
    compiled: FunctionT = njit(nogil=True, cache=True, error_model="numpy")(function)
    return compiled


# -- small ones --------------------------------------------------------------------------------------------------------


@_compiled
def popcount(bits: Any) -> Any:
    """Number of bits set (the usual folding; LLVM makes one instruction of it)."""
    bits = bits - ((bits >> np.uint64(1)) & np.uint64(0x5555555555555555))
    bits = (bits & np.uint64(0x3333333333333333)) + ((bits >> np.uint64(2)) & np.uint64(0x3333333333333333))
    bits = (bits + (bits >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
    return np.int64((bits * np.uint64(0x0101010101010101)) >> np.uint64(56))


@_compiled
def f_measure(lcs: Any, m: Any, n: Any) -> Any:
    """`tokens.rouge_l`, operation for operation."""
    if lcs == 0:
        return 0.0
    precision, recall = lcs / m, lcs / n
    return 2 * precision * recall / (precision + recall)


@_compiled
def required(score: float, m: int, n: int) -> Any:
    """The shortest common subsequence, at least 1, whose float F is no less than a score."""
    lcs = max(np.int64(score * (m + n) * 0.5), 1)
    while lcs > 1 and f_measure(lcs - 1, m, n) >= score:
        lcs -= 1
    while f_measure(lcs, m, n) < score:
        lcs += 1
    return lcs


@_compiled
def _most(m: int, n_common: int, n: int) -> Any:
    """The largest F of m tokens with a record of n, if they have no more than so many in common."""
    return f_measure(min(n_common, n), m, n)


@_compiled
def signature(terms: Any) -> Any:
    """64 bits of a set of terms. Early terms are the frequent ones, and the first 64 have a bit to themselves."""
    bits = np.uint64(0)
    for term in terms:
        if term >= 0:
            bits |= ONE << np.uint64(term & 63)
    return bits


@_compiled
def overlap_bound(bits: Any, m: int, n_bits: int, other: Any, n: int) -> Any:
    """At most so many terms are common to sets of m and n terms with these signatures; n_bits are set in the first."""
    return min(popcount(bits & other) + min(m - n_bits, n - popcount(other)), n)


# -- tokens ------------------------------------------------------------------------------------------------------------


@_compiled
def _term_of(buffer: Any, begin: int, end: int, slots: Any, hashes: Any, letters: Any, starts: Any) -> Any:
    """(number of a string of bytes or -1, its slot in the table, its FNV-1a hash)."""
    hashed = np.uint64(14695981039346656037)
    for at in range(begin, end):
        hashed = (hashed ^ np.uint64(buffer[at])) * np.uint64(1099511628211)
    hashed ^= hashed >> np.uint64(29)
    mask = len(slots) - 1
    slot = np.int64(hashed & np.uint64(mask))
    while slots[slot] >= 0:
        term = slots[slot]
        start = starts[term]
        if hashes[term] == hashed and starts[term + 1] - start == end - begin:
            at = 0
            while at < end - begin and letters[start + at] == buffer[begin + at]:
                at += 1
            if at == end - begin:
                return np.int64(term), slot, hashed
        slot = (slot + 1) & mask
    return np.int64(-1), slot, hashed


@_compiled
def number_tokens(
    buffer: Any, ends: Any, in_token: Any, slots: Any, hashes: Any, letters: Any, starts: Any, n_terms: int,
    grow: bool, tokens: Any, offsets: Any,
) -> int:  # fmt: skip
    """Find the tokens of texts and number them.

    Args:
        buffer, ends: Bytes of all texts, and where each ends.
        in_token: bool[256], whether a byte belongs to a token; 0 never does.
        slots, hashes, letters, starts: See `vocabulary.Vocabulary`; with room for what may come.
        n_terms: Terms in the vocabulary.
        grow: Whether new tokens get a number; else they are -1.
        tokens, offsets: The result, with room for a token every second byte.

    Returns:
        Terms in the vocabulary now.
    """
    n = 0
    at = 0
    for text in range(len(ends)):
        while at < ends[text]:
            if not in_token[buffer[at]]:
                at += 1
                continue
            begin = at
            while at < ends[text] and in_token[buffer[at]]:
                at += 1
            token, slot, hashed = _term_of(buffer, begin, at, slots, hashes, letters, starts)
            if token < 0 and grow:
                token = n_terms
                n_terms = _new_term(buffer, begin, at, slot, hashed, slots, hashes, letters, starts, n_terms)
            tokens[n] = token
            n += 1
        offsets[text + 1] = n
    return n_terms


@_compiled
def number_repeats(
    tokens: Any, offsets: Any, serial: int, seen_in: Any, times: Any,
    slots: Any, hashes: Any, letters: Any, starts: Any, n_terms: int, grow: bool, terms: Any,
) -> int:  # fmt: skip
    """Tell repeated tokens apart: the k-th occurrence of a token in a text, k > 1, is a term of its own.

    Texts are then sets of terms, and the number of terms that two have in common bounds their common subsequence as
    closely as counts of tokens can.

    Args:
        tokens, offsets: Of texts, numbered from `serial` on, a number that no text had before.
        seen_in, times: Per term, the last text that had it and how often.
        slots, hashes, letters, starts, n_terms, grow: As in `number_tokens`.
        terms: The result, as long as the tokens.

    Returns:
        Terms in the vocabulary now.
    """
    repeat = np.zeros(9, np.uint8)  # a zero, as in no token; the token; which time it is
    for text in range(len(offsets) - 1):
        for at in range(offsets[text], offsets[text + 1]):
            token = np.int64(tokens[at])
            terms[at] = token
            if token < 0:
                continue
            if seen_in[token] != serial + text:
                seen_in[token] = serial + text
                times[token] = 1
                continue
            times[token] += 1
            for byte in range(4):
                repeat[1 + byte] = (token >> (8 * byte)) & 255
                repeat[5 + byte] = (np.int64(times[token]) >> (8 * byte)) & 255
            term, slot, hashed = _term_of(repeat, 0, 9, slots, hashes, letters, starts)
            if term < 0 and grow:
                term = n_terms
                n_terms = _new_term(repeat, 0, 9, slot, hashed, slots, hashes, letters, starts, n_terms)
            terms[at] = term
    return n_terms


@_compiled
def _new_term(
    buffer: Any,
    begin: int,
    end: int,
    slot: int,
    hashed: Any,
    slots: Any,
    hashes: Any,
    letters: Any,
    starts: Any,
    n: int,
) -> int:
    slots[slot] = n
    hashes[n] = hashed
    letters[starts[n] : starts[n] + end - begin] = buffer[begin:end]
    starts[n + 1] = starts[n] + end - begin
    return n + 1


@_compiled
def place(slots: Any, hashes: Any, n_terms: int) -> None:
    """Fill an empty, larger table with the terms that there are."""
    mask = len(slots) - 1
    for term in range(n_terms):
        slot = np.int64(hashes[term] & np.uint64(mask))
        while slots[slot] >= 0:
            slot = (slot + 1) & mask
        slots[slot] = term


@_compiled
def gather(values: Any, offsets: Any, order: Any, out: Any, out_offsets: Any) -> None:
    """Copy the ranges of `values` in another order."""
    n = 0
    for i in range(len(order)):
        for at in range(offsets[order[i]], offsets[order[i] + 1]):
            out[n] = values[at]
            n += 1
        out_offsets[i + 1] = n


@_compiled
def signatures(terms: Any, offsets: Any, out: Any) -> None:
    """`signature` of every record."""
    for i in range(len(out)):
        out[i] = signature(terms[offsets[i] : offsets[i + 1]])


# -- longest common subsequence ----------------------------------------------------------------------------------------


@_compiled
def places(candidate: Any, slots: Any, masks: Any) -> None:
    """Where each token of a candidate stands, as bits.

    Args:
        candidate: int32[m], -1 for a token that no record has.
        slots: int32[terms], zero before: the row of each token in `masks`.
        masks: uint64[m + 1 or more, words of m bits]; row 0, for all other tokens, is zero.
    """
    n = 0
    words = (len(candidate) + 63) >> 6
    for position in range(len(candidate)):
        token = candidate[position]
        if token < 0:
            continue
        if slots[token] == 0:
            n += 1
            slots[token] = n
            masks[n, :words] = 0
        masks[slots[token], position >> 6] |= ONE << np.uint64(position & 63)


@_compiled
def forget(candidate: Any, slots: Any) -> None:
    """Undo `places`."""
    for token in candidate:
        if token >= 0:
            slots[token] = 0


@_compiled
def _lcs_in_word(records: Any, start: int, stop: int, m: int, slots: Any, masks: Any) -> Any:
    """`lcs_length` of records[start:stop] and a candidate of 1 to 64 tokens."""
    zeros = ALL
    for at in range(start, stop):
        matches = zeros & masks[slots[records[at]], 0]
        zeros = (zeros + matches) | (zeros ^ matches)
    return popcount(~zeros & (ALL >> np.uint64(64 - m)))


@_compiled
def lcs_length(record: Any, m: int, slots: Any, masks: Any, row: Any) -> Any:
    """Length of the longest common subsequence of a record and the candidate of `places`.

    Bit-parallel: H. Hyyrö, "Bit-parallel LCS-length computation revisited" (2004). `row` is scratch, uint64[words].
    """
    words = (m + 63) >> 6
    row[:words] = ALL
    for token in record:
        slot = slots[token]
        if slot == 0:
            continue
        carry = np.uint64(0)
        for word in range(words):
            matches = row[word] & masks[slot, word]
            total = row[word] + matches
            overflow = total < matches
            total += carry
            overflow |= total < carry
            row[word] = total | (row[word] ^ matches)
            carry = np.uint64(overflow)
    length = 0
    for word in range(words):
        used = ~row[word]
        if word == words - 1:
            used &= ALL >> np.uint64(63 - ((m - 1) & 63))
        length += popcount(used)
    return length


@_compiled
def _f_of(records: Any, start: int, stop: int, m: int, slots: Any, masks: Any, row: Any) -> Any:
    """F of records[start:stop] and the candidate of `places`."""
    if 0 < m <= 64:
        lcs = _lcs_in_word(records, start, stop, m, slots, masks)
    else:
        lcs = lcs_length(records[start:stop], m, slots, masks, row)
    return f_measure(lcs, m, stop - start)


@_compiled
def all_scores(candidate: Any, tokens: Any, offsets: Any, ids: Any, scores: Any, work: Any) -> None:
    """F of a candidate with every record, at the record's place in `scores`."""
    m = len(candidate)
    slots, masks, row = work[:3]
    places(candidate, slots, masks)
    for i in range(len(ids)):
        scores[ids[i]] = _f_of(tokens, offsets[i], offsets[i + 1], m, slots, masks, row)
    forget(candidate, slots)


# -- a segment ---------------------------------------------------------------------------------------------------------


@_compiled
def document_frequencies(terms: Any, n_terms: int) -> Any:
    """In how many records each term is; a record has a term once."""
    counts = np.zeros(n_terms, np.int64)
    for term in terms:
        counts[term] += 1
    return counts


@_compiled
def fill_postings(terms: Any, offsets: Any, cursors: Any, rows: Any, postings: Any, bitmaps: Any) -> None:
    """List each term's records, in order, or set their bits.

    Args:
        terms, offsets: Of the segment's records.
        cursors: Where each term's list begins; overwritten.
        rows: Each term's bitmap, -1 for those with a list.
        postings, bitmaps: The result; bitmaps zeroed.
    """
    for i in range(len(offsets) - 1):
        for at in range(offsets[i], offsets[i + 1]):
            term = terms[at]
            if rows[term] >= 0:
                bitmaps[rows[term], i >> 6] |= ONE << np.uint64(i & 63)
            else:
                postings[cursors[term]] = i
                cursors[term] += 1


@_compiled
def _is_better(f: float, id: int, worst_f: float, worst_id: int) -> Any:
    """Whether a record belongs among the best so far: by F descending, id ascending."""
    return f > worst_f or (f == worst_f and f > 0 and id < worst_id)


@_compiled
def _keep(f: float, id: int, scores: Any, ids: Any) -> None:
    """Put a record among the best, once."""
    at = len(scores) - 1
    for other in range(len(ids)):
        if ids[other] == id and scores[other] > 0:
            return
    while at > 0 and (f > scores[at - 1] or (f == scores[at - 1] and id < ids[at - 1])):
        scores[at] = scores[at - 1]
        ids[at] = ids[at - 1]
        at -= 1
    scores[at] = f
    ids[at] = id


@_compiled
def _add(a: Any, b: Any, c: Any) -> Any:
    """(Sum, carry) of three bits, 64 times."""
    total = a ^ b
    return total ^ c, (a & b) | (total & c)


@_compiled
def _count_eight(planes: Any, first: int, last: int, bitmaps: Any, rows: Any) -> None:
    """Add eight bitmaps to counters that are kept bit by bit: plane p holds bit p of all counters.

    Full adders take eight inputs to a carry of weight 8 (Harley and Seal; Muła, Kurz, Lemire, "Faster population counts
    using AVX2 instructions", 2018), so that planes are read and written once. What overflows plane 3 is the carry.

    Args:
        planes: Counters.
        first, last: The words that are added.
        bitmaps, rows: Which eight of the bitmaps.
    """
    a, b, c, d = np.uint64(rows[0]), np.uint64(rows[1]), np.uint64(rows[2]), np.uint64(rows[3])
    e, f, g, h = np.uint64(rows[4]), np.uint64(rows[5]), np.uint64(rows[6]), np.uint64(rows[7])
    for w in range(np.uint64(first), np.uint64(last)):
        ones, twos_ab = _add(planes[w], bitmaps[a, w], bitmaps[b, w])
        ones, twos_cd = _add(ones, bitmaps[c, w], bitmaps[d, w])
        ones, twos_ef = _add(ones, bitmaps[e, w], bitmaps[f, w])
        planes[w], twos_gh = _add(ones, bitmaps[g, w], bitmaps[h, w])
        twos, fours_abcd = _add(planes[w + P1], twos_ab, twos_cd)
        planes[w + P1], fours_efgh = _add(twos, twos_ef, twos_gh)
        planes[w + P2], eights = _add(planes[w + P2], fours_abcd, fours_efgh)
        low = planes[w + P3]
        planes[w + P3] = low ^ eights
        planes[w + CARRY] = low & eights


@_compiled
def _place(plane: int) -> Any:
    """Where a plane begins."""
    return (plane if plane < 4 else plane + 2) * WORDS


@_compiled
def _carry_on(planes: Any, n_planes: int, first: int, last: int) -> None:
    """Add the carry to the planes from 4 on; what overflows the last says who has what it needs."""
    for p in range(4, n_planes):
        place = np.uint64(_place(p))
        for w in range(np.uint64(first), np.uint64(last)):
            low = planes[w + place]
            planes[w + place] = low ^ planes[w + CARRY]
            planes[w + CARRY] &= low
    for w in range(np.uint64(first), np.uint64(last)):
        planes[w + REACHED] |= planes[w + CARRY]


@_compiled
def _count_one(planes: Any, n_planes: int, record: int) -> None:
    """Add 1 to the counter of a record."""
    w = record >> 6
    bit = ONE << np.uint64(record & 63)
    for p in range(n_planes):
        at = _place(p) + w
        planes[at] ^= bit
        if planes[at] & bit:
            return
    planes[5 * WORDS + w] |= bit


@_compiled
def _begin(planes: Any, n_planes: int, needed: Any, first: int, last: int) -> None:
    """Set the counters of words to 2^planes - needed, so that they overflow where there is what is needed."""
    for p in range(n_planes):
        place, bit = np.uint64(_place(p)), np.uint64(p)
        for w in range(np.uint64(first), np.uint64(last)):
            planes[w + place] = np.uint64(0) - (np.uint64((1 << n_planes) - needed[w]) >> bit & ONE)
    for w in range(np.uint64(first), np.uint64(last)):
        planes[w + REACHED] = np.uint64(0)


@_compiled
def _next(planes: Any, w: int, last: int) -> Any:
    """The first word from w on with a record that has what it needs, or the last."""
    at, end, step = np.uint64(w) + REACHED, np.uint64(last) + REACHED, np.uint64(8)
    while at + step <= end:
        some = np.uint64(0)
        for i in range(step):
            some |= planes[at + i]
        if some:
            break
        at += step
    while at < end and planes[at] == 0:
        at += ONE
    return np.int64(at - REACHED)


@_compiled
def _rank(terms: Any, starts: Any, dense: Any, order: Any, rest: Any) -> None:
    """Sort a candidate's terms by frequency in the segment.

    Args:
        terms: Of the candidate, m.
        starts, dense: Of the segment.
        order: int64[m or more], the result: frequency << 32 | term; DENSE + its bitmap instead of a frequency from
            there on; -1 for terms that no record has.
        rest: uint64[m + 1 or more], signature of order[p:] for every p.
    """
    m = len(terms)
    n_known = len(starts) - 1
    for i in range(m):
        term = np.int64(terms[i])
        order[i] = -1
        if 0 <= term < n_known:
            frequency = np.int64(starts[term + 1]) - np.int64(starts[term])
            if frequency == 0:
                low, high = 0, len(dense)
                while low < high:
                    middle = (low + high) >> 1
                    if dense[middle] < term:
                        low = middle + 1
                    else:
                        high = middle
                if low < len(dense) and dense[low] == term:
                    frequency = DENSE + low
            if frequency:
                order[i] = (frequency << 32) | term
    if m <= 32:
        for i in range(1, m):
            key = order[i]
            at = i
            while at > 0 and order[at - 1] > key:
                order[at] = order[at - 1]
                at -= 1
            order[at] = key
    else:
        order[:m].sort()
    rest[m] = 0
    for p in range(m - 1, -1, -1):
        rest[p] = rest[p + 1]
        if order[p] >= 0:
            rest[p] |= ONE << np.uint64((order[p] & 0xFFFFFFFF) & 63)


@_compiled
def _count(
    p: int, m: int, order: Any, w0: int, w1: int, score: float, c0: int, c1: int, class_lengths: Any, class_starts: Any,
    starts: Any, postings: Any, bitmaps: Any, planes: Any, needed: Any, eight: Any,
) -> int:  # fmt: skip
    """Count, for the records of the words w0..w1 of bitmaps, how many of the terms order[p:m] each has.

    A record of length n, of the classes c0..c1, needs so many for an F of `score`; its counter begins so that it
    overflows when it has them, and then tells by how many more.

    Returns:
        The number of planes.
    """
    n_planes = 4
    while 1 << n_planes <= m - p:
        n_planes += 1
    w = w0
    for c in range(c0, c1):
        need = max(np.int64(np.ceil(score * LOOSE * (m + class_lengths[c]) * 0.5)), 1)
        end = min((class_starts[c + 1] + 63) >> 6, w1)
        while w < end:  # where two classes meet in a word, the smaller need holds for both
            needed[w] = need
            w += 1
    _begin(planes, n_planes, needed, w0, w1)
    while p < m and order[p] >> 32 < DENSE:
        term = order[p] & 0xFFFFFFFF
        for at in range(starts[term], starts[term + 1]):
            record = np.int64(postings[at])
            if w0 <= record >> 6 < w1:
                _count_one(planes, n_planes, record)
        p += 1
    for at in range(p, m, 8):
        for i in range(8):
            eight[i] = (order[at + i] >> 32) - DENSE if at + i < m else len(bitmaps) - 1
        _count_eight(planes, w0, w1, bitmaps, eight)
        _carry_on(planes, n_planes, w0, w1)
    return n_planes


@_compiled
def search(
    tokens: Any, terms: Any, offsets: Any, first: int, last: int, segment: Any,
    sizes: Any, best_scores: Any, best_ids: Any, work: Any,
) -> None:  # fmt: skip
    """Improve the best matches of candidates first..last by the records of one segment.

    A record and a candidate of n and m terms that have o of them in common have LCS <= o <= min(m, n), so

        - terms are taken from the rarest on. After p of them, a record that has none has o <= m - p: when not even
          that would do, the candidate is done. The records of the rarest are looked at one by one;
        - for all other records, o is counted over all remaining terms at once (`_count`).

    A record that is looked at is dropped if its o, or what its signature says of it, is too small for a better F, or
    an equal one with a smaller id; of the others the LCS is computed. Floats decide everywhere, so nothing is lost to
    rounding.

    Args:
        tokens, terms, offsets: Candidates.
        segment: A `segments.Segment`.
        sizes: int64[candidates]; records with an id from there on are not looked at.
        best_scores, best_ids: [candidates, k], by (F descending, id ascending), 0 where there is none yet.
        work: A `segments.Workspace`.
    """
    # Unpacked once: every access to a tuple's array counts references, which costs more than what is done with it.
    record_ids, class_lengths, class_starts, record_tokens, record_offsets, signatures = segment[:6]
    starts, postings, dense, bitmaps = segment[6:]
    slots, masks, row, order, rest, planes, needed, eight = work
    n_classes = len(class_lengths)
    for q in range(first, last):
        m = offsets[q + 1] - offsets[q]
        candidate = tokens[offsets[q] : offsets[q + 1]]
        scores, ids = best_scores[q], best_ids[q]
        worst = len(scores) - 1
        prepared = False
        _rank(terms[offsets[q] : offsets[q + 1]], starts, dense, order, rest)

        p = 0
        while p < m and order[p] < 0:
            p += 1
        listed = 0
        while p < m and 2 * (m - p) >= scores[worst] * LOOSE * (m + m - p):
            listed += order[p] >> 32
            if listed > MAX_LISTED:
                break
            n_bits = popcount(rest[p])
            term = order[p] & 0xFFFFFFFF
            for at in range(starts[term], starts[term + 1]):
                record = np.int64(postings[at])
                start, stop = record_offsets[record], record_offsets[record + 1]
                n = stop - start
                bound = overlap_bound(rest[p], m - p, n_bits, signatures[record], n)
                # A quick and loose test first: most records fail it.
                if 2 * bound < scores[worst] * LOOSE * (m + n):
                    continue
                id = np.int64(record_ids[record])
                if id < sizes[q] and _is_better(f_measure(bound, m, n), id, scores[worst], ids[worst]):
                    if not prepared:
                        prepared = True
                        places(candidate, slots, masks)
                    f = _f_of(record_tokens, start, stop, m, slots, masks, row)
                    if _is_better(f, id, scores[worst], ids[worst]):
                        _keep(f, id, scores, ids)
            p += 1

        # While little is known of the best, nearly all records have what they need: when too many were in vain because
        # the best had grown, what is needed is reckoned anew for those that are left.
        stale_limit = 32
        done = 0
        while p < m:
            # A record of n tokens with m - p in common can do when 2 min(m - p, n) >= score (m + n).
            score = scores[worst] * LOOSE
            c0, c1 = 0, n_classes
            while c0 < c1 and 2 * min(m - p, class_lengths[c0]) < score * (m + class_lengths[c0]):
                c0 += 1
            while c0 < c1 and 2 * min(m - p, class_lengths[c1 - 1]) < score * (m + class_lengths[c1 - 1]):
                c1 -= 1
            w0, w1 = max(class_starts[c0] >> 6, done), (class_starts[c1] + 63) >> 6
            if w0 >= w1:
                break
            n_planes = _count(
                p, m, order, w0, w1, scores[worst], c0, c1, class_lengths, class_starts,
                starts, postings, bitmaps, planes, needed, eight,
            )  # fmt: skip
            stale = 0
            w = _next(planes, w0, w1)
            while w < w1 and stale < stale_limit:
                reached = planes[5 * WORDS + w]
                while reached:
                    lowest = reached & (~reached + ONE)
                    reached ^= lowest
                    bit = popcount(lowest - ONE)
                    record = (w << 6) + bit
                    overlap = needed[w]
                    for b in range(n_planes):
                        overlap += np.int64(planes[_place(b) + w] >> np.uint64(bit) & ONE) << b
                    id = np.int64(record_ids[record])
                    start, stop = record_offsets[record], record_offsets[record + 1]
                    n = stop - start
                    if id < sizes[q] and n and _is_better(_most(m, overlap, n), id, scores[worst], ids[worst]):
                        if not prepared:
                            prepared = True
                            places(candidate, slots, masks)
                        f = _f_of(record_tokens, start, stop, m, slots, masks, row)
                        if _is_better(f, id, scores[worst], ids[worst]):
                            _keep(f, id, scores, ids)
                    else:
                        stale += 1
                w = _next(planes, w + 1, w1)
            done = w
            stale_limit *= 2
        if prepared:
            forget(candidate, slots)


# -- in order ----------------------------------------------------------------------------------------------------------


@_compiled
def settle(
    tokens: Any, terms: Any, offsets: Any, threshold: float, sizes: Any, next_id: int,
    records: Any, record_offsets: Any, record_signatures: Any, ids: Any, n_records: int,
    best_scores: Any, best_ids: Any, accepted: Any, work: Any,
) -> int:  # fmt: skip
    """Decide on candidates in order: each sees the recent records, among them those accepted just before it.

    Args:
        tokens, terms, offsets: Candidates.
        threshold: A candidate with a larger F is rejected; nan accepts nobody, and nothing is added.
        sizes: As in `search`.
        next_id: Of the first one accepted; the others follow.
        records ... ids: Recent records, flat, with room for all candidates.
        n_records: How many there are.
        best_scores, best_ids: As in `search`.
        accepted: bool[candidates], the decisions.
        work: A `segments.Workspace`.

    Returns:
        How many recent records there are now.
    """
    slots, masks, row = work[:3]
    for q in range(len(accepted)):
        begin, end = offsets[q], offsets[q + 1]
        m = end - begin
        candidate = tokens[begin:end]
        bits = signature(terms[begin:end])
        n_bits = popcount(bits)
        scores, nearest = best_scores[q], best_ids[q]
        worst = len(scores) - 1
        prepared = False
        for i in range(n_records if m else 0):
            start, stop = record_offsets[i], record_offsets[i + 1]
            n = stop - start
            if n == 0:
                continue
            bound = overlap_bound(bits, m, n_bits, record_signatures[i], n)
            # A quick and loose test first: most records fail it.
            if 2 * bound < scores[worst] * LOOSE * (m + n) or ids[i] >= sizes[q]:
                continue
            if not _is_better(f_measure(bound, m, n), ids[i], scores[worst], nearest[worst]):
                continue
            if not prepared:
                prepared = True
                places(candidate, slots, masks)
            f = _f_of(records, start, stop, m, slots, masks, row)
            if _is_better(f, ids[i], scores[worst], nearest[worst]):
                _keep(f, ids[i], scores, nearest)
        if prepared:
            forget(candidate, slots)
        accepted[q] = scores[0] <= threshold
        if accepted[q]:
            start = record_offsets[n_records]
            records[start : start + m] = candidate
            record_offsets[n_records + 1] = start + m
            record_signatures[n_records] = bits
            ids[n_records] = next_id
            n_records += 1
            next_id += 1
    return n_records
