import hashlib
import warnings

import numpy as np
import pytest
from PIL import Image
from tiny_files import image

from fgsynth.data.disk.duplicates import NEAR_BITS
from fgsynth.data.disk.examine import difference_hash, examine, examine_all


def test_a_sound_image_has_no_fault(tmp_path):
    path = image(tmp_path / "a.jpg", 0)
    found = examine(path)
    assert (found.fault, found.kind) == ("", "")
    assert found.sha256 == hashlib.sha256(path.read_bytes()).digest()
    assert found.dhash == difference_hash(Image.open(path))
    assert 0 not in found.dhash


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp", "a.gif", "a.tif"])
def test_a_truncated_image_is_found(tmp_path, name):
    path = image(tmp_path / name, 0, "P" if name == "a.gif" else "RGB", 64)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 2 // 3])
    found = examine(path)
    assert "is damaged or refused" in found.fault or "is no image" in found.fault
    assert "\n" not in found.fault


def test_files_that_are_no_images_are_found(tmp_path):
    (tmp_path / "a.jpg").write_text("<html>not found</html>")
    (tmp_path / "b.jpg").touch()
    assert examine(tmp_path / "a.jpg").fault == "is no image that PIL knows"
    assert examine(tmp_path / "b.jpg").fault == "is no image that PIL knows"
    assert examine(tmp_path / "c.jpg").fault == "cannot be opened (No such file or directory)"
    assert examine(tmp_path).fault == "cannot be opened (Is a directory)"


def test_a_decompression_bomb_is_refused_in_one_sentence(tmp_path, monkeypatch):
    path = image(tmp_path / "a.png", 0, size=64)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 64 * 64 // 2 - 1)
    fault = examine(path).fault
    assert fault.startswith("is damaged or refused (Image size (4096 pixels) exceeds limit of 4094 pixels")
    assert "\n" not in fault


def test_images_under_pils_limit_warn_of_nothing(tmp_path, monkeypatch):
    path = image(tmp_path / "a.png", 0, size=64)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 64 * 64 - 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert examine_all([path])[0].fault == ""


@pytest.mark.parametrize(
    ("name", "mode", "kind"),
    [
        ("a.jpg", "CMYK", "CMYK"),
        ("a.jpg", "L", "grey"),
        ("a.png", "RGBA", "with alpha"),
        ("a.png", "LA", "with alpha"),
        ("a.png", "P", "palette"),
        ("a.png", "1", "black and white"),
        ("a.png", "I;16", "16 bits or more"),
    ],
)
def test_kinds_of_colours_are_named(tmp_path, name, mode, kind):
    if mode == "I;16":
        Image.fromarray(np.arange(1024, dtype=np.uint16).reshape(32, 32)).save(tmp_path / name)
    else:
        image(tmp_path / name, 0, mode)
    found = examine(tmp_path / name)
    assert (found.fault, found.kind) == ("", kind)


def test_transparency_by_a_palettes_entry_is_alpha(tmp_path):
    opened = Image.open(image(tmp_path / "a.png", 0, "P"))
    opened.save(tmp_path / "b.png", transparency=0)
    assert examine(tmp_path / "b.png").kind == "with alpha"


def test_many_are_examined_in_order(tmp_path):
    paths = [image(tmp_path / f"{i}.png", i) for i in range(40)]
    paths[7].write_text("no")
    found = examine_all(paths)
    assert [bool(e.fault) for e in found] == [i == 7 for i in range(40)]
    assert [e.sha256 for e in found] == [hashlib.sha256(p.read_bytes()).digest() for p in paths]
    assert examine_all([]) == []


def test_the_difference_hash_by_hand():
    # 72 x 72 blocks of 8 x 8 (and 9 x 9) pixels: a ramp in the top row of blocks, nothing below.
    ramp = np.zeros((72, 72), np.uint8)
    ramp[:8] = np.repeat(np.arange(9), 8)[None] * 20
    rows, columns = difference_hash(Image.fromarray(ramp))
    assert rows == 0xFF00_0000_0000_0000
    assert columns == 0
    assert difference_hash(Image.fromarray(ramp.T.copy())) == (0, 0x8080_8080_8080_8080)
    assert difference_hash(Image.new("L", (30, 30), 7)) == (0, 0)


def test_a_resized_and_recompressed_copy_hashes_nearly_alike(tmp_path):
    paths = [image(tmp_path / f"{i}.png", i, size=256) for i in range(30)]
    hashes = []
    for path in paths:
        opened = Image.open(path)
        opened.resize((180, 180)).save(tmp_path / "copy.jpg", quality=80)
        hashes.append((examine(path).dhash, examine(tmp_path / "copy.jpg").dhash))
    copies = [max((x ^ y).bit_count() for x, y in zip(a, b, strict=True)) for a, b in hashes]
    others = [(hashes[i][0][k] ^ hashes[i + 1][0][k]).bit_count() for i in range(29) for k in (0, 1)]
    assert max(copies) <= NEAR_BITS
    assert min(others) > 12
