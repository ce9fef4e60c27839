# SPDX-License-Identifier: Apache-2.0
"""The lending slip as a PDF: its texts, its places, and its codes as a decoder reads them."""

import itertools
import unicodedata

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from schemas.print_jobs import Address
from schemas.slip_codes import short_code
from tasks.slips.elements import CAP_HEIGHT, POINT_MM
from tasks.slips.layout import compose, depth
from tasks.slips.media import MEDIA
from tasks.slips.pdf import render_pdf
from tasks.slips.symbologies import dots_per_module
from tasks.slips.typeface import MISSING, measure, printable, unprintable
from tests.slip_images import decode_barcodes, image_of_pdf, only_page
from tests.slips import FULL, content, contents


def text_of(pdf):
    return only_page(pdf).get_textpage().get_text_bounded().replace("\r\n", "\n")


def codes_of(pdf):
    return decode_barcodes(image_of_pdf(pdf))


def test_slip_has_all_texts_of_the_way_home():
    """Delivery code, lender, sender, title, author, request and date are on one page of a small file."""
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
def test_both_codes_are_decoded_at_203_dpi(media, barcode):
    """The decoded texts equal the barcode and the slip's code."""
    slip = content(barcode=barcode)

    read = codes_of(render_pdf(slip, media))

    without_bars = media == "receipt-80" and len(barcode) >= 60
    assert read == ([slip.code] if without_bars else sorted([barcode, slip.code]))
    assert unprintable(slip, media) == (("barcode",) if without_bars else ())


def test_barcode_too_long_for_the_paper_is_printed_as_text():
    """Bars narrower than a dot cannot be read: the text is large enough to type, and staff get a warning."""
    slip = content(barcode="X" * 64)

    assert "X" * 64 in text_of(render_pdf(slip, "receipt-80")).replace("\n", "")
    assert unprintable(slip, "receipt-80") == ("barcode",)
    assert unprintable(slip, "label-4x6") == ()


@pytest.mark.parametrize("barcode", ["bücher-1", "ñ123é4", "紅123"])
def test_barcode_outside_code_128_has_no_bars(barcode):
    """No bars are printed rather than those of another barcode, and staff get a warning."""
    slip = content(barcode=barcode)
    pdf = render_pdf(slip)

    assert codes_of(pdf) == [slip.code]
    assert printable(barcode) in text_of(pdf)
    assert unprintable(slip) == ("barcode",)


@pytest.mark.parametrize("media", sorted(MEDIA))
@pytest.mark.parametrize("code", ["RUL", "W", "NODE-17", "gjpqy", "A-VERY-LONG-COURIER-CODE", "W" * 40])
def test_delivery_code_is_the_largest_text(code, media):
    """The whole code is printed, and no other text is as large."""
    slip = compose(content(delivery_code=code, urgent=True, copy_number=2), measure, MEDIA[media])

    parts = [text for text in slip.texts if text.role == "delivery-code"]
    others = [text.size for text in slip.texts if text.role != "delivery-code"]
    assert "".join(part.string for part in parts) == code
    assert min(part.size for part in parts) > max(others)


def test_short_delivery_code_fills_the_width():
    """A code of three letters is about 90 millimetres wide, so that sorters read it from a distance."""
    slip = compose(content(), measure, MEDIA["label-4x6"])

    [code] = [text for text in slip.texts if text.role == "delivery-code"]
    assert measure(code.string, code.size, True) > 0.9 * slip.medium.inner_width


def test_name_is_the_largest_text_without_a_delivery_code():
    """Name and address are large, and the slip states the missing code."""
    name = "Österreichische Nationalbibliothek, Fernleihe und Dokumentlieferung"
    lender = content(delivery_code=None, return_to=Address(name=name, lines=("Josefsplatz 1", "1015 Wien", "Austria")))
    slip = compose(lender, measure, MEDIA["label-4x6"])

    assert "NO DELIVERY CODE" in text_of(render_pdf(lender))
    largest = max(text.size for text in slip.texts)
    assert " ".join(text.string for text in slip.texts if text.size == largest) == name
    assert all(text.size > 14 for text in slip.texts if text.role == "address")


