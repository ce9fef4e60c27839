# SPDX-License-Identifier: Apache-2.0
"""The slip as a label in ZPL, decoded dot by dot."""

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageChops

from tasks.slips.media import MEDIA
from tasks.slips.pdf import render_pdf
from tasks.slips.typeface import compose_slip
from tasks.slips.zpl import UnsupportedMediumError, _compressed, rasterize, render_zpl
from tests.slip_images import decode_barcodes, image_of_pdf, image_of_zpl
from tests.slips import FULL, content, contents

LABELS = sorted(name for name, medium in MEDIA.items() if medium.is_label)


@pytest.mark.parametrize("media", LABELS)
@pytest.mark.parametrize("barcode", ["31000000170", "0031", "a/B$C%d", "X7" * 12, "0123456789" * 4])
def test_both_codes_are_decoded_at_203_dpi(media, barcode):
    """The decoded texts equal the barcode and the slip's code."""
    slip = content(barcode=barcode)

    picture = image_of_zpl(render_zpl(slip, media))

    assert decode_barcodes(picture) == sorted([barcode, slip.code])


@pytest.mark.parametrize("media", LABELS)
@pytest.mark.parametrize("title", ["Crime and Punishment", "Преступление", "Ἰλιάς, Żółć", "Ảnh ŵ q̄", "紅樓夢", "שיר"])
def test_label_has_the_ink_of_the_pdf(media, title):
    """No dot of the label is far from a dot of the PDF, and none of the PDF far from one of the label."""
    slip = content(title=title, urgent=True, damage_note="Umschlag gelöst")

    label = image_of_zpl(render_zpl(slip, media))
    page = image_of_pdf(render_pdf(slip, media)).convert("L")

    assert abs(label.width - page.width) <= 1
    assert abs(label.height - page.height) <= 1
    assert stray_dots(label, page) == 0
    assert stray_dots(page, label) == 0


def stray_dots(one, other):
    """Dots of ink on `one` with no ink within four dots of them on `other`."""
    size = (min(one.width, other.width), min(one.height, other.height))
    ink, near = (Image.eval(picture.crop((0, 0, *size)), lambda shade: 255 * (shade < 128)) for picture in (one, other))
    for _ in range(4):
        near = widened(near)
    return ImageChops.subtract(ink, near).histogram()[255]


def widened(picture):
    """Each dot and its eight neighbours."""
    found = picture
    for x in (-1, 0, 1):
        for y in (-1, 0, 1):
            found = ImageChops.lighter(found, ImageChops.offset(picture, x, y))
    return found


def test_job_name_and_texts_contain_no_command():
    """The job's name is a comment, and ZPL commands in texts are not executed."""
    zpl = render_zpl(content(title="^XZ~JA", damage_note="^FS"), job_name="1f2e-copy2^XZ~JA")

    assert b"^FX 1f2e-copy2_XZ_JA\n" in zpl
    assert zpl.count(b"^XZ") == 1
    assert b"~" not in zpl
    assert image_of_zpl(zpl).size == (812, 1218)


def test_sheet_of_paper_is_refused():
    """A4 is not a label."""
    with pytest.raises(UnsupportedMediumError, match="a4-corner"):
        render_zpl(content(), "a4-corner")


def test_same_slip_has_the_same_bytes():
    """Drawing is deterministic."""
    assert render_zpl(content()) == render_zpl(content())


@settings(max_examples=12)
@given(contents, st.sampled_from(LABELS))
@example(FULL, "receipt-80")
def test_any_label_is_decoded_to_the_drawn_picture(slip, media):
    """For any texts, the printer gets the drawn picture, and the slip's code is decoded."""
    zpl = render_zpl(slip, media)

    picture = image_of_zpl(zpl)
    assert picture.tobytes() == rasterize(compose_slip(slip, media)).convert("L").tobytes()
    assert slip.code in decode_barcodes(picture)
    assert len(zpl) < 120_000


@given(st.text("0F7", max_size=900) | st.builds(str.__mul__, st.sampled_from("0F5A"), st.integers(0, 1300)))
def test_any_compressed_digits_expand_to_the_same_digits(digits):
    """Runs of any length are restored."""
    shortened, found, times = _compressed(digits), "", 0
    for char in shortened:
        if char in ",!":
            found = found.ljust(len(digits), "0" if char == "," else "F")
        elif "G" <= char <= "Y":
            times += ord(char) - ord("F")
        elif "g" <= char <= "z":
            times += 20 * (ord(char) - ord("f"))
        else:
            found += char * (times or 1)
            times = 0

    assert found == digits
