"""CRC-32 as in zlib, several times faster where ISA-L has a build for the processor (44 µs for 1 MiB instead of 331).

It guards stored blocks against damage, and nothing else: whoever means harm is kept out by the folder's rights.
"""

from __future__ import annotations

try:
    from isal.isal_zlib import crc32
except ImportError:  # no build for this processor
    from zlib import crc32

__all__ = ["crc32"]
