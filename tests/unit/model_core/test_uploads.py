"""Images and videos from callers: what is taken comes out at the size served, and everything else is told what is wrong with it.

Decoded in this process; `test_upload_decoders.py` has the processes that do it in earnest.
"""

from __future__ import annotations

import io
import pickle
import re
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from model_core.config import Media, ModelConfig
from model_core.presets import millrace_64
from model_core.types import Footage
from model_core.uploads.decoders import as_footage
from model_core.uploads.decoding import decode
from model_core.uploads.upload import Refused, Upload, UploadLimits, Wanted
from tests.pictures import bomb, coded, encoded, moving, picture, video

CONFIG = replace(millrace_64(), media_frames=48)  # 64x64, 24 frames a second, 8 frames a chunk
LIMITS = UploadLimits(max_image_bytes=20_000, max_image_pixels=250_000, max_video_bytes=40_000, max_video_pixels=10_000)


def frames_of(upload: Upload, config: ModelConfig = CONFIG) -> Footage:
    assert upload.problem() is None
    return as_footage(np.stack(decode(upload.data, Wanted.of(upload, config))), upload.kind, config)


def footage(kind: Media, data: bytes, limits: UploadLimits = LIMITS) -> Footage:
    return frames_of(Upload(kind, data, f"spec.{kind}", limits))


def refusal(kind: Media, data: bytes, limits: UploadLimits = LIMITS) -> str:
    """What a caller is told, before or after decoding."""
    upload = Upload(kind, data, f"spec.{kind}", limits)
    if (problem := upload.problem()) is not None:
        return problem
    with pytest.raises(Refused) as refused:
        frames_of(upload)
    return str(refused.value)


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP"])
def test_the_formats_that_are_taken(form: str) -> None:
    image = picture()
    made = footage("image", encoded(image, form)).frames
    expected = footage("image", encoded(image, "PNG")).frames
    assert made.shape == (1, 64, 64, 3)
    assert np.abs(made.astype(int) - expected).mean() < 8  # JPEG and WebP lose a little


def test_an_image_of_the_size_served_is_left_as_it_is() -> None:
    image = picture(64, 64)
    np.testing.assert_array_equal(footage("image", encoded(image)).frames[0], np.asarray(image))


def test_an_image_keeps_its_proportions_and_is_cut_around_its_centre() -> None:
    """A wide picture with a red left edge and a blue right one loses both to a square."""
    pixels = np.full((64, 256, 3), 128, np.uint8)
    pixels[:, :64], pixels[:, -64:] = (255, 0, 0), (0, 0, 255)
    made = footage("image", encoded(Image.fromarray(pixels))).frames[0]
    assert (made == 128).all()


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK"])
def test_other_kinds_of_colour_become_rgb(mode: str) -> None:
    image = picture(64, 64).convert("RGBA" if mode == "LA" else "RGB").convert(mode)
    form = "JPEG" if mode == "CMYK" else "PNG"
    assert footage("image", encoded(image, form)).frames.shape == (1, 64, 64, 3)


def test_an_image_stands_as_its_camera_was_held() -> None:
    upright = picture(64, 64)
    turned = upright.transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x0112] = 6  # turn it right
    made = footage("image", encoded(turned, "PNG", exif=exif)).frames[0]
    np.testing.assert_array_equal(made, np.asarray(upright))


def test_equal_bytes_give_equal_frames_and_the_digest_tells_others_apart() -> None:
    one, same, other = (footage("image", encoded(picture(seed=seed))) for seed in (1, 1, 2))
    assert one.digest == same.digest == pickle.loads(pickle.dumps(one)).digest  # noqa: S301 - as it travels between stages
    assert one.digest != other.digest
    assert Footage(np.zeros((1, 2, 3, 3), np.uint8)).digest != Footage(np.zeros((1, 3, 2, 3), np.uint8)).digest


