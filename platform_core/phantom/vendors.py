"""Three vendors' habits: what their headers say and how their scanners see. All names are made up.

Sites differ mildly at first, as real ones do; `WEST_NEW` is the scanner that replaces one
of them: another kernel, coarser and noisier.
"""

from dataclasses import dataclass
from typing import Literal

from platform_core.phantom.acquire import Acquisition

Encoding = Literal["explicit", "rle", "enhanced"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scanner:
    """One machine at one site."""

    manufacturer: str
    scanner_model: str
    software: str
    kernel: str
    kvp: float
    institution: str
    encoding: Encoding
    """`explicit` and `rle`: one file per slice; `enhanced`: one multi-frame file per scan, explicit little endian."""
    intercept_hu: int
    """Rescale intercept: -1024 with unsigned pixels, 0 with signed ones."""
    acquisition: Acquisition


NORTH = Scanner(
    manufacturer="Aurora Medical",
    scanner_model="Aurora CT 64",
    software="AX 4.2",
    kernel="B30f",
    kvp=120.0,
    institution="Northern General",
    encoding="explicit",
    intercept_hu=-1024,
    acquisition=Acquisition(spacing_mm=(1.25, 1.25, 3.0), size=(60, 60, 12), psf_sigma_mm=0.9, noise_hu=14.0),
)
EAST = Scanner(
    manufacturer="Boreal Imaging",
    scanner_model="Boreal One",
    software="7.1.0",
    kernel="STANDARD",
    kvp=120.0,
    institution="Eastern University Hospital",
    encoding="rle",
    intercept_hu=0,
    acquisition=Acquisition(
        spacing_mm=(1.4, 1.4, 3.0), size=(54, 54, 12), psf_sigma_mm=0.95, noise_hu=13.0, gain=1.004, offset_hu=2.0
    ),
)
WEST = Scanner(
    manufacturer="Cirrus Systems",
    scanner_model="Cirrus 20",
    software="R2023b",
    kernel="FC08",
    kvp=120.0,
    institution="Western Clinic",
    encoding="enhanced",
    intercept_hu=-1024,
    acquisition=Acquisition(
        spacing_mm=(1.1, 1.1, 3.0), size=(66, 66, 12), psf_sigma_mm=0.9, noise_hu=15.0, gain=0.997, offset_hu=-2.0
    ),
)
WEST_NEW = Scanner(
    manufacturer="Cirrus Systems",
    scanner_model="Cirrus Flash",
    software="R2026a",
    kernel="FC03",
    kvp=120.0,
    institution="Western Clinic",
    encoding="enhanced",
    intercept_hu=-1024,
    acquisition=Acquisition(
        spacing_mm=(1.6, 1.6, 4.0),
        size=(46, 46, 9),
        psf_sigma_mm=2.4,
        noise_hu=32.0,
        noise_grain_mm=0.9,
        gain=0.997,
        offset_hu=-2.0,
    ),
)
