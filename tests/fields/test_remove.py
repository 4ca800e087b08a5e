"""Removing what several processes remove at once."""

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

from sciffusion.fields.output import remove


def test_a_folder_that_others_remove_too_is_gone_for_all_of_them(tmp_path):
    for round_ in range(10):
        folder = tmp_path / str(round_)
        for number in range(40):
            (folder / str(number)).mkdir(parents=True)
            (folder / str(number) / "c").write_text("x")
        ready = Barrier(4)

        def together(_, folder=folder, ready=ready):
            ready.wait()
            remove(folder)
            return folder.exists()

        with ThreadPoolExecutor(4) as pool:
            assert list(pool.map(together, range(4))) == [False] * 4


def test_files_links_and_nothing(tmp_path):
    kept = tmp_path / "kept"
    kept.mkdir()
    (tmp_path / "file").write_text("x")
    (tmp_path / "link").symlink_to(kept)
    for name in ("file", "link", "nothing"):
        remove(tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]
