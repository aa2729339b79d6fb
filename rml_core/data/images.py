"""Images: which files count, their sizes from the headers, and their pixels as OpenCV decodes them."""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence
from io import BytesIO
from typing import IO, TYPE_CHECKING, ClassVar

from rml_core.config import remote, roots
from rml_core.config.paths import is_url
from rml_core.config.problem import RunFailed
from rml_core.data.files import Form, Header, Item, Reader, in_threads

if TYPE_CHECKING:
    import numpy as np

# The suffixes of the formats that OpenCV is built with.
SUFFIXES = (
    *(".avif", ".bmp", ".dib", ".gif", ".hdr", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg", ".pbm", ".pfm"),
    *(".pgm", ".pic", ".png", ".pnm", ".ppm", ".pxm", ".ras", ".sr", ".tif", ".tiff", ".webp"),
)

# The formats whose EXIF orientation OpenCV applies and Pillow's size does not include.
_TURNED_BY_EXIF = frozenset(("JPEG", "MPO", "WEBP"))
_ORIENTATION = 0x0112
# So much of a file behind a URL holds its header, with few exceptions.
HEADER_BYTES = 1 << 16
# A file that is shorter is small.
AT_ONCE = 1 << 13
_PNG = b"\x89PNG\r\n\x1a\n"


def is_image(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in SUFFIXES


def decode(path: str, grayscale: bool = False) -> np.ndarray:
    """The image as (H, W, 3) BGR, or (H, W, 1) where `grayscale`: 8 and 16 bit and 32 bit floats as they are, without
    alpha, turned as EXIF says. Raises `RunFailed` naming the file."""
    import cv2

    kind = cv2.IMREAD_GRAYSCALE if grayscale else cv2.IMREAD_COLOR
    array = _read(path, kind | cv2.IMREAD_ANYDEPTH)
    array = _in_channels(_read_plainly(path) if array is None else array, grayscale)
    return array[:, :, None] if array.ndim == 2 else array


def decode_mask(path: str, grayscale: bool = False) -> np.ndarray:
    """The mask as (H, W, 1) integers, the file's own values. Raises `RunFailed` naming the file."""
    import cv2
    import numpy as np

    kind = cv2.IMREAD_GRAYSCALE if grayscale else cv2.IMREAD_ANYCOLOR
    array = _read(path, kind | cv2.IMREAD_ANYDEPTH)
    if array is None:
        array = _read_plainly(path)
    if grayscale:
        array = _in_channels(array, grayscale)
    if array.ndim == 3 and array.shape[2] != 1:
        raise RunFailed(
            f"{path}: a mask has one channel, this file has colours; set target_grayscale to read it as grey"
        )
    if not np.issubdtype(array.dtype, np.integer):
        whole = array.astype(np.int32)
        if not np.array_equal(whole, array):
            raise RunFailed(f"{path}: a mask holds integers, this file has fractions")
        array = whole
    return array[:, :, None] if array.ndim == 2 else array


def _read(path: str, flags: int) -> np.ndarray | None:
    """None where OpenCV cannot. Half a JPEG, which OpenCV fills with grey, counts as one that it cannot read."""
    import cv2
    import numpy as np

    # What is wrong with a file is said in an error that names it, once.
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        if is_url(path):
            data = np.frombuffer(remote.read_bytes(path), np.uint8)
        else:
            with roots.opened(path) as file:
                data = np.fromfile(file, np.uint8)
    except OSError as error:
        raise RunFailed(f"{path}: cannot be read: {error.strerror}") from None
    if not data.size:
        raise RunFailed(f"{path}: cannot be decoded: the file is empty")
    if data[:2].tobytes() == b"\xff\xd8" and not _jpeg_is_whole(data.tobytes()):
        raise RunFailed(f"{path}: cannot be decoded: the JPEG file is cut short")
    try:
        return cv2.imdecode(data, flags)
    except cv2.error:
        return None


def _jpeg_is_whole(data: bytes) -> bool:
    """Whether the end marker stands behind the start of the scan (a thumbnail in the header has its own).

    Markers and segment lengths: ITU-T T.81, annex B.
    """
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:
            at += 1
            continue
        if marker == 0xDA:
            return data.find(b"\xff\xd9", at) >= 0
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return False


def _read_plainly(path: str) -> np.ndarray:
    """What OpenCV decodes without converting depth, channels or orientation (it refuses some of these together)."""
    import cv2
    import numpy as np
    from PIL import Image

    array = _read(path, cv2.IMREAD_ANYCOLOR | cv2.IMREAD_ANYDEPTH)
    if array is None:
        array = _read(path, cv2.IMREAD_ANYCOLOR | cv2.IMREAD_ANYDEPTH | cv2.IMREAD_IGNORE_ORIENTATION)
        if array is None:
            raise RunFailed(f"{path}: cannot be decoded: not an image that OpenCV reads, or damaged")
        with remote.opened(path) as file, Image.open(file) as header:
            orientation = header.getexif().get(_ORIENTATION, 1)
        if orientation >= 5:
            array = array.swapaxes(0, 1)
        if orientation in (2, 3, 6, 7):
            array = array[:, ::-1]
        if orientation in (3, 4, 7, 8):
            array = array[::-1]
    return np.ascontiguousarray(array)


def _in_channels(array: np.ndarray, grayscale: bool) -> np.ndarray:
    import cv2

    if grayscale and array.ndim == 3:
        return cv2.cvtColor(array, cv2.COLOR_BGR2GRAY)
    if not grayscale and array.ndim == 2:
        return cv2.merge([array, array, array])
    return array


def size(path: str) -> tuple[int, int]:
    """(height, width) as `decode` gives them, from the header where Pillow knows the format. Raises `RunFailed`."""
    from PIL import Image

    try:
        with _opened(path) as file:
            if file.read(len(_PNG)) == _PNG:
                return _png_size(file)
            file.seek(0)
            with Image.open(file) as header:
                width, height = header.size
                turned = header.format in _TURNED_BY_EXIF and header.getexif().get(_ORIENTATION, 1) >= 5
    except Exception:  # Pillow's plugins raise whatever they meet in a damaged header, struct what is too short
        height, width = decode(path).shape[:2]
        return height, width
    return (width, height) if turned else (height, width)


def _opened(path: str) -> IO[bytes]:
    """A small file of this machine is read at one go: most of the time that a hundred thousand take goes into calls of
    the system."""
    if not is_url(path):
        start = roots.start(path, AT_ONCE)
        if len(start) < AT_ONCE:
            return BytesIO(start)
    return remote.opened(path, block_size=HEADER_BYTES)


def _png_size(file: IO[bytes]) -> tuple[int, int]:
    """(height, width) as OpenCV turns it, from the headers of all chunks behind the signature: the orientation may
    stand behind the pixels, which Pillow would decode to get there. PNG (third edition), 5.3, 11.3.4.6."""
    from PIL import Image

    width = height = 0
    turned = False
    while True:
        length, kind = struct.unpack(">I4s", file.read(8))
        end = file.tell() + length + 4
        if kind == b"IHDR":
            width, height = struct.unpack(">II", file.read(8))
        elif kind == b"eXIf":
            exif = Image.Exif()
            exif.load(file.read(length))
            turned = exif.get(_ORIENTATION, 1) >= 5
        elif kind == b"IEND":
            return (width, height) if turned else (height, width)
        file.seek(end)


class Images(Reader):
    what: ClassVar[str] = "images"
    whole_files: ClassVar[bool] = True

    def counts(self, name: str) -> bool:
        return is_image(name)

    def channels(self, form: Form) -> int | None:
        return 1 if form.gray or form.mask else 3

    def measure(self, items: Sequence[Item], form: Form) -> tuple[list[Header | None], list[str]]:
        channels = self.channels(form)
        assert channels is not None
        return in_threads(lambda item: Header((channels, *size(item.file)), ""), items)

    def read(self, item: Item, form: Form) -> np.ndarray:
        return (decode_mask if form.mask else decode)(item.file, form.gray)


READER = Images()
