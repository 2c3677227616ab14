"""Files are whole or as they were."""

import os
import stat

import pytest

from foveal.files import replacing


def half_write(path):
    with replacing(path) as file:
        file.write_bytes(b"sec")
        raise OSError(28, "No space left on device")


def test_a_failed_write_leaves_the_previous_file_whole(tmp_path):
    path = tmp_path / "last.ckpt"
    with replacing(path) as file:
        file.write_bytes(b"first")
    with pytest.raises(OSError, match="No space left"):
        half_write(path)
    assert path.read_bytes() == b"first"
    assert [p.name for p in tmp_path.iterdir()] == ["last.ckpt"]


def test_the_target_appears_at_the_end_and_others_may_read_it(tmp_path):
    path = tmp_path / "new folder" / "a.txt"
    with replacing(path) as file:
        file.write_text("x")
        file.chmod(0o600)
        assert not path.exists()
        assert file.suffix == ".txt"
    assert path.read_text() == "x"
    mask = os.umask(0)
    os.umask(mask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~mask
