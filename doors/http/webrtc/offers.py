"""What peers say in SDP, looked at before any library parses it. Pure."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator

from model_core.errors import FieldViolation, InvalidRequest

OFFER, FRAGMENT = "offer", "fragment"

_MOST_LINES = 1000
_MOST_LINE_CHARS = 2048
_MOST_MEDIA = 2
_MOST_CANDIDATES = 16
_KINDS = ("audio", "video")
_CANDIDATE = "a=candidate:"
_END_OF_CANDIDATES = "a=end-of-candidates"
_UFRAG = "a=ice-ufrag:"
_MEDIA = re.compile(r"m=(\S+) (\d+) (\S+) ")
_H264 = re.compile(r"a=rtpmap:\d{1,3} H264/90000", re.IGNORECASE)
_ICE_WORD = re.compile(r"[A-Za-z0-9+/]{4,256}")
_FINGERPRINT = re.compile(r"a=fingerprint:[A-Za-z0-9-]{1,16} [0-9A-Fa-f:]{8,200}")


def checked_offer(text: str, sends: bool, takes_candidates: bool) -> str:
    """An offer of one video, and of sound that is not used, ready to be parsed.

    Args:
        text: as it came, not larger than may be.
        sends: whether the peer wants to send video; otherwise it wants to get some.
        takes_candidates: whether the peer's addresses count; otherwise they are left out, and it has to reach us.

    Raises:
        InvalidRequest: it is none, or one that is not served.
    """
    lines = _lines(text, OFFER)
    if lines[0] != "v=0":
        raise wrong(OFFER, f"must be a session description, which begins with v=0; got {lines[0][:32]!a}")
    media = [match for line in lines if (match := _MEDIA.match(line))]
    kinds = [match[1] for match in media]
    if kinds.count("video") != 1 or len(kinds) > _MOST_MEDIA or any(kind not in _KINDS for kind in kinds):
        shown = ", ".join(ascii(kind[:16])[1:-1] for kind in kinds[:4]) or "none"
        raise wrong(OFFER, f"must have one section of video, and at most one of audio; got {shown}")
    video = _section(lines, "video")
    if not any(_H264.match(line) for line in video):
        raise wrong(OFFER, "must offer H264/90000 for its video; got other codecs")
    direction = next((line[2:] for line in video if line[2:] in ("sendonly", "recvonly", "sendrecv", "inactive")), "sendrecv")
    wanted = ("sendonly", "sendrecv") if sends else ("recvonly", "sendrecv")
    if direction not in wanted:
        raise wrong(OFFER, f"must have video that is {' or '.join(wanted)}; got {direction}")
    for name in ("ice-ufrag", "ice-pwd"):
        values = [line.partition(":")[2] for line in lines if line.startswith(f"a={name}:")]
        if not values or not all(_ICE_WORD.fullmatch(value) for value in values):
            raise wrong(OFFER, f"must have a={name} of 4 to 256 characters; got {'others' if values else 'none'}")
    if not any(_FINGERPRINT.fullmatch(line) for line in lines):
        raise wrong(OFFER, "must have the fingerprint of a certificate, for DTLS; got none")
    return "".join(f"{line}\r\n" for line in _with_candidates(lines, OFFER, takes_candidates))


def checked_fragment(text: str, ufrag: str) -> list[tuple[str, str]]:
    """Candidates that a peer adds to its offer: for each the section's `mid`, and the candidate.

    Args:
        ufrag: of its offer. Another one would begin ICE anew.

    Raises:
        InvalidRequest: it is no such fragment.
        Restarting: it is one, and begins ICE anew.
    """
    lines = _lines(text, FRAGMENT)
    said = {line.removeprefix(_UFRAG) for line in lines if line.startswith(_UFRAG)}
    if said and said != {ufrag}:
        raise Restarting
    mid = "0"
    found: list[tuple[str, str]] = []
    for line in _with_candidates(lines, FRAGMENT, taken=True):
        if line.startswith("a=mid:"):
            mid = line.removeprefix("a=mid:")[:64]
        elif line.startswith(_CANDIDATE):
            found.append((mid, line.removeprefix(_CANDIDATE)))
    return found


class Restarting(Exception):
    """A fragment begins ICE anew."""


def ufrag_of(offer: str) -> str:
    """By which ICE knows the peer that made the offer."""
    return next((line.removeprefix(_UFRAG) for line in offer.splitlines() if line.startswith(_UFRAG)), "")


def announced(answer: str, public_host: str) -> str:
    """Our `answer` with `public_host` in place of the addresses of our candidates."""
    if not public_host:
        return answer
    seen: set[str] = set()
    lines: list[str] = []
    for line in answer.splitlines():
        if line.startswith(_CANDIDATE):
            parts = line.split(" ")
            parts[4] = public_host
            key = f"{parts[1]} {parts[5]}"
            if key in seen:
                continue
            seen.add(key)
            lines.append(" ".join(parts[:8]))
        elif not line.startswith("c="):
            lines.append(line)
        else:
            lines.append(f"c=IN IP{ipaddress.ip_address(public_host).version} {public_host}")
    return "".join(f"{line}\r\n" for line in lines)


def wrong(field: str, told: str) -> InvalidRequest:
    return InvalidRequest((FieldViolation(field, told),))


def _lines(text: str, field: str) -> list[str]:
    lines = [line.rstrip() for line in text.split("\n")]
    lines = [line for line in lines if line]
    if not lines:
        raise wrong(field, "must be SDP; got nothing")
    if len(lines) > _MOST_LINES:
        raise wrong(field, f"must have at most {_MOST_LINES} lines; got {len(lines)}")
    if (longest := max(map(len, lines))) > _MOST_LINE_CHARS:
        raise wrong(field, f"must have lines of at most {_MOST_LINE_CHARS} characters; got one of {longest}")
    if not all(line.isprintable() and line.isascii() and line[1:2] == "=" for line in lines):
        raise wrong(field, "must be SDP, lines of printable ASCII such as a=…; got others")
    return lines


def _section(lines: list[str], kind: str) -> list[str]:
    """The lines of the first section of a kind."""
    first = next(number for number, line in enumerate(lines) if line.startswith(f"m={kind} "))
    after = next((number for number in range(first + 1, len(lines)) if lines[number].startswith("m=")), len(lines))
    return lines[first:after]


def _with_candidates(lines: list[str], field: str, taken: bool) -> Iterator[str]:
    """The lines with those candidates that can be used: over UDP, with an address. Names of mDNS would have to be asked for."""
    count = 0
    for line in lines:
        if line.startswith(_CANDIDATE):
            count += 1
            if count > _MOST_CANDIDATES:
                raise wrong(field, f"must have at most {_MOST_CANDIDATES} candidates; got more")
            if taken and _is_usable(line.removeprefix(_CANDIDATE).split()):
                yield line
        elif line != _END_OF_CANDIDATES:  # checks of a peer whose address we did not know may still come
            yield line


def _is_usable(parts: list[str]) -> bool:
    if len(parts) < 8 or parts[1] != "1" or parts[2].lower() != "udp" or parts[6] != "typ":
        return False
    try:
        address = ipaddress.ip_address(parts[4])
    except ValueError:
        return False
    number = parts[3].isdecimal() and len(parts[3]) <= 10 and parts[5].isdecimal() and 0 < int(parts[5]) < 65536
    return number and not address.is_multicast and not address.is_unspecified
