# SPDX-License-Identifier: Apache-2.0
"""The lending slip on paper: looked at as a picture, read by a decoder."""

import itertools
import timeit
import unicodedata
from datetime import date
from uuid import UUID

import pypdfium2
import pytest
import zxingcpp
from hypothesis import example, given, settings
from hypothesis import strategies as st

from schemas.print_jobs import Address, SlipContent
from tasks.printing.media import MEDIA
from tasks.printing.pdf import MISSING, measure, printable, render_pdf, unprintable
from tasks.printing.slip import CAPITALS, POINT_MM, compose, depth

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


@pytest.mark.parametrize("barcode", ["bücher-1", "ñ123é4", "紅123"])
def test_a_barcode_without_bars_of_its_own_gets_none(barcode):
    """Letters that Code 128 does not know: no bars rather than the bars of another barcode, and staff are warned."""
    slip = content(barcode=barcode)
    pdf = render_pdf(slip)

    assert set(codes_of(pdf).values()) == {slip.code}
    assert printable(barcode) in text_of(pdf)
    assert unprintable(slip) == ("barcode",)


@pytest.mark.parametrize("code", ["RUL", "W", "NODE-17", "gjpqy", "A-VERY-LONG-COURIER-CODE", "W" * 40])
def test_delivery_code_is_the_largest_thing(code):
    """Nothing on the slip is as large as the delivery code, and all of it is there."""
    slip = compose(content(delivery_code=code, urgent=True, copy_number=2), measure, MEDIA["label-4x6"])

    parts = [text for text in slip.texts if text.role == "delivery-code"]
    others = [text.size for text in slip.texts if text.role != "delivery-code"]
    assert "".join(part.words for part in parts) == code
    assert min(part.size for part in parts) > max(others)


def test_short_delivery_code_fills_the_width():
    """A code of three letters on a plain slip is some 90 millimetres wide: a sorter reads it from afar."""
    slip = compose(content(), measure, MEDIA["label-4x6"])

    [code] = [text for text in slip.texts if text.role == "delivery-code"]
    assert measure(code.words, code.size, True) > 0.9 * slip.medium.inner_width


def test_without_delivery_code_name_and_address_are_large():
    """A lender without a delivery code: its whole name is the largest thing, and the slip says why."""
    name = "Österreichische Nationalbibliothek, Fernleihe und Dokumentlieferung"
    lender = content(delivery_code=None, return_to=Address(name=name, lines=("Josefsplatz 1", "1015 Wien", "Austria")))
    slip = compose(lender, measure, MEDIA["label-4x6"])

    assert "NO DELIVERY CODE" in text_of(render_pdf(lender))
    largest = max(text.size for text in slip.texts)
    assert " ".join(text.words for text in slip.texts if text.size == largest) == name
    assert all(text.size > 14 for text in slip.texts if text.role == "address")


def test_marks_of_a_special_slip():
    """Copy, recall, one of several, damage: each is said, and none drives the others off the slip."""
    pdf = render_pdf(content(copy_number=3, urgent=True, item_of=(1, 3), damage_note="spine torn"))

    text = text_of(pdf)
    for words in (
        "COPY 3", "URGENT: RECALLED BY LENDER", "Item 1 of 3", "DAMAGE REPORTED: spine torn", "RUL", "9 River Road",
        "Our Public Library", "Crime and Punishment", "Fyodor Dostoevsky",
    ):  # fmt: skip
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
        ("private \ue000 or not yet assigned \U000323b0", f"private {MISSING} or not yet assigned {MISSING}"),
        ("\U0001d5a0 is in one font only", f"{MISSING} is in one font only"),
    ],
)
def test_what_the_font_lacks_is_told_not_boxed(title, shown):
    """A run of characters the font lacks becomes one readable mark, and staff can be warned."""
    assert printable(title) == shown
    assert unprintable(content(title=title)) == (("title",) if MISSING in shown else ())


