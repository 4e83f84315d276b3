"""Checks of an image by itself.

The thresholds come from 1,709 images of eight film and digital data sets and three phantom vendors,
and from the same images cropped, rotated, saturated and joined; see docs/decisions/0040.
"""

from __future__ import annotations

from collections.abc import Callable

from mamfed_client.imaging.doubts import Doubt, Doubtful
from mamfed_client.imaging.rejections import FileRejected, Reason
from mamfed_client.plausibility.image_features import ImageFeatures

Check = Callable[[ImageFeatures], Doubtful | None]

ICON = 64
"""An image whose longest side is below this shows nothing of a breast: a pixel is 4 mm wide."""
THUMBNAIL = 150
"""Below this a pixel is 1.6 mm wide, too coarse for the margin of a mass or a calcification."""
ALL_PLAIN, MUCH_PLAIN = 0.8, 0.35
"""Shares of the breast at one grey level; the maximum in real images is 0.19."""
TOUCHED = 0.2
"""Minimum share of breast on every border of a cropped breast; no complete image has 0.1 on all."""
SMOOTH, ROUGH = 0.003, 0.12
"""Limits of texture: 0.0056 to 0.061 in real images, 0 in a ramp, and at least 0.15 in noise."""
WIDE, STRAIGHTER = 0.85, 0.1
"""A lying breast has a box wider than high (aspect at least 0.89 if upright), and is straighter at
the top or bottom than at either side, or at one of the two than at the other."""
SECOND = 0.25
"""Minimum relative area of a second breast; muscle, tape and labels reach 0.23 in real images."""
TIP, BROAD = 0.3, 1.35
"""A broad body that ends in a tip on both sides is not an upright breast."""
BLUNT = 0.36
"""Limit of a tip in a body that is wider than an upright breast."""
EVEN = 0.66
"""Two breasts that touch along their chest walls are vertically symmetric; a lying breast, whose
chest wall is at one end, is not. This separates 97 of 100 pairs from 99 of 100 lying breasts."""
TWO_WALLS, WAIST = 0.6, 0.85
"""Two breasts whose tips touch end straight on both sides (the maximum in real images is 0.36), and
have a waist where they touch."""
MUSCLE_BELOW = 0.45
"""Minimum difference of the bottom and top strips; upright MLO images reach 0.42."""


def is_tiny(image: ImageFeatures) -> Doubtful | None:
    """Reject icons, doubt thumbnails."""
    longest = max(image.rows, image.columns)
    detail = f"{image.columns} x {image.rows} pixels"
    if longest < ICON:
        raise FileRejected(Reason.IMPLAUSIBLE_IMAGE, f"{detail}, an icon")
    return Doubtful(Doubt.IMAGE_SMALL, detail) if longest < THUMBNAIL else None


def is_plain(image: ImageFeatures) -> Doubtful | None:
    """Reject a breast of uniform grey, doubt one that is largely uniform."""
    detail = f"{image.plain_share:.0%} of the breast at one grey level"
    if image.plain_share >= ALL_PLAIN:
        raise FileRejected(Reason.IMPLAUSIBLE_IMAGE, detail)
    return Doubtful(Doubt.SATURATED, detail) if image.plain_share >= MUCH_PLAIN else None


def is_piece(image: ImageFeatures) -> Doubtful | None:
    """Doubt an image with breast on all four borders: a crop, or not a breast."""
    if min(image.borders) < TOUCHED:
        return None
    return Doubtful(Doubt.NO_BACKGROUND, f"at least {min(image.borders):.0%} of each border")


def is_smooth(image: ImageFeatures) -> Doubtful | None:
    """Doubt a breast without texture."""
    return Doubtful(Doubt.SMOOTH) if image.texture < SMOOTH else None


def is_noise(image: ImageFeatures) -> Doubtful | None:
    """Doubt a breast that is noise, as bytes in the wrong order produce."""
    return Doubtful(Doubt.NOISE) if image.texture > ROUGH else None


def is_lying(image: ImageFeatures) -> Doubtful | None:
    """Doubt a breast whose chest wall is at the top or bottom."""
    return Doubtful(Doubt.LYING) if _has_chest_wall_above_or_below(image) else None


def _has_chest_wall_above_or_below(image: ImageFeatures) -> bool:
    left, right, top, bottom = image.strips
    if _is_face_to_face(image):
        return False
    if _has_two_tips(image):
        return image.evenness < EVEN
    straighter = max(top, bottom) - max(left, right) > STRAIGHTER
    return image.aspect < WIDE and (straighter or abs(top - bottom) >= MUSCLE_BELOW)


def is_two_breasts(image: ImageFeatures) -> Doubtful | None:
    """Doubt two bodies of similar size, or a body with two tips or two chest walls."""
    if _has_second(image):
        return Doubtful(
            Doubt.TWO_BREASTS, f"the second is {image.analysis.view.second:.0%} of the first"
        )
    if _is_face_to_face(image):
        return Doubtful(Doubt.TWO_BREASTS, "face to face")
    return Doubtful(Doubt.TWO_BREASTS, "back to back") if _is_back_to_back(image) else None


def _has_second(image: ImageFeatures) -> bool:
    return image.analysis.view.second >= SECOND


def _is_face_to_face(image: ImageFeatures) -> bool:
    return min(image.strips.left, image.strips.right) >= TWO_WALLS and image.waist < WAIST


def _is_back_to_back(image: ImageFeatures) -> bool:
    return _has_two_tips(image) and image.evenness >= EVEN


def _has_two_tips(image: ImageFeatures) -> bool:
    blunter = max(image.strips.left, image.strips.right)
    return blunter < (BLUNT if image.aspect < WIDE else TIP) and image.aspect < BROAD


def is_upside_down(image: ImageFeatures) -> Doubtful | None:
    """Doubt an MLO view with the muscle at the bottom, if it shows a single, upright breast."""
    below = image.strips.bottom - image.strips.top >= MUSCLE_BELOW
    if image.view != "MLO" or not below or _has_chest_wall_above_or_below(image):
        return None
    several = _has_second(image) or _is_face_to_face(image) or _is_back_to_back(image)
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
