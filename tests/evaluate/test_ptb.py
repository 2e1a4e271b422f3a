"""The tokenizer against known PTB tokens, and against the Java program it stands in for."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autocomp.evaluate.meteor import java_available
from autocomp.evaluate.ptb import PUNCTUATION, tokenize

DATA = Path(os.environ.get("AUTOCOMP_DATA", Path(__file__).parents[3] / "shared" / "data"))

CASES = {
    "plain": ("A black dog runs .", "a black dog runs"),
    "glued": ("Two men,one red;one blue.", "two men one red one blue"),
    "negation": ("don't CAN'T won't isn't", "do n't ca n't wo n't is n't"),
    "possessive": ("a man's dogs' toys", "a man 's dogs toys"),
    "contraction": ("I'm they're we've you'll he'd", "i 'm they 're we 've you 'll he 'd"),
    "split words": ("cannot gonna wannabe", "can not gon na wannabe"),
    "curly quotes": ("a “fancy” man’s hat", "a fancy man 's hat"),
    "quotes": ("\"STOP\" 'go' ``so''", "stop go so"),
    "hyphen": ("a T-shirt - black-and-white -", "a t-shirt black-and-white"),
    "eye view": ("an ant 's-eye-view , a bird's-eye view", "an ant 's eye-view a bird 's eye view"),
    "dash": ("red--blue — green", "red blue green"),
    "dollar": ("$5.50 US$5 5%", "$ 5.50 us$ 5 5 %"),
    "number": ("1,000 3.5 .5 10:30 -5 1/2", "1,000 3.5 .5 10:30 -5 1/2"),
    "ordinal": ("21st 4x4 5-year-old 3.5-mile", "21st 4x4 5-year-old 3.5-mile"),
    "decade": ("1980's '90s 1980s", "1980 's '90s 1980s"),
    "hash": ("#7 # 33 #tag @name", "# 7 # 33 #tag @name"),
    "slash": ("his/her and/or w/ w/o", "his/her and/or w / w/o"),
    "brackets": ("(left) [up] {in}", "-lrb- left -rrb- -lsb- up -rsb- -lcb- in -rcb-"),
    "ampersand": ("AT&T at&t R&B &amp; a & b", "at&t at & t r&b & a & b"),
    "acronym": ("Washington D.C. in an R.V.", "washington d.c. in an r.v."),
    "abbreviation": ("Mr. Smith of St. Louis etc.", "mr. smith of st. louis etc."),
    "word, not state": ("in the la. in La.", "in the la in la."),
    "number sign": ("no. 5 . He said no.", "no. 5 he said no"),
    "initial": ("U. Miami , team B. The end", "u. miami team b the end"),
    "web": ("a statefarm.com hat", "a statefarm.com hat"),
    "rock": ("slip 'n' slide , o'clock , ma'am , y'all", "slip 'n' slide o'clock ma'am y' all"),
    "shouting": ("wow!!! really?! yes! no?", "wow !!! really ?! yes no"),
    "smile": ("nice :) :D", "nice :-rrb- :d"),
    "symbols": ("a*b a+b x=ding _", "a * b a + b x = ding _"),
    "accents": ("a café's naïve crème", "a café 's naïve crème"),
    "fraction": ("½ of it … 5¢ £3", "1/2 of it 5 cents # 3"),
    "newline": ("a dog\nin  \t snow", "a dog in snow"),
    "nothing": ("", ""),
    "only punctuation": (' . , "" -- ...', ""),
}


@pytest.mark.parametrize(("caption", "tokens"), CASES.values(), ids=CASES)
def test_known_tokens(caption: str, tokens: str) -> None:
    assert tokenize(caption) == tokens.split()


@given(st.text())
def test_any_text_gives_lower_case_words(caption: str) -> None:
    for token in tokenize(caption):
        assert token
        assert token not in PUNCTUATION
        assert not any(character.isspace() for character in token)


@given(st.lists(st.sampled_from(["a", "dog", "man", "t-shirt", "runs", "snow"]), max_size=12))
def test_plain_words_are_left_alone(words: list[str]) -> None:
    assert tokenize(" ".join(words)) == words
    assert tokenize(" ".join(words).upper() + " .") == words


def reference_captions() -> list[str]:
    """Every reference caption of Flickr8k and of the COCO subset, or as many as are here."""
    captions: list[str] = []
    flickr8k = DATA / "flickr8k" / "captions.txt"
    if flickr8k.is_file():
        with flickr8k.open(encoding="utf-8", newline="") as file:
            captions += [row["caption"] for row in csv.DictReader(file)]
    for path in sorted((DATA / "coco_captions" / "annotations").glob("captions_*.json")):
        annotations = json.loads(path.read_text(encoding="utf-8"))["annotations"]
        captions += [annotation["caption"] for annotation in annotations]
    return captions


def java_tokens(captions: list[str]) -> list[list[str]]:
    """What pycocoevalcap's tokenizer makes of each caption.

    A line of its own between any two keeps a caption from deciding how the one before it ends.
    """
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    lines = {
        index: [{"caption": caption}, {"caption": "x"}] for index, caption in enumerate(captions)
    }
    tokenized = PTBTokenizer().tokenize(lines)
    return [tokenized[index][0].split() for index in range(len(captions))]


def test_same_tokens_as_java_on_every_reference_caption() -> None:
    if not java_available():
        pytest.skip("needs Java")
    captions = reference_captions()
    if not captions:
        pytest.skip(f"needs the captions of Flickr8k or COCO in {DATA}")
    expected = java_tokens(captions)
    differing = [
        (caption, tokens)
        for caption, tokens in zip(captions, expected, strict=True)
        if tokenize(caption) != tokens
    ]
    assert not differing


def test_known_tokens_are_java_s() -> None:
    if not java_available():
        pytest.skip("needs Java")
    captions = [caption for caption, _ in CASES.values() if caption.strip()]
    assert java_tokens(captions) == [tokenize(caption) for caption in captions]