PNG = encoded(picture())
HALF = len(PNG) // 2


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"", "must be one of PNG, JPEG, WEBP; got nothing"),
        (b"hello", "must be one of PNG, JPEG, WEBP; got 5 bytes that begin with b'hello'"),
        (b"https://example.org/a.png", "must be one of PNG, JPEG, WEBP; got 25 bytes"),
        (encoded(picture(), "GIF"), "must be one of PNG, JPEG, WEBP; got"),
        (encoded(picture(), "BMP")[:5000], "must be one of PNG, JPEG, WEBP; got"),
        (b'<svg xmlns="http://www.w3.org/2000/svg"/>', "must be one of PNG, JPEG, WEBP; got"),
        (PNG[:20], "must be a whole PNG image; got one that cannot be decoded"),
        (PNG[:HALF], "must be a whole PNG image; got one that cannot be decoded"),
        (PNG[:HALF] + bytes(len(PNG) - HALF), "must be a whole PNG image; got one that cannot be decoded"),
        (encoded(picture(), "JPEG")[:400], "must be a whole JPEG image; got one that cannot be decoded"),
        (encoded(picture(), "WEBP")[:200], "must be a whole WEBP image; got one that cannot be decoded"),
        (encoded(Image.new("I;16", (64, 64))), "must have 8 bits a channel; got mode I;16"),
        (PNG + bytes(20_000), rf"must be at most 20000 bytes; got {len(PNG) + 20_000}"),
        (bomb(600, 500), "must have 1 to 250000 pixels; got 600x500"),
        (bomb(20_000, 10_000)[:2000], "must have 1 to 250000 pixels; got 20000x10000"),
        (video(8), "must be at most 20000 bytes|must be one of PNG, JPEG, WEBP"),
    ],
)
def test_an_image_that_is_not_as_it_should_be(data: bytes, sentence: str) -> None:
    told = refusal("image", data)
    assert re.search(sentence, told), told
    assert len(told) < 300
    assert told.isascii()


@pytest.mark.parametrize("where", ["text", "text after the pixels", "international text", "colour profile"])
def test_what_a_png_says_beside_its_pixels_has_a_limit_of_its_own(where: str) -> None:
    """It is an image, and a sound one."""
    most = PngImagePlugin.MAX_TEXT_CHUNK
    for size, fits in ((most, True), (most + 1, False)):
        text = PngImagePlugin.PngInfo()
        options: dict[str, Any] = {"pnginfo": text}
        if where == "colour profile":
            options["icc_profile"] = b"a" * size
        elif where == "international text":
            text.add_itxt("key", "a" * size, zip=True)
        else:
            text.add_text("key", "a" * size, zip=True)
        data = encoded(picture(), **options)
        if where == "text after the pixels":
            data = _after_pixels(data, b"zTXt")
        if fits:
            assert footage("image", data).frames.shape == (1, 64, 64, 3)
        else:
            assert refusal("image", data) == f"must hold no text or colour profile that unpacks to more than {most} bytes; got one"


def test_all_text_of_a_png_together_has_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PngImagePlugin, "MAX_TEXT_MEMORY", 150)
    text = PngImagePlugin.PngInfo()
    text.add_text("one", "a" * 100)
    text.add_text("two", "a" * 100)
    assert refusal("image", encoded(picture(), pnginfo=text)) == "must hold at most 150 bytes of text, unpacked; got more"


def _after_pixels(data: bytes, kind: bytes) -> bytes:
    """A PNG whose chunk `kind` comes behind its pixels."""
    at = data.index(kind) - 4
    end = at + 12 + int.from_bytes(data[at : at + 4], "big")
    last = data.index(b"IEND") - 4
    return data[:at] + data[end:last] + data[at:end] + data[last:]


def test_only_size_and_signature_are_judged_where_requests_are_checked() -> None:
    """The rest of a file is not looked at there: a header that promises anything costs nothing until it is decoded."""
    for kind, data in (("image", bomb(60_000, 60)[:60] + bytes(8_000_000)), ("image", b"\xff\xd8\xff"), ("video", b"\0\0\0\x08ftyp")):
        assert Upload(kind, data, "spec", UploadLimits()).problem() is None  # type: ignore[arg-type]  # one of the two


def test_no_damage_to_an_image_gets_past_as_anything_but_a_refusal() -> None:
    rng = np.random.default_rng(5)
    for form in ("PNG", "JPEG", "WEBP"):
        whole = encoded(picture(), form)
        for _ in range(40):
            broken = bytearray(whole)
            for place in rng.integers(0, len(whole), 6):
                broken[place] = rng.integers(0, 256)
            upload = Upload("image", bytes(broken[: rng.integers(1, len(whole) + 1)]), "spec.image", LIMITS)
            if upload.problem() is None:
                with suppress(Refused):
                    assert frames_of(upload).frames.shape == (1, 64, 64, 3)


@pytest.mark.parametrize("codec", ["mpeg4", "libvpx-vp9"])  # whose decoders make do with what is there
def test_a_video_that_is_cut_within_its_frames_is_not_taken_for_a_shorter_one(codec: str, tmp_path: Path) -> None:
    path = tmp_path / "v.mp4"
    with av.open(path, "w", options={"movflags": "faststart"}) as container:  # the index first, so that it is whole
        stream: Any = container.add_stream(codec, rate=24, width=64, height=64, pix_fmt="yuv420p")
        for frame in moving(16):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, "rgb24")))
        container.mux(stream.encode())
    whole = path.read_bytes()
    assert len(footage("video", whole).frames) == 16
    assert refusal("video", whole[:-9]) == "must be a whole MP4 file; got one that is cut: 9 bytes are missing"
    assert len(footage("video", whole + b"some more text").frames) == 16  # players do not mind


