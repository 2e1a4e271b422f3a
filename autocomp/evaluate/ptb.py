"""The tokens caption metrics count: what Stanford's PTB tokenizer makes of a caption, without Java.

Published BLEU, ROUGE-L and CIDEr figures are computed on the output of the Stanford PTBTokenizer
3.4.1 with `-preserveLines -lowerCase`, from which punctuation is then taken out (Chen et al.,
"Microsoft COCO Captions", 1504.00325). This module was written against that program's observed
output and agrees with it on captions. It parts from it where captions do not go: telephone
numbers in parentheses, mark-up with attributes, URLs with commas, and a whole and a fraction
("1 1/2"), which are two tokens here and one with a no-break space there.
"""

from __future__ import annotations

import re

PUNCTUATION = frozenset(
    ["''", "'", "``", "`", ".", "?", "!", ",", ":", "-", "--", "---", "----", "...", ";", '"']
)

_SPLIT_WORDS = {
    "cannot": ["can", "not"],
    "gonna": ["gon", "na"],
    "gotta": ["got", "ta"],
    "lemme": ["lem", "me"],
    "gimme": ["gim", "me"],
    "wanna": ["wan", "na"],
}
_BRACKETS = {"(": "-lrb-", ")": "-rrb-", "[": "-lsb-", "]": "-rsb-", "{": "-lcb-", "}": "-rcb-"}
_TO_ASCII = str.maketrans(
    {
        **dict.fromkeys("‘’‛", "'"),
        **dict.fromkeys("“”«»", '"'),
        **dict.fromkeys("–—―", " -- "),
        **{"…": " ", "£": " # ", "€": " $ ", "¢": " cents ", "\u00ad": "", "\u2010": ""},
        **{"½": " 1/2 ", "¼": " 1/4 ", "¾": " 3/4 ", "⅓": " 1/3 ", "⅔": " 2/3 "},
    }
)
_ENTITY = {"&amp;": "&", "&lt;": "<", "&gt;": ">", "&quot;": '"', "&apos;": "'", "&nbsp;": " "}


def _any_of(words: str) -> str:
    return "|".join(words.split())


# The full stop stays on these wherever they stand,
_ABBREVIATION = _any_of(
    """
    adm al ala apr ariz assn atty attys aug ave bhd bldg blvd bros calif capt cf cmdr co col colo
    comdr conn corp cos cpl dak dec dept det dr elec esq est etc ext feb fla fri ft ga gen gov hon
    inc ind insp intl jan jr jul jun kan kans ky lieut lt ltd maj mar md messrs mfg mich minn mlle
    mme mo mon mont mr mrs ms mt natl neb nev nov oct okla penn pfc ph plc pres prof pte rd rep reps
    rev sen sens sep sept seq sgt spc sq sr st ste supt tel tenn thu thurs treas tue tues univ va vs
    vt wed wis wisc wyo
    """
)
# on these where they are capitalised (a state, not a word),
_STATES = "ark del ill la mass miss ore pa tex wash"
_STATE = _any_of(f"{_STATES.title()} {_STATES.upper()}")
# and on these before a number.
_BEFORE_NUMBER = _any_of("art ca fig figs no nos op pp prop")

# A single letter keeps its full stop (an initial) unless one of these, capitalised, comes next.
_SENTENCE_STARTER = _any_of(
    """
    A About According Additionally After An As At But Earlier He Her Here However If In It Last Many
    More Now Once One Other Our She Since So Some Such That The Their Then There These They This We
    What When While Yet You
    """
)

_LETTER = r"[^\W\d_]"
_ALNUM = r"[^\W_]"
_WORD = rf"{_ALNUM}+(?:[-_]{_ALNUM}+)*"
_ACRONYM = rf"[A-Za-z](?:\.[A-Za-z])+\.(?!{_ALNUM})"