def test_special_slip_has_all_its_marks():
    """Copy, recall, number of items and damage are printed beside all other texts."""
    pdf = render_pdf(content(copy_number=3, urgent=True, item_of=(1, 3), damage_note="spine torn"))

    text = text_of(pdf)
    for words in (
        "COPY 3", "URGENT: RECALLED BY LENDER", "Item 1 of 3", "DAMAGE REPORTED: spine torn", "RUL", "9 River Road",
        "Our Public Library", "Crime and Punishment", "Fyodor Dostoevsky",
    ):  # fmt: skip
        assert words in text


@pytest.mark.parametrize("title", ["Преступление и наказание", "Η Οδύσσεια", "Żółć, œuvre, ğ, ő, ñ, þ", "Cafe\u0301"])
def test_latin_cyrillic_and_greek_are_printed(title):
    """The embedded font has these scripts, in composed and decomposed form."""
    assert unicodedata.normalize("NFC", title) in text_of(render_pdf(content(title=title)))
    assert unprintable(content(title=title)) == ()


@pytest.mark.parametrize(
    ("title", "shown"),
    [
        ("紅樓夢", MISSING),
        ("紅樓夢 / Cao Xueqin", f"{MISSING} / Cao Xueqin"),
        ("ܫܠܡܐ / ߒߞߏ", f"{MISSING} / {MISSING}"),
        ("Book 📚 one", f"Book {MISSING} one"),
        ("a\u200bb\x07c", "abc"),
        ("private \ue000 or not yet assigned \U000323b0", f"private {MISSING} or not yet assigned {MISSING}"),
        ("\U0001d5a0 is in one font only", f"{MISSING} is in one font only"),
    ],
)
def test_characters_outside_the_font_become_a_mark_and_a_warning(title, shown):
    """A run of missing characters becomes one readable mark instead of boxes."""
    assert printable(title) == shown
    assert unprintable(content(title=title)) == (("title",) if MISSING in shown else ())


def test_long_text_is_cut_with_an_ellipsis():
    """A title of a thousand characters is cut; the codes are still decoded."""
    slip = content(title="word " * 200, author="Someone, " * 50, damage_note="torn " * 100, external_id="x" * 100)
    pdf = render_pdf(slip)

    assert text_of(pdf).count("…") == 3
    assert text_of(pdf).count("x") == 100
    assert codes_of(pdf) == sorted([slip.barcode, slip.code])


def test_markup_is_printed_as_text():
    """Markup in a title is not interpreted."""
    assert "<b>& not bold</b>" in text_of(render_pdf(content(title="<b>& not bold</b>")))


def test_same_slip_has_the_same_bytes():
    """Rendering is deterministic."""
    assert render_pdf(content()) == render_pdf(content())


def box(text):
    """Left, top, right, bottom of the letters of a text."""
    height, width = text.size * POINT_MM, measure(text.string, text.size, text.bold)
    return text.x, text.y - CAP_HEIGHT * height, text.x + width, text.y + min(depth(text.string), 0.2) * height


def apart(one, other):
    return one[2] <= other[0] or other[2] <= one[0] or one[3] <= other[1] or other[3] <= one[1]


@pytest.mark.parametrize("media", sorted(MEDIA))
@settings(max_examples=40)
@given(slip=contents)
@example(slip=FULL)
@example(slip=FULL.model_copy(update={"delivery_code": None}))
@example(slip=FULL.model_copy(update={"delivery_code": "W"}))
@example(slip=FULL.model_copy(update={"barcode": "紅" * 64}))
def test_no_part_leaves_the_paper_or_overlaps_another(slip, media):
    """For any texts, all parts are within the margins and apart."""
    layout = compose(slip, measure, MEDIA[media])

    boxes = [box(text) for text in layout.texts]
    qr = layout.qr
    boxes.append((qr.x, qr.y, qr.x + qr.side, qr.y + qr.side))
    if bars := layout.barcode:
        boxes.append((bars.x, bars.y, bars.x + bars.width, bars.y + bars.height))
    edge, right, bottom = layout.medium.margin, layout.medium.width, layout.medium.height
    assert all(edge <= x + 0.01 and edge <= y + 0.01 for x, y, _, _ in boxes)
    assert all(x <= right - edge + 0.01 and y <= bottom - edge + 0.01 for _, _, x, y in boxes)
    assert all(apart(one, other) for one, other in itertools.combinations(boxes, 2))


