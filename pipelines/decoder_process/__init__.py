"""Decoding of untrusted files in a separate process, with limits on memory and time.

Native codecs abort, panic or take any amount of memory for one damaged byte. A worker sends the bytes of a file to its decoder
process and gets pixels, a header or a refusal back. Whatever ends the decoder process is a refusal of that one file.
"""

from __future__ import annotations

from crossdim.pipelines.decoder_process.requests import count_values, decode, preview, probe

__all__ = ["count_values", "decode", "preview", "probe"]
