"""ICC profiles made from numbers: what PNG's cHRM, gAMA and cICP, and AVIF's and HEIF's nclx, say about colours.

Numbers of primaries and transfer functions: ITU-T H.273. PQ and HLG: ITU-R BT.2100, with 203 cd/m² as reference white
(BT.2408) and what is brighter bent below white (extended Reinhard), for what is made of it has no headroom.
"""

import math
import struct
from collections.abc import Callable
from typing import Final

Curve = Callable[[float], float]
Matrix = tuple[tuple[float, ...], ...]

_D50: Final = (0.9642, 1.0, 0.8249)  # of the profile connection space, ICC.1
_D65: Final = (0.3127, 0.3290)
_BRADFORD: Final = ((0.8951, 0.2664, -0.1614), (-0.7502, 1.7135, 0.0367), (0.0389, -0.0685, 1.0296))
_CURVE_POINTS: Final = 4096
_PEAK: Final = 1000 / 203  # brightest light of a PQ or HLG picture, in reference whites

SRGB_PRIMARIES: Final = (*_D65, 0.64, 0.33, 0.30, 0.60, 0.15, 0.06)
"""x and y of white, red, green and blue, the order of cHRM."""
_BT470M: Final = (0.310, 0.316, 0.67, 0.33, 0.21, 0.71, 0.14, 0.08)
_BT601_625: Final = (*_D65, 0.64, 0.33, 0.29, 0.60, 0.15, 0.06)
_BT601_525: Final = (*_D65, 0.630, 0.340, 0.310, 0.595, 0.155, 0.070)
PRIMARIES: Final = {
    1: SRGB_PRIMARIES, 4: _BT470M, 5: _BT601_625, 6: _BT601_525, 7: _BT601_525,
    9: (*_D65, 0.708, 0.292, 0.170, 0.797, 0.131, 0.046), 11: (0.314, 0.351, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060),
    12: (*_D65, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060), 22: (*_D65, 0.630, 0.340, 0.295, 0.605, 0.155, 0.077),
}


def srgb_curve(value: float) -> float:
    """Light of an sRGB number, both from 0 to 1."""
    return value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4


def power_curve(exponent: float) -> Curve:
    """Light of a number as its power."""
    return lambda value: value**exponent


def _pq(value: float) -> float:
    root = value ** (1 / 78.84375)
    light = (max(root - 0.8359375, 0.0) / (18.8515625 - 18.6875 * root)) ** (1 / 0.1593017578125)
    return _below_white(light * 10_000 / 203)


def _hlg(value: float) -> float:
    scene = value * value / 3 if value <= 0.5 else (math.exp((value - 0.55991073) / 0.17883277) + 0.28466892) / 12
    return _below_white(scene**1.2 * _PEAK)


def _below_white(light: float) -> float:
    light = min(light, _PEAK)
    return light * (1 + light / _PEAK**2) / (1 + light)


# BT.709's and its relatives' pictures are shown with sRGB's curve: what browsers do, for screens are made for it.
CURVES: Final[dict[int, Curve]] = {
    1: srgb_curve, 6: srgb_curve, 14: srgb_curve, 15: srgb_curve, 13: srgb_curve, 4: power_curve(2.2),
    5: power_curve(2.8), 8: power_curve(1.0), 16: _pq, 18: _hlg,
}


def rgb_profile(primaries: tuple[float, ...], curve: Curve) -> bytes | None:
    """A display profile of `primaries` and one curve; `None` where they span no colour space."""
    try:
        matrix = _to_d50(primaries)
    except ZeroDivisionError:
        return None
    if max(abs(value) for row in matrix for value in row) >= 32_768:  # s15Fixed16
        return None
    columns = {name: _xyz(*(row[at] for row in matrix)) for at, name in enumerate((b"rXYZ", b"gXYZ", b"bXYZ"))}
    shape = _curve(curve)
    return _profile(b"RGB ", {**columns, b"rTRC": shape, b"gTRC": shape, b"bTRC": shape})


def grey_profile(curve: Curve) -> bytes:
    """A display profile of greys."""
    return _profile(b"GRAY", {b"kTRC": _curve(curve)})


def _to_d50(primaries: tuple[float, ...]) -> Matrix:
    """RGB light → XYZ of the connection space: the primaries scaled to their white, white adapted (Bradford)."""
    white, *corners = (_from_xy(*primaries[at : at + 2]) for at in (0, 2, 4, 6))
    unscaled = tuple(zip(*corners, strict=True))
    scale = _apply(_inverse(unscaled), white)
    matrix = tuple(tuple(value * factor for value, factor in zip(row, scale, strict=True)) for row in unscaled)
    cones, wanted = _apply(_BRADFORD, white), _apply(_BRADFORD, _D50)
    adapt = tuple(
        tuple(value * goal / cone for value in row) for row, goal, cone in zip(_BRADFORD, wanted, cones, strict=True)
    )
    return _product(_product(_inverse(_BRADFORD), adapt), matrix)


def _from_xy(x: float, y: float) -> tuple[float, ...]:
    return (x / y, 1.0, (1 - x - y) / y)


def _apply(matrix: Matrix, vector: tuple[float, ...]) -> tuple[float, ...]:
    return tuple(sum(a * b for a, b in zip(row, vector, strict=True)) for row in matrix)


def _product(left: Matrix, right: Matrix) -> Matrix:
    columns = tuple(zip(*right, strict=True))
    return tuple(_apply(columns, row) for row in left)


def _inverse(matrix: Matrix) -> Matrix:
    (a, b, c), (d, e, f), (g, h, i) = matrix
    cofactors = (
        (e * i - f * h, c * h - b * i, b * f - c * e), (f * g - d * i, a * i - c * g, c * d - a * f),
        (d * h - e * g, b * g - a * h, a * e - b * d),
    )
    determinant = a * cofactors[0][0] + b * cofactors[1][0] + c * cofactors[2][0]
    return tuple(tuple(value / determinant for value in row) for row in cofactors)


def _xyz(*values: float) -> bytes:
    return b"XYZ \0\0\0\0" + struct.pack(">3i", *(round(value * 65536) for value in values))


def _curve(curve: Curve) -> bytes:
    light = (curve(at / (_CURVE_POINTS - 1)) for at in range(_CURVE_POINTS))
    points = [round(65535 * min(max(value, 0.0), 1.0)) for value in light]
    return b"curv\0\0\0\0" + struct.pack(f">I{_CURVE_POINTS}H", _CURVE_POINTS, *points)


def _profile(space: bytes, tags: dict[bytes, bytes]) -> bytes:
    """A version 2 display profile (ICC.1:2001-04) with just these tags and a white point."""
    tags = {b"wtpt": _xyz(*_D50), **tags}
    table, body, offset = b"", b"", 128 + 4 + 12 * len(tags)
    for name, data in tags.items():
        table += name + struct.pack(">II", offset + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    header = struct.pack(">I4xI4s4s4s12x4s28x", offset + len(body), 0x02400000, b"mntr", space, b"XYZ ", b"acsp")
    return (header + _xyz(*_D50)[8:]).ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + body
