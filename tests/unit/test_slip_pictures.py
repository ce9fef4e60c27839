# SPDX-License-Identifier: Apache-2.0
"""Slips as golden pictures. To accept a new picture, delete the file and run this test twice."""

from pathlib import Path

import pytest
from PIL import Image, ImageChops, ImageStat

from schemas.print_jobs import Address
from tasks.slips.media import MEDIA
from tasks.slips.pdf import render_pdf
from tasks.slips.zpl import render_zpl
from tests.slip_images import image_of_pdf, image_of_zpl
from tests.slips import content

GOLDEN = Path(__file__).parent / "golden"
SCALE = 3
"""Golden pictures have a third of the printed size: small files, in which letters are still recognizable."""

LARGEST_DIFFERENCE = 1.5
"""Mean over the picture, of 255: less than one line of small print that moved."""

LARGEST_DIFFERENCE_OF_DOTS = 9
"""The same for black and white dots, whose letters are a shade lighter or darker."""

PLAIN = content()
SPECIAL = content(
    title="Die Verwandlung und andere Erzählungen: mit einem Nachwort über das Übersetzen in fremde Sprachen " * 3,
    author="Φραντς Κάφκα / Франц Кафка / 卡夫卡",
    return_to=Address(name="Österreichische Nationalbibliothek", lines=("Josefsplatz 1", "1015 Wien", "Austria")),
    delivery_code="WIEN-ONB-NORD-17",
    urgent=True, copy_number=2, item_of=(1, 3), damage_note="Umschlag gelöst, Seite 17 eingerissen",
)  # fmt: skip
NO_CODE = SPECIAL.model_copy(update={"delivery_code": None, "urgent": False, "copy_number": 1, "barcode": "紅123"})


def small(picture):
    """The picture at a third of its size, in shades of grey."""
    return picture.convert("L").reduce(SCALE)


@pytest.mark.parametrize("media", sorted(MEDIA))
@pytest.mark.parametrize(("name", "slip"), [("plain", PLAIN), ("special", SPECIAL), ("no-code", NO_CODE)])
def test_slip_equals_its_golden_picture(media, name, slip):
    """Small differences are accepted: another version of the rasterizer smooths edges otherwise."""
    golden = GOLDEN / f"{media}-{name}.png"
    picture = small(image_of_pdf(render_pdf(slip, media)))

    if not golden.exists():
        Image.eval(picture, lambda shade: round(shade / 17) * 17).save(golden, optimize=True)
        pytest.fail(f"{golden.name} was written: inspect it, then commit it")

    assert difference(picture, golden) < LARGEST_DIFFERENCE


@pytest.mark.parametrize("media", sorted(name for name, medium in MEDIA.items() if medium.is_label))
def test_label_equals_the_golden_picture_of_the_pdf(media):
    """A label is black and white only, so a larger difference is accepted."""
    picture = small(image_of_zpl(render_zpl(SPECIAL, media)))

    assert difference(picture, GOLDEN / f"{media}-special.png") < LARGEST_DIFFERENCE_OF_DOTS


def difference(picture, golden):
    """The mean difference of two pictures, of 255. Sizes may differ by one dot."""
    with Image.open(golden) as opened:
        other = opened.convert("L")
    assert abs(other.width - picture.width) <= 1
    assert abs(other.height - picture.height) <= 1
    size = (0, 0, min(other.width, picture.width), min(other.height, picture.height))
    [mean] = ImageStat.Stat(ImageChops.difference(picture.crop(size), other.crop(size))).mean
    return mean
