"""Checks of an image by itself.

What is measured on 1,709 images of eight film and digital data sets and three phantom vendors, and
on the same ones cropped, turned, saturated and joined, is in docs/decisions/0040.
"""

from __future__ import annotations

from collections.abc import Callable

from mamfed_client.imaging.doubts import Doubt, Doubtful
from mamfed_client.imaging.rejections import FileRejected, Reason
from mamfed_client.plausibility.picture import Picture

Check = Callable[[Picture], Doubtful | None]

ICON = 64
"""Longest side in pixels below which nothing of a breast can be seen: 4 mm a pixel."""
THUMBNAIL = 150
"""Below this a pixel is 1.6 mm wide: no margin of a mass, no calcification."""
ALL_PLAIN, MUCH_PLAIN = 0.8, 0.35
"""Share of the breast at one grey level; 0.19 at most in real images."""
TOUCHED = 0.2
"""Share of each border that is breast where the picture is a piece of one; none has 0.1 on all."""
SMOOTH, ROUGH = 0.003, 0.12
"""Texture, which is 0.0056 to 0.061 in real images; 0 in a ramp, and noise has 0.15 or more."""
WIDE, STRAIGHTER = 0.85, 0.1
"""A lying breast's box is wider than high (0.89 at least for standing ones), and it ends
straighter at its top or bottom than at either side, or at one of the two than at the other."""
SECOND = 0.25
"""Size of a second body that is no muscle, tape or label: 0.23 at most in real images."""
TIP, BROAD = 0.3, 1.35
"""A body that ends in a tip on both sides, and is broad, is no standing breast."""
BLUNT = 0.36
"""What counts as a tip of a body that is wider than a standing breast."""
EVEN = 0.66
"""Two breasts that touch along their chest walls are much alike above and below; a lying one, whose
wall is at one end, is not: this parts 97 of 100 pairs from 99 of 100 lying ones."""
TWO_WALLS, WAIST = 0.6, 0.85
"""Two breasts whose tips touch end straight on both sides (0.36 at most in real images), and are
lower where they touch."""
MUSCLE_BELOW = 0.45
"""How much straighter an MLO ends below than above; 0.42 at most where it stands upright."""


def is_tiny(picture: Picture) -> Doubtful | None:
    """Refuse an icon, doubt a thumbnail."""
    longest = max(picture.rows, picture.columns)
    found = f"{picture.columns} x {picture.rows} pixels"
    if longest < ICON:
        raise FileRejected(Reason.IMPLAUSIBLE_IMAGE, f"{found}, an icon")
    return Doubtful(Doubt.IMAGE_SMALL, found) if longest < THUMBNAIL else None


def is_plain(picture: Picture) -> Doubtful | None:
    """Refuse a breast that is all one grey, doubt one that is much of one."""
    found = f"{picture.plain_share:.0%} of the breast at one grey level"
    if picture.plain_share >= ALL_PLAIN:
        raise FileRejected(Reason.IMPLAUSIBLE_IMAGE, found)
    return Doubtful(Doubt.SATURATED, found) if picture.plain_share >= MUCH_PLAIN else None


def is_piece(picture: Picture) -> Doubtful | None:
    """Doubt a picture that is breast on all four borders: a crop, or something else."""
    if min(picture.borders) < TOUCHED:
        return None
    return Doubtful(Doubt.NO_BACKGROUND, f"{min(picture.borders):.0%} of each border or more")


def is_smooth(picture: Picture) -> Doubtful | None:
    """Doubt a breast without texture."""
    return Doubtful(Doubt.SMOOTH) if picture.texture < SMOOTH else None


def is_noise(picture: Picture) -> Doubtful | None:
    """Doubt a breast of grains, as bytes in a wrong order make it."""
    return Doubtful(Doubt.NOISE) if picture.texture > ROUGH else None


def is_lying(picture: Picture) -> Doubtful | None:
    """Doubt a breast whose chest wall is at the top or at the bottom."""
    return Doubtful(Doubt.LYING) if _lies(picture) else None


def _lies(picture: Picture) -> bool:
    left, right, top, bottom = picture.strips
    if _is_face_to_face(picture):
        return False
    if _has_two_tips(picture):
        return picture.evenness < EVEN
    straighter = max(top, bottom) - max(left, right) > STRAIGHTER
    return picture.aspect < WIDE and (straighter or abs(top - bottom) >= MUSCLE_BELOW)


def is_two_breasts(picture: Picture) -> Doubtful | None:
    """Doubt two bodies of similar size, and one with two tips, or with two chest walls."""
    if _has_second(picture):
        return Doubtful(
            Doubt.TWO_BREASTS, f"the second is {picture.look.view.second:.0%} of the first"
        )
    if _is_face_to_face(picture):
        return Doubtful(Doubt.TWO_BREASTS, "face to face")
    return Doubtful(Doubt.TWO_BREASTS, "back to back") if _is_back_to_back(picture) else None


def _has_second(picture: Picture) -> bool:
    return picture.look.view.second >= SECOND


def _is_face_to_face(picture: Picture) -> bool:
    return min(picture.strips.left, picture.strips.right) >= TWO_WALLS and picture.waist < WAIST


def _is_back_to_back(picture: Picture) -> bool:
    return _has_two_tips(picture) and picture.evenness >= EVEN


def _has_two_tips(picture: Picture) -> bool:
    blunter = max(picture.strips.left, picture.strips.right)
    return blunter < (BLUNT if picture.aspect < WIDE else TIP) and picture.aspect < BROAD


def is_upside_down(picture: Picture) -> Doubtful | None:
    """Doubt an oblique view whose muscle is at the bottom, if it is one breast and stands."""
    below = picture.strips.bottom - picture.strips.top >= MUSCLE_BELOW
    if picture.view != "MLO" or not below or _lies(picture):
        return None
    several = _has_second(picture) or _is_face_to_face(picture) or _is_back_to_back(picture)
    return None if several else Doubtful(Doubt.UPSIDE_DOWN)


CHECKS: tuple[Check, ...] = (
    is_tiny,
    is_plain,
    is_piece,
    is_smooth,
    is_noise,
    is_lying,
    is_two_breasts,
    is_upside_down,
)
