import numpy as np
import pytest
from PIL import Image

from cnnjax import explain


def test_a_picture_is_scaled_and_its_center_cut_out(tmp_path):
    levels = np.zeros((20, 60, 3), np.uint8)
    levels[:, 20:40] = [200, 100, 0]
    Image.fromarray(levels).save(tmp_path / "wide.png")
    found = explain.read_picture(tmp_path / "wide.png", size=(10, 10))
    assert found.shape == (10, 10, 3) and found.dtype == np.uint8
    # The middle third fills the square.
    np.testing.assert_array_equal(found[1:-1, 2:-2], np.zeros((8, 6, 3)) + [200, 100, 0])
    gray = explain.read_picture(tmp_path / "wide.png", size=(4, 12), channels=1)
    assert gray.shape == (4, 12, 1)


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGBA", "CMYK", "I;16"])
def test_any_mode_is_read(mode, tmp_path):
    path = tmp_path / ("picture.tif" if mode in ("CMYK", "I;16") else "picture.png")
    Image.new(mode, (6, 6)).save(path)
    assert explain.read_picture(path, size=(6, 6)).shape == (6, 6, 3)


def test_the_camera_may_lie_on_its_side(tmp_path):
    levels = np.zeros((4, 8), np.uint8)
    levels[:, :4] = 255
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(levels).save(tmp_path / "turned.png", exif=exif)
    found = explain.read_picture(tmp_path / "turned.png", size=(8, 4), channels=1)[..., 0]
    np.testing.assert_array_equal(found, levels.T)


def test_what_is_written_is_read(tmp_path):
    picture = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    explain.write_picture(tmp_path / "new" / "picture.png", picture)
    np.testing.assert_array_equal(
        explain.read_picture(tmp_path / "new" / "picture.png", size=(5, 7)), picture
    )
    assert [file.name for file in (tmp_path / "new").iterdir()] == ["picture.png"]


@pytest.mark.parametrize("content", [b"", b"no picture", b"\x89PNG\r\n\x1a\n" + 40 * b"\0"])
def test_what_is_no_picture(content, tmp_path):
    path = tmp_path / "cat.jpg"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="cat.jpg is no picture that Pillow can read"):
        explain.read_picture(path, size=(4, 4))


def test_a_picture_that_ends_too_early(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "whole.jpg")
    cut = tmp_path / "cut.jpg"
    cut.write_bytes((tmp_path / "whole.jpg").read_bytes()[:900])
    with pytest.raises(ValueError, match="cut.jpg is no picture that Pillow can read"):
        explain.read_picture(cut, size=(4, 4))


def test_other_errors(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no file .*cat.jpg: name a picture"):
        explain.read_picture(tmp_path / "cat.jpg", size=(4, 4))
    with pytest.raises(ValueError, match="a picture has 1 or 3 channels; the model takes 2"):
        explain.read_picture(tmp_path / "cat.jpg", size=(4, 4), channels=2)
    with pytest.raises(ValueError, match="Pillow writes no files that end in '.doc': use .*cat.png"):
        explain.write_picture(tmp_path / "cat.doc", np.zeros((2, 2), np.uint8))