# Drawing and decoding take 50 to 150 ms; the property above tries more texts on the same layout.
@settings(max_examples=15)
@given(contents, st.sampled_from(sorted(MEDIA)))
@example(FULL, "label-4x6")
@example(FULL, "receipt-80")
def test_any_slip_is_one_small_page_with_a_readable_code(slip, media):
    """For any texts, the PDF has one page and less than 60 kB, and its code is decoded."""
    pdf = render_pdf(slip, media)

    assert len(pdf) < 60_000
    assert slip.code in codes_of(pdf)


def test_long_word_of_a_name_is_not_broken():
    """On narrow paper a name is set smaller: a broken name is misread at the sorting table."""
    name = "Österreichische Nationalbibliothek"
    slip = compose(content(delivery_code=None, return_to=Address(name=name, lines=())), measure, MEDIA["receipt-80"])

    assert [text.string for text in slip.texts if text.role == "return-to"] == name.split()


@pytest.mark.parametrize("media", sorted(MEDIA))
@pytest.mark.parametrize("barcode", ["aB3xY9cD2eF4gH6jK8mN1p", "1234567890" * 4 + "1234"])
def test_usual_barcode_has_bars_of_two_dots(barcode, media):
    """A barcode of up to 22 letters or 44 digits has bars of at least two dots on every medium."""
    slip = compose(content(barcode=barcode), measure, MEDIA[media])

    assert slip.barcode is not None
    assert dots_per_module(barcode, slip.barcode.width) >= 2


NAMES = [
    "Sächsische Landesbibliothek - Staats- und Universitätsbibliothek",
    "Gottfried Wilhelm Leibniz Bibliothek - Niedersächsische Landesbibliothek, Zentrale für Fernleihe und Ausleihe",
    "Thüringer Universitäts- und Landesbibliothek Jena",
    "Bibliothèque nationale et universitaire de Strasbourg, service du prêt entre bibliothèques",
    "W" * 60,
    " ".join(["Landesbibliothek"] * 11),
]


@pytest.mark.parametrize("media", sorted(MEDIA))
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("fields", [{}, {"delivery_code": None}, {"delivery_code": "A-VERY-LONG-COURIER-CODE"}])
def test_name_of_a_library_is_never_cut_while_there_is_room(media, name, fields):
    """The lender's name and our own are complete on every medium, with and without a delivery code."""
    library = Address(name=name, lines=("Zellescher Weg 18", "01069 Dresden"))
    layout = compose(content(return_to=library, sent_from=library, title="word " * 60, **fields), measure, MEDIA[media])

    for role in ("return-to", "sent-from"):
        shown = "".join(text.string for text in layout.texts if text.role == role)
        assert shown.replace(" ", "") == name.replace(" ", "")


@pytest.mark.parametrize("media", sorted(MEDIA))
def test_title_is_cut_only_where_no_further_line_fits(media):
    """A cut title leaves no white space as high as one of its lines."""
    layout = compose(content(title="word " * 100, delivery_code="A-VERY-LONG-COURIER-CODE"), measure, MEDIA[media])

    titles = [text for text in layout.texts if text.role == "title"]
    assert titles[-1].string.endswith("…")
    code = [text for text in layout.texts if text.role == "delivery-code"]
    assert layout.barcode is not None
    free = layout.barcode.y - 3 - max(text.y for text in layout.texts if text.y < layout.barcode.y)
    above = code[0].y - CAP_HEIGHT * code[0].size * POINT_MM - layout.medium.margin
    assert free + 2 * above < 3 * titles[0].size * POINT_MM


@pytest.mark.parametrize("media", sorted(MEDIA))
@pytest.mark.parametrize("code", ["OPL-07", "W" * 40])
def test_own_courier_code_is_beside_from_and_smaller_than_the_lenders(media, code):
    """The branch's own code is printed with the word FROM, so that sorters do not take it for the destination."""
    layout = compose(content(sent_from_code=code), measure, MEDIA[media])

    own = [text for text in layout.texts if text.role == "sent-from-code"]
    [lenders] = [text for text in layout.texts if text.role == "delivery-code"]
    assert "".join(text.string for text in own).replace(" ", "") == f"FROM{code}"
    assert max(text.size for text in own) < lenders.size / 2
    assert code in text_of(render_pdf(content(sent_from_code=code), media)).replace("\n", "")
    assert unprintable(content(sent_from_code="紅"), media) == ("sender",)


def test_slip_shows_the_short_form_of_its_code():
    """Staff type the short form when the code is damaged."""
    assert f"Slip {short_code(content().job_id)}" in text_of(render_pdf(content()))
