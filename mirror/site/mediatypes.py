"""Which media type a file's name means: a table of our own, so that two hosts publish the same site alike.

Python's `mimetypes` reads what the host has (/etc/mime.types), so the answer would depend on where a run happens. No charset is
said: what encoding a page is in is written in the page, and only its author knows it.

>>> media_type(b"docs/Index.HTML"), media_type(b"data"), media_type(b".htaccess")
('text/html', 'application/octet-stream', 'application/octet-stream')
"""

from __future__ import annotations

from typing import Final

DEFAULT: Final = "application/octet-stream"

# IANA's names (https://www.iana.org/assignments/media-types); for JavaScript what RFC 9239 says.
_TABLE: Final = """
application/atom+xml atom
application/epub+zip epub
application/font-sfnt sfnt
application/geo+json geojson
application/gzip gz tgz
application/json json map
application/ld+json jsonld
application/manifest+json webmanifest
application/msword doc
application/pdf pdf
application/postscript ps eps ai
application/rss+xml rss
application/rtf rtf
application/sql sql
application/vnd.apple.mpegurl m3u8
application/vnd.debian.binary-package deb
application/vnd.ms-excel xls
application/vnd.ms-fontobject eot
application/vnd.ms-powerpoint ppt
application/vnd.oasis.opendocument.spreadsheet ods
application/vnd.oasis.opendocument.text odt
application/vnd.openxmlformats-officedocument.presentationml.presentation pptx
application/vnd.openxmlformats-officedocument.spreadsheetml.sheet xlsx
application/vnd.openxmlformats-officedocument.wordprocessingml.document docx
application/vnd.rar rar
application/wasm wasm
application/x-7z-compressed 7z
application/x-bzip2 bz2
application/x-sh sh
application/x-tar tar
application/x-xz xz
application/xhtml+xml xhtml
application/xml xml xsl xslt
application/yaml yaml yml
application/zip zip
application/zstd zst
audio/aac aac
audio/flac flac
audio/midi mid midi
audio/mp4 m4a
audio/mpeg mp3
audio/ogg oga ogg opus
audio/wav wav
audio/webm weba
font/otf otf
font/ttf ttf
font/woff woff
font/woff2 woff2
image/apng apng
image/avif avif
image/bmp bmp
image/gif gif
image/heic heic
image/jpeg jpg jpeg jpe
image/jxl jxl
image/png png
image/svg+xml svg svgz
image/tiff tif tiff
image/vnd.microsoft.icon ico
image/webp webp
text/calendar ics
text/css css
text/csv csv
text/html html htm
text/javascript js mjs cjs
text/markdown md markdown
text/plain txt text log conf ini asc
text/tab-separated-values tsv
text/vcard vcf
text/vtt vtt
video/mp2t ts
video/mp4 mp4 m4v
video/mpeg mpg mpeg
video/ogg ogv
video/quicktime mov
video/webm webm
video/x-msvideo avi
"""

_BY_ENDING: Final = {ending: words[0] for words in map(str.split, _TABLE.strip().splitlines()) for ending in words[1:]}


def media_type(path: bytes) -> str:
    """The media type of a file with this path."""
    stem, dot, ending = path.rpartition(b"/")[2].rpartition(b".")
    return _BY_ENDING.get(ending.decode("ascii", "replace").lower(), DEFAULT) if dot and stem else DEFAULT
