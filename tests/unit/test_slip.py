# SPDX-License-Identifier: Apache-2.0
"""The lending slip on paper: looked at as a picture, read by a decoder."""

import unicodedata
from datetime import date
from uuid import UUID

import pypdfium2
import pytest
import zxingcpp
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.print_jobs import Address, SlipContent
from tasks.printing.pdf import MISSING, measure, printable, render_pdf, unprintable
from tasks.printing.slip import MEDIA, compose

DPI = 203


def content(**fields):
    return SlipContent(
        **{
            "job_id": UUID("01a20a85-0c89-7e6f-9d55-be5c2b392977"),
            "delivery_code": "RUL",
            "return_to": Address(name="Riverside University Library", lines=("9 River Road", "Riverside")),
            "sent_from": Address(name="Our Public Library", lines=("Main Library", "1 Home Street")),
            "title": "Crime and Punishment",
            "author": "Fyodor Dostoevsky",
            "external_id": "BR-2026-00017",
            "barcode": "31000000170",
            "returned_on": date(2026, 11, 23),
            **fields,
        }
    )


def page(pdf):
    document = pypdfium2.PdfDocument(pdf)
    assert len(document) == 1
    return document[0]


def text_of(pdf):
    return page(pdf).get_textpage().get_text_bounded().replace("\r\n", "\n")


def codes_of(pdf):
    picture = page(pdf).render(scale=DPI / 72).to_pil()
    return {str(code.format): code.text for code in zxingcpp.read_barcodes(picture)}


def test_slip_says_all_that_takes_the_book_home():
    """Delivery code, lender, sender, title, author, request, date: all stand on one page of a small file."""
    pdf = render_pdf(content())

    text = text_of(pdf)
    for words in (
        "RUL", "RETURN TO", "Riverside University Library", "9 River Road", "FROM", "Our Public Library", "Main Library",
        "Crime and Punishment", "Fyodor Dostoevsky", "BR-2026-00017", "2026-11-23", "31000000170",
    ):  # fmt: skip
        assert words in text
    assert "COPY" not in text
    assert "URGENT" not in text
    assert len(pdf) < 60_000


@pytest.mark.parametrize("media", sorted(MEDIA))
@pytest.mark.parametrize("barcode", ["31000000170", "0031", "a/B$C%d", "X" * 64, "x7K$/%" * 10])
def test_a_decoder_reads_both_codes(media, barcode):
    """At 203 dots an inch both codes are read from the picture, to the letter."""
    slip = content(barcode=barcode)

    assert set(codes_of(render_pdf(slip, media)).values()) == {barcode, slip.code}


@pytest.mark.parametrize("code", ["RUL", "W", "NODE-17", "A-VERY-LONG-COURIER-CODE"])
def test_delivery_code_is_the_largest_thing(code):
    """Nothing on the slip is larger than the delivery code, and it stays within the margins."""
    slip = compose(content(delivery_code=code, urgent=True, copy_number=2), measure, MEDIA["label-4x6"])

    [largest] = [text for text in slip.texts if text.role == "delivery-code"]
    others = [text.size for text in slip.texts if text.role != "delivery-code"]
    assert measure(code, largest.size, bold=True) <= slip.medium.inner_width + 0.01
    assert largest.size > max(others) or len(code) > 20


def test_without_delivery_code_name_and_address_are_large():
    """A lender without a delivery code: its name is the largest thing, and the slip says why."""
    pdf = render_pdf(content(delivery_code=None))
    slip = compose(content(delivery_code=None), measure, MEDIA["label-4x6"])

    assert "no delivery code" in text_of(pdf)
    largest = max(slip.texts, key=lambda text: text.size)
    assert largest.words.startswith("Riverside")


def test_marks_of_a_special_slip():
    """Copy, recall, one of several, damage: each is said."""
    text = text_of(render_pdf(content(copy_number=3, urgent=True, item_of=(1, 3), damage_note="spine torn")))

    for words in ("COPY 3", "URGENT: RECALLED BY LENDER", "Item 1 of 3", "Damage reported: spine torn"):
        assert words in text


@pytest.mark.parametrize("title", ["Преступление и наказание", "Η Οδύσσεια", "Żółć, œuvre, ğ, ő, ñ, þ", "Cafe\u0301"])
def test_latin_cyrillic_and_greek_are_printed(title):
    """The embedded font has these scripts; composed or not."""
    assert unicodedata.normalize("NFC", title) in text_of(render_pdf(content(title=title)))
    assert unprintable(content(title=title)) == ()


@pytest.mark.parametrize(
    ("title", "shown"),
    [
        ("紅樓夢", MISSING),
        ("紅樓夢 / Cao Xueqin", f"{MISSING} / Cao Xueqin"),
        ("שיר השירים", MISSING),
        ("Book 📚 one", f"Book {MISSING} one"),
        ("a\u200bb\x07c", "abc"),
    ],
)
def test_what_the_font_lacks_is_told_not_boxed(title, shown):
    """A run of characters the font lacks becomes one readable mark, and staff can be warned."""
    assert printable(title) == shown
    assert unprintable(content(title=title)) == ((title,) if MISSING in shown else ())


def test_long_title_ends_in_an_ellipsis():
    """A title of a thousand characters takes two lines and pushes nothing off the slip."""
    slip = content(title="word " * 200)
    pdf = render_pdf(slip)

    assert "…" in text_of(pdf)
    assert set(codes_of(pdf).values()) == {slip.barcode, slip.code}


def test_markup_is_text():
    """Markup in a title is printed as it is."""
    assert "<b>& not bold</b>" in text_of(render_pdf(content(title="<b>& not bold</b>")))


def test_same_slip_same_bytes():
    """A slip rendered again is the same file to the byte."""
    assert render_pdf(content()) == render_pdf(content())


texts = st.text(st.characters(codec="utf-8"), max_size=300)


@settings(max_examples=40, deadline=None)
@given(
    title=texts,
    author=texts,
    name=st.text(st.characters(codec="utf-8"), min_size=1, max_size=200),
    lines=st.lists(st.text(max_size=100), max_size=6),
    code=st.none() | st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=40),
    flags=st.tuples(st.booleans(), st.integers(1, 12), st.none() | st.just((2, 3)), st.none() | texts),
)
def test_nothing_leaves_the_paper(title, author, name, lines, code, flags):
    """Whatever stands in the texts: every line lies on the medium, above the codes or beside them."""
    urgent, copy_number, item_of, damage = flags
    slip = content(
        title=title, author=author, return_to=Address(name=name, lines=tuple(lines)), delivery_code=code,
        urgent=urgent, copy_number=copy_number, item_of=item_of, damage_note=damage,
    )  # fmt: skip
    laid = compose(slip, measure, MEDIA["label-4x6"])

    assert all(0 < text.y < laid.medium.height - laid.medium.margin + 1 for text in laid.texts)
    foot = {"Request", "Returned", "Slip", "Item"}
    above = [text for text in laid.texts if text.words.split(" ")[0] not in foot or text.role]
    assert all(text.y <= laid.barcode.y + 1.5 for text in above if text.y < laid.qr.y)
    render_pdf(slip)
