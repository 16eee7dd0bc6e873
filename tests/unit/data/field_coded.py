"""Field-coded H.264 (PAFF), which no free encoder writes: each field is a picture of raw samples.

Rec. ITU-T H.264, 7.3: parameter sets with `frame_mbs_only_flag` 0, and for each field a slice of
I_PCM macroblocks. A decoder gives back the samples as they were.
"""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np

_GREY = b"\x80" * 128  # both chroma blocks of a macroblock


class _Bits:
    """A string of bits in the codes of H.264."""

    def __init__(self) -> None:
        self.text = ""

    def u(self, bits: str) -> _Bits:
        self.text += bits
        return self

    def ue(self, *values: int) -> _Bits:
        """Exponential Golomb codes; a signed 0 is the same."""
        for value in values:
            code = f"{value + 1:b}"
            self.text += code.zfill(2 * len(code) - 1)
        return self

    def align(self) -> _Bits:
        self.text += "0" * (-len(self.text) % 8)
        return self

    def add(self, data: bytes) -> _Bits:
        self.text += "".join(f"{byte:08b}" for byte in data)
        return self

    def unit(self, header: int) -> bytes:
        """A unit of the byte stream, with the bytes that keep start codes out of it."""
        text = self.u("1").align().text
        unit, zeros = bytearray(), 0
        for byte in int(text, 2).to_bytes(len(text) // 8, "big"):
            if zeros >= 2 and byte <= 3:
                unit.append(3)
                zeros = 0
            unit.append(byte)
            zeros = 0 if byte else zeros + 1
        return b"\0\0\0\1" + bytes([header]) + bytes(unit)


def _field(rows: np.ndarray, *, is_bottom: bool, number: int) -> bytes:
    bits = _Bits().ue(0, 7, 0).u("0000").u("1").u("1" if is_bottom else "0")
    if not is_bottom:
        bits.ue(number % 2)  # two instantaneous refreshes in a row differ in their number
    bits.u("00000001" if is_bottom else "00000000").u("0" if is_bottom else "00").ue(0, 1)
    for y in range(0, rows.shape[0], 16):
        for x in range(0, rows.shape[1], 16):
            bits.ue(25).align().add(rows[y : y + 16, x : x + 16].tobytes() + _GREY)
    return bits.unit(0x61 if is_bottom else 0x65)


def write_field_coded(path: Path, luma: np.ndarray) -> int:
    """Write grey frames, F H W of 16 to 235, as pairs of fields; returns the number of packets.

    Args:
        path: its ending names the container.
        luma: height a multiple of 32, width of 16.
    """
    _, height, width = luma.shape
    sequence = _Bits().u(f"{77:08b}{0:08b}{30:08b}").ue(0, 0, 0, 4, 1).u("0")
    sequence.ue(width // 16 - 1, height // 32 - 1).u("00100")
    picture = _Bits().ue(0, 0).u("00").ue(0, 0, 0).u("000").ue(0, 0, 0).u("100")
    fields = [
        _field(frame[is_bottom::2], is_bottom=bool(is_bottom), number=number)
        for number, frame in enumerate(luma)
        for is_bottom in (0, 1)
    ]
    raw = path.with_suffix(".h264")
    raw.write_bytes(b"".join([sequence.unit(0x67), picture.unit(0x68), *fields]))
    with av.open(str(raw)) as source, av.open(str(path), "w") as container:
        stream = source.streams.video[0]
        copy = container.add_stream_from_template(stream)
        packets = [packet for packet in source.demux(stream) if packet.size]
        for number, packet in enumerate(packets):
            packet.stream, packet.time_base = copy, Fraction(1, 50)
            packet.pts = packet.dts = number
            container.mux(packet)
    return len(packets)
