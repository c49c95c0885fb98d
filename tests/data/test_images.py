import numpy as np
import pytest
import torch
from PIL import Image

from fgsynth.data.images import as_rgb, as_rgb_all
from fgsynth.utils.errors import UserError


def ramp(h=4, w=6):
    return np.arange(h * w, dtype=np.uint8).reshape(h, w) * 10


def test_grey_becomes_three_equal_channels():
    out = np.asarray(as_rgb(Image.fromarray(ramp())))
    assert out.shape == (4, 6, 3)
    assert (out == ramp()[..., None]).all()
    assert np.array_equal(out, np.asarray(as_rgb(ramp())))


def test_transparency_becomes_white():
    rgba = np.zeros((2, 2, 4), np.uint8)
    rgba[0, 0] = (200, 10, 20, 255)
    out = np.asarray(as_rgb(Image.fromarray(rgba)))
    assert out[0, 0].tolist() == [200, 10, 20]
    assert out[1, 1].tolist() == [255, 255, 255]


def test_a_palette_with_a_transparent_colour():
    image = Image.fromarray(np.zeros((2, 2), np.uint8), "P")
    image.putpalette([9, 9, 9])
    image.info["transparency"] = 0
    assert np.asarray(as_rgb(image)).min() == 255


def test_16_bit_is_scaled_not_clipped(tmp_path):
    path = tmp_path / "deep.png"
    Image.fromarray(np.array([[0, 257 * 100], [257 * 200, 65535]], np.uint16)).save(path)
    out = np.asarray(as_rgb(path))
    assert out[..., 0].tolist() == [[0, 100], [200, 255]]


@pytest.mark.parametrize(("orientation", "corner"), [(3, (-1, -1)), (6, (0, -1)), (8, (-1, 0))])
def test_the_cameras_orientation_is_obeyed(tmp_path, orientation, corner):
    pixels = np.zeros((8, 12, 3), np.uint8)
    pixels[0, 0] = 255
    image = Image.fromarray(pixels)
    exif = image.getexif()
    exif[274] = orientation
    image.save(tmp_path / "turned.png", exif=exif)
    assert np.asarray(as_rgb(tmp_path / "turned.png"))[corner].min() == 255


def test_tensors_and_arrays():
    array = np.random.default_rng(0).integers(0, 256, (5, 5, 3), dtype=np.uint8)
    assert np.array_equal(np.asarray(as_rgb(torch.from_numpy(array))), array)


def test_a_float_array_is_refused_by_number():
    with pytest.raises(UserError, match=r"Image 1 is an array of float64 and shape \(3, 3, 3\)"):
        as_rgb_all([ramp(), np.zeros((3, 3, 3))])


def test_float_images_outside_the_range_are_refused():
    with pytest.raises(UserError, match="outside 0 to 65535"):
        as_rgb(Image.fromarray(np.array([[-3.0]], np.float32)))


def test_float_images_from_0_to_1():
    assert np.asarray(as_rgb(Image.fromarray(np.array([[0.0, 1.0]], np.float32))))[0, :, 0].tolist() == [
        0,
        255,
    ]


def test_a_broken_file_is_named(tmp_path):
    path = tmp_path / "broken.jpg"
    path.write_bytes(b"\xff\xd8\xff not an image")
    with pytest.raises(UserError, match=r"broken\.jpg is not a readable image"):
        as_rgb(path)


def test_a_truncated_file_is_named(tmp_path):
    path = tmp_path / "short.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(UserError, match=r"short\.png is not a readable image"):
        as_rgb(path)


def test_premultiplied_transparency_becomes_white():
    grey = Image.new("LA", (2, 2), (100, 0)).convert("La")
    assert np.asarray(as_rgb(grey)).tolist() == [[[255] * 3] * 2] * 2


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"nowhere\.png"):
        as_rgb(tmp_path / "nowhere.png")
