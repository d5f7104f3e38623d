"""The encoding of names in a ZIP file.

A ZIP that does not mark its names as UTF-8 holds bytes of a code page that it does not
name (APPNOTE.TXT 4.4.4, bit 11). macOS writes UTF-8 there, Windows the code page of the
country. One encoding is guessed for all names of a file, so that no label is split.
"""

from __future__ import annotations

import struct
import zipfile
import zlib
from collections.abc import Sequence

_UTF8_FLAG = 0x800
_UNICODE_PATH = 0x7075  # extra field of Info-ZIP: the name in UTF-8
_COMMON = 0.9  # fraction of common characters from which an encoding is taken


def decoded_names(entries: Sequence[zipfile.ZipInfo]) -> tuple[list[str], str]:
    """The names of `entries`, in order, and how they were read, empty where sure."""
    names = [entry.orig_filename for entry in entries]
    unmarked: dict[int, bytes] = {}
    for index, entry in enumerate(entries):
        if not entry.flag_bits & _UTF8_FLAG and not entry.orig_filename.isascii():
            raw = entry.orig_filename.encode("cp437", "replace")
            name = _from_extra(entry.extra, raw)
            if name is None:
                unmarked[index] = raw
            else:
                names[index] = name
    if not unmarked:
        return names, ""
    encoding = guessed_encoding(list(unmarked.values()))
    for index, raw in unmarked.items():
        names[index] = raw.decode(encoding, "replace")
    example = names[next(iter(unmarked))]
    message = (
        f"names in the ZIP are not marked as UTF-8; read as {encoding}: {example} "
        "(if that is wrong, unpack it yourself)"
    )
    return names, message


def guessed_encoding(names: Sequence[bytes]) -> str:
    """UTF-8 where all names are that, else the code page with the likeliest letters:
    Shift-JIS, GBK, cp437 or cp850. Kanji without kana count as Shift-JIS where the
    western code pages would give symbols beside letters."""
    text = b"\n".join(names)
    try:
        text.decode("utf-8")
        return "utf-8"
    except UnicodeDecodeError:
        pass
    western = max(("cp437", "cp850"), key=lambda encoding: _letters(text, encoding))
    non_ascii = sum(byte > 127 for byte in text)
    has_symbols = _letters(text, western) < non_ascii
    for encoding, common in (("cp932", _common_japanese), ("gbk", _common_chinese)):
        try:
            decoded = [c for c in text.decode(encoding) if not c.isascii()]
        except UnicodeDecodeError:
            continue
        fraction = sum(common(c) for c in decoded) / max(len(decoded), 1)
        has_kana = any("\u3041" <= c <= "\u30fa" for c in decoded)
        if fraction >= _COMMON and (encoding == "gbk" or has_kana or has_symbols):
            return encoding
    return western


def _common_japanese(char: str) -> bool:
    """Kana, or a kanji of the first level of JIS X 0208."""
    code = char.encode("cp932")
    return "\u3041" <= char <= "\u30fc" or b"\x88\x9f" <= code <= b"\x98\x72"


def _common_chinese(char: str) -> bool:
    """A character of the first level of GB 2312."""
    code = char.encode("gbk")
    return len(code) == 2 and 0xB0 <= code[0] <= 0xD7 and code[1] >= 0xA1


def _letters(text: bytes, encoding: str) -> int:
    """Latin letters among the characters beyond ASCII."""
    return sum(
        c.isalpha() and ord(c) < 0x250 for c in text.decode(encoding) if not c.isascii()
    )


def _from_extra(extra: bytes, raw: bytes) -> str | None:
    """The UTF-8 name in the extra field, if it belongs to the name `raw`."""
    while len(extra) >= 4:
        kind, size = struct.unpack_from("<HH", extra)
        body, extra = extra[4 : 4 + size], extra[4 + size :]
        if kind == _UNICODE_PATH and len(body) > 5 and body[0] == 1:
            if int.from_bytes(body[1:5], "little") != zlib.crc32(raw):
                return None
            try:
                return body[5:].decode("utf-8")
            except UnicodeDecodeError:
                return None
    return None