def test_long_texts_end_in_an_ellipsis():
    """A title of a thousand characters is cut short, told by an ellipsis; the codes can be read as ever."""
    slip = content(title="word " * 200, author="Someone, " * 50, damage_note="torn " * 100, external_id="x" * 100)
    pdf = render_pdf(slip)

    assert text_of(pdf).count("…") == 3
    assert text_of(pdf).count("x") == 100
    assert set(codes_of(pdf).values()) == {slip.barcode, slip.code}


def test_markup_is_text():
    """Markup in a title is printed as it is."""
    assert "<b>& not bold</b>" in text_of(render_pdf(content(title="<b>& not bold</b>")))


def test_same_slip_same_bytes():
    """A slip rendered again is the same file to the byte."""
    assert render_pdf(content()) == render_pdf(content())


def test_a_slip_is_drawn_at_once():
    """After the first one, a slip takes some milliseconds: the middle one of thirty stays far below a tenth second."""
    render_pdf(content())

    taken = sorted(timeit.repeat(lambda: render_pdf(content()), number=1, repeat=30))

    assert taken[15] < 0.05


WIDE = st.characters(codec="utf-8")
texts = st.text(WIDE, max_size=300)
addresses = st.builds(
    Address, name=st.text(WIDE, min_size=1, max_size=200), lines=st.lists(st.text(WIDE, max_size=100), max_size=6)
)
ascii_texts = st.characters(min_codepoint=33, max_codepoint=126)
contents = st.builds(
    content,
    title=texts,
    author=st.none() | texts,
    return_to=addresses,
    sent_from=addresses,
    delivery_code=st.none() | st.text(ascii_texts, min_size=1, max_size=40),
    external_id=st.text(ascii_texts, min_size=1, max_size=100),
    barcode=st.text(ascii_texts, min_size=1, max_size=64) | st.text(WIDE, min_size=1, max_size=64),
    urgent=st.booleans(),
    copy_number=st.integers(1, 12),
    item_of=st.none() | st.just((2, 3)),
    damage_note=st.none() | texts,
)
FULL = content(
    title="W" * 1000, author="W" * 500, return_to=Address(name="W" * 200, lines=("W" * 200,) * 6),
    sent_from=Address(name="W" * 200, lines=("W" * 200,) * 6), delivery_code="W" * 40, external_id="W" * 100,
    barcode="W" * 64, urgent=True, copy_number=12, item_of=(2, 3), damage_note="W" * 500,
)  # fmt: skip


def box(text):
    """Left, top, right, bottom of the letters of a text."""
    height, width = text.size * POINT_MM, measure(text.words, text.size, text.bold)
    return text.x, text.y - CAPITALS * height, text.x + width, text.y + min(depth(text.words), 0.2) * height


def apart(one, other):
    return one[2] <= other[0] or other[2] <= one[0] or one[3] <= other[1] or other[3] <= one[1]


@settings(max_examples=60, deadline=None)
@given(contents)
@example(FULL)
@example(FULL.model_copy(update={"delivery_code": None}))
@example(FULL.model_copy(update={"delivery_code": "W"}))
def test_everything_has_its_place(slip):
    """Whatever stands in the texts: nothing leaves the paper, and nothing stands on something else."""
    laid = compose(slip, measure, MEDIA["label-4x6"])

    boxes = [box(text) for text in laid.texts]
    qr = laid.qr
    boxes.append((qr.x, qr.y, qr.x + qr.side, qr.y + qr.side))
    if bars := laid.barcode:
        boxes.append((bars.x, bars.y, bars.x + bars.width, bars.y + bars.height))
    edge, right, bottom = laid.medium.margin, laid.medium.width, laid.medium.height
    assert all(edge <= x + 0.01 and edge <= y + 0.01 for x, y, _, _ in boxes)
    assert all(x <= right - edge + 0.01 and y <= bottom - edge + 0.01 for _, _, x, y in boxes)
    assert all(apart(one, other) for one, other in itertools.combinations(boxes, 2))


@settings(max_examples=25, deadline=None)
@given(contents)
@example(FULL)
def test_every_slip_is_one_small_page(slip):
    """Whatever stands in the texts: one page, under 60 kB, whose own code a decoder reads."""
    pdf = render_pdf(slip)

    assert len(pdf) < 60_000
    assert slip.code in codes_of(pdf).values()
