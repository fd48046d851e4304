"""The fixtures for other people's suites, used by suites of their own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from celonis_emulator.testing import Emulator, EmulatorFailed

from .conftest import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

EXAMPLE = Path(__file__).parents[2] / "examples" / "pytest"
PLUGIN = 'pytest_plugins = ["celonis_emulator.testing"]\n'


def run_suite(directory: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Run pytest on a directory, with nothing of the settings around it."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "error"]
    command += ["-p", "no:randomly", "-p", "no:schemathesis", "--rootdir", str(directory)]
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("COV", "PYTEST"))}
    return subprocess.run(
        [*command, *options, str(directory)],
        cwd=directory,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def suite(directory: Path, test: str, **files: str) -> Path:
    """Write a suite of one module that asks for the fixtures."""
    (directory / "pytest.ini").write_text(files.pop("ini", "[pytest]\n"))
    (directory / "conftest.py").write_text(PLUGIN + files.pop("conftest", ""))
    (directory / "test_it.py").write_text(test)
    for name, content in files.items():
        (directory / name).write_text(content)
    return directory


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{pid}/stat")
    return not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] != "Z"


def test_the_example_suite(tmp_path: Path) -> None:
    """As it stands in the documentation; with nothing but the loopback to reach."""
    directory = tmp_path / "suite"
    shutil.copytree(EXAMPLE, directory, ignore=shutil.ignore_patterns("__pycache__"))
    ended = run_suite(directory, "--disable-socket", "--allow-hosts=127.0.0.1")
    assert ended.returncode == 0, ended.stdout
    assert "3 passed" in ended.stdout
    # Nothing is left where the suite lies.
    left = {path.name for path in directory.iterdir()} - {"__pycache__"}
    assert left == {path.name for path in EXAMPLE.iterdir()} - {"__pycache__"}


def test_all_that_an_emulator_can_do(tmp_path: Path) -> None:
    emulator = Emulator(tmp_path)
    try:
        assert emulator.url.startswith("http://127.0.0.1:")
        assert emulator.settings == {
            "base_url": emulator.url,
            "auth_method": "api_key",
            "api_key": emulator.api_key,
            "data_pool_id": "local",
        }
        assert emulator.push_jobs() == []
        assert emulator.requests()["GET", "/_emulator/history"] == 1
        first = emulator.add_fault("connect", answer=503, times=2)
        second = emulator.add_fault(tokens="die")
        assert [fault["id"] for fault in emulator.faults()] == [first, second]
        emulator.clear_faults()
        assert emulator.faults() == []
        with pytest.raises(EmulatorFailed, match="no such field"):
            emulator.add_fault("connect", anser=503)
        with pytest.raises(EmulatorFailed, match="nothing"):
            emulator.query("SELECT * FROM nothing")
        assert emulator.query("SELECT 1 WHERE false") == []
    finally:
        emulator.stop()
    emulator.stop()  # twice is fine
    assert emulator.log.read_text() == ""


@pytest.mark.parametrize(
    ("sql", "value"),
    [
        ("1", "1"),
        ("-170141183460469231731687303715884105727::HUGEINT", f"{-(2**127 - 1)}"),
        ("1.5::DOUBLE", "1.5"),
        ("'inf'::FLOAT", "inf"),
        ("1.50::DECIMAL(9,2)", "Decimal('1.50')"),
        ("true", "True"),
        ("false", "False"),
        ("DATE '2024-02-29'", "datetime.date(2024, 2, 29)"),
        ("TIME '01:02:03.5'", "datetime.time(1, 2, 3, 500000)"),
        ("TIMESTAMP '2024-02-29 01:02:03'", "datetime.datetime(2024, 2, 29, 1, 2, 3)"),
        ("DATE '29999-01-01'", "'29999-01-01'"),
        ("'x'", "'x'"),
        ("''", "''"),
        ("NULL", "None"),
        ("NULL::INTEGER", "None"),
        ("[1, 2]", "'[1, 2]'"),
    ],
)
def test_values_have_their_types(shared_emulator: Emulator, sql: str, value: str) -> None:
    assert [repr(v) for v in shared_emulator.query(f"SELECT {sql}")[0]] == [value]


@pytest.fixture(scope="module")
def shared_emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    emulator = Emulator(tmp_path_factory.mktemp("shared"))
    yield emulator
    emulator.stop()


def test_a_set_up_of_ones_own(tmp_path: Path) -> None:
    """The fixture is overridden with what would be in a file; options are those of the program."""
    override = (
        "import pytest\n"
        "@pytest.fixture(scope='session')\n"
        "def celonis_emulator_config():\n"
        "    return {'pools': [{'id': 'mine'}], 'switches': {'profile': 'harsh'}}\n"
    )
    test = (
        "def test_shared(celonis_emulator):\n"
        "    assert celonis_emulator.data_pool_id == 'mine'\n"
        "    assert celonis_emulator.settings['data_pool_id'] == 'mine'\n"
        "def test_more(celonis_emulator_factory, celonis_emulator):\n"
        "    one = celonis_emulator_factory(pool=['a', 'b'], cancel=False, queued_seconds=0.5)\n"
        "    other = celonis_emulator_factory(config={'pools': ['c']})\n"
        "    assert [one.data_pool_id, other.data_pool_id] == ['a', 'c']\n"
        "    assert len({one.url, other.url, celonis_emulator.url}) == 3\n"
        "    one.query('SELECT 1')\n"
        "    one.stop()\n"
        "    again = celonis_emulator_factory(directory=one.directory)\n"
        "    assert again.data_pool_id == 'a'\n"
    )
    ended = run_suite(suite(tmp_path, test, conftest=override))
    assert ended.returncode == 0, ended.stdout
    assert "2 passed" in ended.stdout


def test_everything_ends_with_a_test_that_fails(tmp_path: Path) -> None:
    test = (
        "import json\n"
        "from pathlib import Path\n"
        "def test_it(celonis_emulator, celonis_emulator_factory):\n"
        "    both = [celonis_emulator, celonis_emulator_factory()]\n"
        "    both[0].add_fault('connect', hang=True)\n"
        "    Path('pids.json').write_text(json.dumps([one._process.pid for one in both]))\n"
        "    assert False, 'on purpose'\n"
    )
    ended = run_suite(suite(tmp_path, test))
    assert ended.returncode == 1
    assert "on purpose" in ended.stdout
    assert "1 failed" in ended.stdout
    pids = json.loads((tmp_path / "pids.json").read_text())
    assert len(pids) == 2
    assert not [pid for pid in pids if is_alive(pid)]


def test_the_server_ends_with_a_session_that_is_killed(tmp_path: Path) -> None:
    test = (
        "import os, signal\n"
        "from pathlib import Path\n"
        "def test_it(celonis_emulator):\n"
        "    Path('pid').write_text(str(celonis_emulator._process.pid))\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    assert run_suite(suite(tmp_path, test)).returncode == -9
    pid = int((tmp_path / "pid").read_text())
    eventually(lambda: not is_alive(pid), "the server ends")


def test_one_that_does_not_start_says_why(tmp_path: Path) -> None:
    ini = "[pytest]\ncelonis_emulator_config = missing.yaml\n"
    ended = run_suite(suite(tmp_path, "def test_it(celonis_emulator): pass\n", ini=ini))
    assert ended.returncode == 1
    assert "The emulator does not start" in ended.stdout
    assert "missing.yaml" in ended.stdout


def test_a_module_may_ask_for_it_too(tmp_path: Path) -> None:
    """Then there are no settings, and the emulator is as it is by default."""
    test = PLUGIN + "def test_it(celonis_emulator): assert celonis_emulator.tables() == []\n"
    (tmp_path / "test_it.py").write_text(test)
    ended = run_suite(tmp_path)
    assert ended.returncode == 0, ended.stdout


def test_the_package_does_without_pytest() -> None:
    code = (
        "import sys; sys.modules['pytest'] = None\n"
        "import celonis_emulator, celonis_emulator.cli, celonis_emulator.serve\n"
        "assert not [name for name in sys.modules if name.startswith('target_celonis')]\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
    code = (
        "import sys; import celonis_emulator.testing\n"
        "assert not [name for name in sys.modules if name.startswith('target_celonis')]\n"
        "assert 'duckdb' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
