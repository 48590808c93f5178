"""Decoding of files from outside in a process of its own, whose death, memory and time are bounded.

Native codecs abort, panic or take any amount of memory for one damaged byte. A worker hands the bytes of a file to its decoder
process and gets pixels, facts or a refusal back; what ends the decoder ends as a refusal of that one file.
"""

from __future__ import annotations

from crossdim.pipelines.decoder_process.requests import decode, probe

__all__ = ["decode", "probe"]