def brightness(frames: np.ndarray) -> list[int]:
    """Which of `moving`'s frames each one is."""
    return [round((float(frame[50:, :].mean()) - 40) / 3) for frame in frames]


def test_a_video_is_taken_frame_by_frame_at_its_own_rate() -> None:
    frames = footage("video", video(16)).frames
    assert brightness(frames) == list(range(16))
    assert np.abs(frames.astype(int) - moving(16)).mean() < 4


@pytest.mark.parametrize(
    ("frames", "fps", "expected"),
    [
        (19, 24, list(range(3, 19))),  # whole chunks of its end
        (8, 12, [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7]),
        (32, 48, list(range(0, 32, 2))),
    ],
)
def test_a_video_is_taken_as_it_is_shown_at_the_models_rate_and_cut_to_whole_chunks(frames: int, fps: int, expected: list[int]) -> None:
    made = brightness(footage("video", video(frames, fps)).frames)
    assert [abs(a - b) <= 1 for a, b in zip(made, expected, strict=True)] == [True] * len(expected)


MP4 = video(8)


def without_video() -> bytes:
    out = io.BytesIO()
    with av.open(out, "w", format="mp4") as container:
        stream = container.add_stream("aac", rate=44100)
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        silence.sample_rate = 44100
        container.mux(stream.encode(silence))
        container.mux(stream.encode())
    return out.getvalue()


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"", "must be an MP4 file; got nothing"),
        (PNG, "must be an MP4 file; got"),
        (MP4[: len(MP4) // 2], "must be a whole MP4 file; got one that cannot be decoded|must last"),
        (MP4[:8] + bytes(500), "must be a whole MP4 file; got one that cannot be decoded"),
        (MP4 + bytes(40_000), "must be at most 40000 bytes; got"),
        (video(8, height=128, width=128), "must have 1 to 10000 pixels; got 128x128"),
        (video(7), "must last 8 to 48 frames at 24 a second for model millrace-64; got 7"),
        (video(49), "must last 8 to 48 frames at 24 a second for model millrace-64; got more than 48"),
        (without_video(), "must hold a video; got none"),
    ],
)
def test_a_video_that_is_not_as_it_should_be(data: bytes, sentence: str) -> None:
    told = refusal("video", data)
    assert re.search(sentence, told), told


@pytest.mark.parametrize("codec", ["libsvtav1", "libx264", "libx265", "libvpx-vp9", "mpeg4"])
def test_every_codec_that_is_offered_is_decoded_up_to_the_very_limit(codec: str) -> None:
    """100x100 is no whole number of the blocks that decoders work in."""
    data = coded(moving(8, 100, 100), codec)
    assert footage("video", data, replace(LIMITS, max_video_pixels=10_000)).frames.shape == (8, 64, 64, 3)
    assert refusal("video", data, replace(LIMITS, max_video_pixels=9_999)) == "must have 1 to 9999 pixels; got 100x100"


def test_an_image_of_exactly_the_limit_is_taken() -> None:
    data = encoded(picture(50, 80))
    exactly = UploadLimits(max_image_bytes=len(data), max_image_pixels=4000)
    assert footage("image", data, exactly).frames.shape == (1, 64, 64, 3)
    assert refusal("image", data, replace(exactly, max_image_pixels=3999)) == "must have 1 to 3999 pixels; got 80x50"
    assert refusal("image", data, replace(exactly, max_image_bytes=len(data) - 1)).startswith(f"must be at most {len(data) - 1} bytes")


def test_a_video_whose_frames_grow_beyond_the_limit_on_the_way_is_refused() -> None:
    """VP9 says its size with each key frame; this one begins anew, twice as large, after eight frames."""
    assert refusal("video", coded(moving(8), "libvpx-vp9", moving(8, 128, 128))) == "must have 1 to 10000 pixels; got 128x128"


def test_a_video_of_very_many_frames_is_given_up_early() -> None:
    """One that is shown 2,400 times a second: what is decoded is bounded by what is taken, not by what is there."""
    config = replace(CONFIG, media_frames=8)
    upload = Upload("video", video(100, fps=2400, height=16, width=128), "spec.video", LIMITS)
    with pytest.raises(Refused, match="must have at most 192 frames a second; got more"):
        frames_of(upload, config)
