"""Synthetic mammograms: the scene of one breast, before any vendor's rendering.

Everything is drawn as a left breast with the chest wall at the left edge; a right breast is its
mirror image. Lengths are fractions of the breast's height until rasterisation, so a scene looks the
same at any resolution. Micro-calcifications are deliberately drawn a few times too large, so that
they survive the demo's downscaling to about 160 pixels.

As in the clinic, brightness alone does not reveal a lesion: glandular tissue, the pectoral muscle,
lymph nodes and coarse calcifications are as bright as malignant findings.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, cast

import numpy as np
import numpy.typing as npt

from mamfed_simulations.phantoms import lesions
from mamfed_simulations.phantoms.anatomy import Density, Scene, View, draw_breast

__all__ = ["Density", "Laterality", "Patient", "Phantom", "Population", "View", "draw_patient"]

Laterality = Literal["L", "R"]


class Phantom(NamedTuple):
    """One drawn mammogram.

    Attributes:
        attenuation: ``(H, W)`` float32 in [0, 1], dense tissue bright, air 0.
        mask: ``(H, W)`` bool, true on malignant findings; all false if there are none.
        breast_mask: ``(H, W)`` bool, true inside the breast.
        laterality: Which breast; a right one has its chest wall at the right edge.
        view: The projection.
        density: ACR density class.
        finding: ``""``, ``"mass"``, ``"calcification"`` or ``"mass|calcification"``; malignant
            findings only, never benign look-alikes.
        look_alikes: Number of benign findings (cysts, lymph nodes, coarse calcifications) in the
            image.
    """

    attenuation: npt.NDArray[np.float32]
    mask: npt.NDArray[np.bool_]
    breast_mask: npt.NDArray[np.bool_]
    laterality: Laterality
    view: View
    density: Density
    finding: str
    look_alikes: int


@dataclass(frozen=True)
class Population:
    """The patient population of a hospital, as far as hospitals differ.

    Attributes:
        densities: Shares of the density classes A to D; they sum to 1.
        calcification_share: Share of malignant patients with micro-calcifications only.
        both_share: Share of malignant patients with a mass and micro-calcifications.
        spiculation: Length of a mass's spicules relative to the default, 0 or more.
        contrast: Attenuation of lesions relative to the default, above 0.
    """

    densities: tuple[float, float, float, float] = (0.12, 0.38, 0.38, 0.12)
    calcification_share: float = 0.3
    both_share: float = 0.15
    spiculation: float = 1.0
    contrast: float = 1.0


class Patient(NamedTuple):
    """Properties that all views of a patient share; lengths are fractions of the breast's height.

    Attributes:
        laterality: The imaged breast.
        density: ACR density class.
        height: Breast height as a fraction of the image's rows, 0.68..0.86.
        depth: Chest wall to nipple.
        finding: As in :class:`Phantom`.
        lesion_depth: Distance of the lesion behind the nipple, as a fraction of ``depth``; equal in
            both views, as a reader expects.
        mass_radius: Mean radius of the malignant mass.
        cluster_radius: Radius of the cluster of micro-calcifications.
        cyst_radii: One per benign mass.
        coarse: Number of coarse benign calcifications.
    """

    laterality: Laterality
    density: Density
    height: float
    depth: float
    finding: str
    lesion_depth: float
    mass_radius: float
    cluster_radius: float
    cyst_radii: tuple[float, ...]
    coarse: int


def draw_patient(
    rng: np.random.Generator,
    shape: tuple[int, int],
    population: Population,
    *,
    malignant: bool,
    views: Sequence[View] = ("CC", "MLO"),
) -> list[Phantom]:
    """Draw the views of one new patient: one breast, one lesion seen in each view.

    Args:
        rng: Source of every random choice.
        shape: Rows and columns of the images; at least about 128 rows.
        population: Population from which the patient is drawn.
        malignant: Whether there is a malignant finding.
        views: The projections to draw.

    Returns:
        One phantom per view, in the order of ``views``.
    """
    patient = invent_patient(rng, population, malignant=malignant)
    return [draw_view(rng, shape, population, patient, view) for view in views]


def invent_patient(rng: np.random.Generator, population: Population, *, malignant: bool) -> Patient:
    """Draw the properties that all views of a patient share."""
    return Patient(
        laterality="L" if rng.random() < 0.5 else "R",
        density=cast(Density, "ABCD"[rng.choice(4, p=population.densities)]),
        height=rng.uniform(0.68, 0.86),
        depth=rng.uniform(0.42, 0.62),
        finding=_invent_finding(rng, population) if malignant else "",
        lesion_depth=rng.uniform(0.25, 0.75),
        mass_radius=rng.uniform(0.045, 0.11),
        cluster_radius=rng.uniform(0.045, 0.08),
        cyst_radii=tuple(rng.uniform(0.025, 0.055, size=rng.choice(3, p=(0.55, 0.3, 0.15)))),
        coarse=int(rng.choice(4, p=(0.5, 0.25, 0.15, 0.1))),
    )


def _invent_finding(rng: np.random.Generator, population: Population) -> str:
    chance = rng.random()
    if chance < population.calcification_share:
        return "calcification"
    if chance < population.calcification_share + population.both_share:
        return "mass|calcification"
    return "mass"


def draw_view(
    rng: np.random.Generator,
    shape: tuple[int, int],
    population: Population,
    patient: Patient,
    view: View,
) -> Phantom:
    """Draw one projection of a patient, with its own geometry and texture.

    Args:
        rng: Source of every random choice.
        shape: Rows and columns of the image.
        population: Determines the contrast and spiculation of lesions.
        patient: The properties shared by all views.
        view: The projection.

    Returns:
        The finished phantom.
    """
    scene = draw_breast(
        rng,
        shape,
        view=view,
        density=patient.density,
        height=patient.height,
        depth=patient.depth,
    )
    look_alikes = _add_benign(rng, scene, patient, view)
    if patient.finding:
        _add_malignant(rng, scene, patient, population)
    attenuation = np.clip(scene.attenuation, 0, 1) * scene.breast_mask
    mask = scene.mask & scene.breast_mask
    side = slice(None, None, -1 if patient.laterality == "R" else 1)
    return Phantom(
        attenuation=np.ascontiguousarray(attenuation[:, side]),
        mask=np.ascontiguousarray(mask[:, side]),
        breast_mask=np.ascontiguousarray(scene.breast_mask[:, side]),
        laterality=patient.laterality,
        view=view,
        density=patient.density,
        finding=patient.finding,
        look_alikes=look_alikes,
    )


def _add_benign(rng: np.random.Generator, scene: Scene, patient: Patient, view: View) -> int:
    """Add vessels, cysts, nodes and coarse calcifications; return the number of look-alikes."""
    for _ in range(rng.integers(1, 4)):
        lesions.draw_vessel(rng, scene)
    for radius in patient.cyst_radii:
        lesions.draw_cyst(rng, scene, radius)
    for _ in range(patient.coarse):
        lesions.draw_coarse_calcification(rng, scene)
    nodes = int(rng.random() < (0.4 if view == "MLO" else 0.08))
    for _ in range(nodes):
        lesions.draw_lymph_node(rng, scene, axillary=view == "MLO")
    return len(patient.cyst_radii) + patient.coarse + nodes


def _add_malignant(
    rng: np.random.Generator, scene: Scene, patient: Patient, population: Population
) -> None:
    """Add the findings in ``patient.finding``; a mass and its micro-calcifications touch."""
    radius = patient.mass_radius if "mass" in patient.finding else patient.cluster_radius
    x, y = lesions.find_place(rng, scene, radius, behind_nipple=patient.lesion_depth)
    if "mass" in patient.finding:
        lesions.draw_mass(rng, scene, (x, y), radius, population.contrast, population.spiculation)
    if "calcification" in patient.finding:
        lesions.draw_cluster(rng, scene, (x, y), patient.cluster_radius, population.contrast)
