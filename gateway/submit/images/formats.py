"""What a file is, by its first bytes; names and types that came with it count for nothing."""

from typing import Final, Literal

from gateway.submit.images.refusals import ADVICE, ImageRefused, unreadable, unsupported

Format = Literal["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "HEIF"]

_DECODED: Final[tuple[tuple[int, bytes, Format], ...]] = (
    (0, b"\x89PNG", "PNG"), (0, b"\xff\xd8\xff", "JPEG"), (8, b"WEBP", "WEBP"), (0, b"GIF8", "GIF"),
    (0, b"BM", "BMP"),
)
_TIFF: Final = (b"II*\0", b"MM\0*")
# ISO base media files by their brands (https://mp4ra.org/registered-types/brands), the major one first.
_AVIF_BRANDS: Final = frozenset({b"avif"})
_HEIF_BRANDS: Final = frozenset({b"heic", b"heix", b"heim", b"heis", b"mif1", b"mif2"})
_SEQUENCES: Final = {
    b"avis": "an AVIF sequence", b"hevc": "a HEIF sequence (hevc)", b"hevx": "a HEIF sequence (hevx)",
    b"hevm": "a HEIF sequence (hevm)", b"hevs": "a HEIF sequence (hevs)", b"msf1": "a HEIF sequence (msf1)",
}
_OTHER_BRANDS: Final = {
    b"crx ": "a Canon raw picture (CR3)", b"jxl ": "a JPEG XL picture", b"jp2 ": "a JPEG 2000 picture",
    b"jpx ": "a JPEG 2000 picture", b"jph ": "a JPEG 2000 picture (HTJ2K)", b"qt  ": "a QuickTime video",
    b"M4A ": "a sound file (M4A)", b"M4B ": "a sound file (M4B)", b"avci": "a HEIF picture coded as H.264",
    b"jpeg": "a HEIF picture coded as JPEG", b"vvic": "a HEIF picture coded as VVC",
}
_RAW_TIFFS: Final = ((8, b"CR\x02", "a Canon raw picture (CR2)"),)
# What people send by mistake: a refusal that names it helps more than "unknown".
_STRANGERS: Final = (
    (0, b"%PDF", "a PDF"), (0, b"%!PS", "a PostScript document"), (0, b"PK\3\4", "a ZIP archive"),
    (0, b"\x1aE\xdf\xa3", "a Matroska or WebM video"), (0, b"8BPS", "a Photoshop document (PSD)"),
    (0, b"\xff\x0a", "a JPEG XL picture"), (0, b"\0\0\0\x0cJXL \r\n\x87\n", "a JPEG XL picture"),
    (0, b"\0\0\0\x0cjP  \r\n\x87\n", "a JPEG 2000 picture"), (0, b"\xff\x4f\xff\x51", "a JPEG 2000 codestream"),
    (0, b"II\xbc", "a JPEG XR picture"), (0, b"\0\0\1\0", "a Windows icon (ICO)"), (0, b"\0\0\2\0", "a cursor (CUR)"),
    (0, b"icns", "an Apple icon (ICNS)"), (0, b"qoif", "a QOI picture"), (0, b"DDS ", "a DDS texture"),
    (0, b"\x76\x2f\x31\x01", "an OpenEXR picture"), (0, b"#?RADIANCE", "a Radiance HDR picture"),
    (0, b"gimp xcf", "a GIMP document (XCF)"), (0, b"FUJIFILMCCD-RAW", "a Fujifilm raw picture (RAF)"),
    (0, b"IIRO", "an Olympus raw picture (ORF)"), (0, b"IIU\0", "a Panasonic raw picture (RW2)"),
    (0, b"RIFF", "an AVI or WAV file"), (0, b"OggS", "an Ogg file"), (0, b"\x1f\x8b", "a gzip archive"),
    (0, b"Rar!", "a RAR archive"), (0, b"7z\xbc\xaf", "a 7z archive"), (0, b"II+\0", "a BigTIFF"),
    (0, b"MM\0+", "a BigTIFF"), (0, b"{", "a JSON text"), (0, b"data:", "the text of a data URI"),
)
_NETPBM: Final = frozenset({b"P1", b"P2", b"P3", b"P4", b"P5", b"P6", b"P7"})
_TEXT_CHARS: Final = 1024


def format_of(data: bytes) -> Format:
    """The format that `data` begins as.

    Raises:
        ImageRefused: it is none that is decoded here; the refusal names what it is where that is known.
    """
    for offset, magic, kind in _DECODED:
        if data.startswith(magic, offset):
            return kind
    if data.startswith(_TIFF):
        for offset, magic, name in _RAW_TIFFS:
            if data.startswith(magic, offset):
                raise unsupported(name)
        return "TIFF"
    if data[4:8] == b"ftyp":
        return _by_brand(data)
    raise _stranger(data)


def _by_brand(data: bytes) -> Format:
    size = int.from_bytes(data[:4])
    box = data[: min(max(size, 16), 256)]
    brands = [box[8:12], *(box[at : at + 4] for at in range(16, len(box) - 3, 4))]
    if brands[0] in _OTHER_BRANDS:
        raise unsupported(_OTHER_BRANDS[brands[0]])
    for brand in brands if brands[0] in _AVIF_BRANDS | _HEIF_BRANDS | _SEQUENCES.keys() else ():
        if brand in _SEQUENCES and brand == brands[0]:
            raise ImageRefused("image_animated", f"This is {_SEQUENCES[brand]}: send a single still picture.")
        if brand in _AVIF_BRANDS:
            return "AVIF"
    if brands[0] in _HEIF_BRANDS:
        return "HEIF"
    if brands[0][:2] in (b"3g",):
        raise unsupported("a 3GPP video")
    shown = brands[0].decode("latin-1").strip()
    raise unsupported(f"an MP4 or other video file ({shown})" if shown.isprintable() and shown else "a video file")


def _stranger(data: bytes) -> ImageRefused:
    if not data.strip(b"\0"):
        return unreadable()
    start = data[:_TEXT_CHARS].removeprefix(b"\xef\xbb\xbf").lstrip()
    for offset, magic, name in _STRANGERS:
        if data.startswith(magic, offset) or start.startswith(magic, offset):
            return unsupported(name)
    if data[4:8] in (b"moov", b"mdat", b"wide", b"free"):
        return unsupported("a QuickTime video")
    if start[:2] in _NETPBM and start[2:3].isspace():
        return unsupported("a Netpbm picture")
    text = start.lower()
    if text.startswith(b"<svg") or (text.startswith((b"<?xml", b"<!--", b"<!doctype svg")) and b"<svg" in text):
        return unsupported("an SVG drawing")
    if text.startswith((b"<!doctype html", b"<html", b"<head", b"<body")):
        return unsupported("an HTML page")
    if text.startswith(b"<?xml"):
        return unsupported("an XML document")
    return ImageRefused("image_format_unsupported", f"The bytes are no picture of a format that is read here. {ADVICE}")