# In order of precedence: the first alternative that fits at a place is its token.
_TOKEN = re.compile(
    rf"""
      [A-Za-z]+(?=\s|$)                                                   # most words: so, first
    | </?[A-Za-z]\w*/?>                                                   # <br>
    | https?://[^\s,]*[^\s,.] | [\w.+-]+@[\w-]+(?:\.[A-Za-z]\w*)+         # http://a.com  me@a.com
    | (?:[<>]?[:;=]['-]?[()] | [:;]-?[DPdp])(?!\w)                        # :-)  :D
    | (?i:c\+\+ | [cf]\#)                                                 # C#
    | [Pp]h\.[Dd]\.
    | {_ACRONYM}(?:-(?:{_ACRONYM}|{_ALNUM}+))*                            # U.S.  a.m.  U.S.-based
    | (?i:www\.|(?={_LETTER}\w*\.(?:com|net|org)/\w))[\w./-]*\w           # a.com/b
    | {_LETTER}{_ALNUM}*(?:\.{_LETTER}{_ALNUM}*)+(?:-{_ALNUM}+)*          # a.com  photo.jpg
    | (?i:(?:{_ABBREVIATION})\.) | (?:{_STATE})\.                         # Mr.  Tex.
    | [A-Za-z]\.(?!\s+(?:{_SENTENCE_STARTER})\b)                          # J.
    | {_WORD}\.(?=[,;:])                                                  # outside.,
    | (?i:(?:{_BEFORE_NUMBER})\.(?=\s?\d))                                # no. 5
    | [A-Z]+&[A-Z]+(?!\w) | [A-Z]{{1,3}}\$                                # AT&T  US$
    | {_LETTER}+(?:[!?]{_LETTER}+)+                                       # go!go
    | (?i:[a-z]+?(?=n't) | n't(?![a-z]))                                  # do | n't
    | (?i:c'mon | c'est | e'er | s'mores | ol')
    | [dlnoA-HJ-XZ]'{_LETTER}{{2,}}                                       # o'clock
    | (?i:{_LETTER}+[aeiouy]'[aeiou]{_LETTER}*)                           # ma'am
    | [dlDL]' | [jyJY]'(?=[A-Za-z])                                       # y' | all
    | (?i:'(?:s|m|d|ll|ve|re)(?!{_ALNUM}) | 't(?=is|was))                 # 's  't | is
    | '[2-9]0s | '\d\d(?=\s|$)                                            # '90s
    | (?i:'n' | 'n(?=\s|$) | '(?:em|cause|till|til))                      # 'n'
    | {_ALNUM}+(?:[.,]{_ALNUM}+)*[.,]?-{_WORD}(?:/{_WORD}){{0,2}}         # 3.5-mile
    | [-+]?\d*(?:[.,:]\d+)+ | [-+]\d+                                     # 1,000.50  10:30  -5
    | {_WORD}(?:/{_WORD}){{0,2}}                                          # t-shirt  his/her  1/2
    | [\#][A-Za-z]+ | @[A-Za-z]\w*                                        # #tag  @name
    | -+ | [!?]+ | \*+ | _+ | @+ | [\#]+ | '' | ``                        # runs
    | \S
    """,
    re.VERBOSE,
)


def tokenize(caption: str) -> list[str]:
    """The lower-case PTB tokens of `caption`, without punctuation; [] for an empty caption.

    "A man's T-shirt isn't red." -> a, man, 's, t-shirt, is, n't, red
    """
    text = caption.translate(_TO_ASCII)
    if "&" in text:
        for entity, character in _ENTITY.items():
            text = text.replace(entity, character)
    tokens: list[str] = []
    for match in _TOKEN.findall(text):
        token = match.lower()
        if token in _SPLIT_WORDS:
            tokens.extend(_SPLIT_WORDS[token])
        elif token not in PUNCTUATION:
            tokens.append(_bracketed(token))
    return tokens


def _bracketed(token: str) -> str:
    """Brackets are spelt out even inside a token, as in ":-rrb-"."""
    if token.isalnum():
        return token
    return "".join(_BRACKETS.get(character, character) for character in token)
