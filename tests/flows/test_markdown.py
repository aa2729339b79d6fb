"""What others have written stands in Markdown as it is, by a parser of CommonMark."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from flows.markdown import code, fenced, plain

PARSER = MarkdownIt("commonmark").enable(["table", "strikethrough"])
TEXTS = st.text(st.characters(codec="ascii", min_codepoint=32) | st.sampled_from("\n`|<[]!*_#~>\\é"), max_size=40)


@pytest.mark.parametrize(
    ("given", "made"),
    [
        ("optimizer.learning_rate: -1 does not fit", "optimizer.learning_rate: -1 does not fit"),
        ("a\n# b ![t](http://x/b.png)", "a # b !\\[t\\](http://x/b.png)"),
        ("# title", "\\# title"),
        ("- item", "\\- item"),
        ("1. item", "1\\. item"),
        ("<img src=x>", "\\<img src=x\\>"),
        ("_a_ a_b", "\\_a\\_ a_b"),
    ],
)
def test_plain(given: str, made: str) -> None:
    assert plain(given) == made


@given(TEXTS)
def test_plain_text_is_text_and_nothing_else(text: str) -> None:
    tokens = PARSER.parse(f"before {plain(text)} | behind\n\n- {plain(text) or 'nothing'}")
    kinds = [token.type for token in tokens]
    assert kinds[3:] == [*(f"{each}_open" for each in ("bullet_list", "list_item", "paragraph")), "inline",
                         *(f"{each}_close" for each in ("paragraph", "list_item", "bullet_list"))]  # fmt: skip
    assert {child.type for token in tokens for child in token.children or []} <= {"text", "text_special"}
    first = "".join(child.content for child in tokens[1].children or [])
    assert "&" in text or first == f"before {' '.join(text.split())} | behind"


@given(TEXTS.filter(str.strip))
def test_code_is_code(text: str) -> None:
    (_, inline, _) = PARSER.parse(f"x {code(text)}")
    assert [child.type for child in inline.children or []] == ["text", "code_inline"]
    assert (inline.children or [])[1].content == " ".join(text.split())
    kinds = [token.type for token in PARSER.parse(f"| a | b |\n| --- | --- |\n| {code(text, in_table=True)} | c |")]
    assert kinds.count("td_open") == 2


@given(TEXTS)
def test_lines_of_code_do_not_end_before_their_end(text: str) -> None:
    (fence,) = PARSER.parse(fenced(text, "sh"))
    assert (fence.type, fence.info) == ("fence", "sh")
