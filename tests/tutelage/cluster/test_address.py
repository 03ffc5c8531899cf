"""What `--cluster` and `--share` cannot be is said at once, in one line."""

import socket
from pathlib import Path

import pytest

from tests.ray_cluster import free_port
from tests.tutelage.command import assert_exit, tutelage
from tutelage.bench.boards.address import check_address
from tutelage.bench.boards.pool import joined
from tutelage.cluster.spread import spread_on_cluster
from tutelage.pipeline.recipe import load_recipe
from tutelage.pipeline.workspace import Workspace
from tutelage.progress import silent
from tutelage.records import InputError, NotAvailableError


@pytest.mark.parametrize("address", ["nonsense", "", "local", "ray://host", "host:99999", "http://host:80", "ray://:1"])
def test_an_address_of_another_form_is_refused(address: str) -> None:
    with pytest.raises(InputError, match=r"--cluster '.*' is no address of a Ray cluster: give auto.*ray://HOST:10001"):
        check_address(address)


@pytest.mark.parametrize("form", ["ray://127.0.0.1:{}", "127.0.0.1:{}", "ray://nowhere.invalid:{}", "[::1]:{}"])
def test_an_address_at_which_nothing_answers_is_refused_before_ray_waits_for_it(form: str) -> None:
    address = form.format(free_port())
    with pytest.raises(NotAvailableError, match=r"nothing answers there \(.+\): start a cluster by `ray start --head`"):
        check_address(address)


def test_a_port_that_answers_and_auto_are_left_to_ray() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        check_address(f"ray://127.0.0.1:{server.getsockname()[1]}")
    check_address("auto")


def test_the_cluster_of_a_pool_of_boards_is_checked_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", f"ray://127.0.0.1:{free_port()}")
    with pytest.raises(NotAvailableError, match=r"RAY_ADDRESS ray://127\.0\.0\.1:\d+: nothing answers there"), joined():
        pass
    monkeypatch.setenv("RAY_ADDRESS", "pi")
    with pytest.raises(InputError, match="RAY_ADDRESS 'pi' is no address"), joined():
        pass


def test_the_command_says_so_before_it_reads_the_recipe(tmp_path: Path) -> None:
    done = tutelage("run", "no-such-recipe", "-w", str(tmp_path / "w"), "--cluster", "nonsense")
    assert_exit(done, 2, "--cluster 'nonsense' is no address of a Ray cluster")


def test_a_share_that_cannot_be_written_is_refused_before_ray_is_joined(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    share = str(tmp_path / "file" / "below")
    with pytest.raises(InputError, match=r"--share: .*below cannot be written"):
        spread_on_cluster(load_recipe("demo"), Workspace(tmp_path / "w"), silent, "auto", share).__enter__()
