"""The queue of a grid: what is not finished runs, rows alone are committed, a pilot is analysed."""

import subprocess
import sys
from pathlib import Path

import pytest

from deepnets_bench.cli import app
from deepnets_bench.errors import BadInput, UnknownName
from deepnets_bench.harness.protocol.grid import load_grid
from deepnets_bench.harness.protocol.tracks import load_track
from deepnets_bench.harness.runs.queue import commit_folder, dataset_of, jobs_of
from deepnets_bench.harness.runs.scheduler import unfinished
from deepnets_bench.leaderboard.results import read_rows
from tests.harness.runs.test_frames import to_toml

ROOT = Path(__file__).parents[3]
GRID_FILE = Path("leaderboards/pilot/grid.toml")
GRID = """
gnns = ["mlp", "gcn"]
seeds = [100, 101]

[[boards]]
track = "mine.toml"
out = "scratch"
embeddings = 3

[[boards]]
track = "mine.toml"
out = "scratch"
gnns = [{ gnn = "gat", options = { layers = 1 } }]
seeds = [100]
"""


def git(folder, *arguments) -> str:
    command = ["git", "-C", str(folder), "-c", "user.name=A", "-c", "user.email=a@b.c", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.fixture
def repository(tmp_path):
    """A repository with a grid, a file that is staged and one that is not."""
    git(tmp_path, "init", "-q")
    git(tmp_path, "config", "user.name", "A"), git(tmp_path, "config", "user.email", "a@b.c")
    folder = tmp_path / "leaderboards" / "pilot"
    folder.mkdir(parents=True)
    text = to_toml("", "none").split("[[frames]]")[0].replace("steps = 6", "steps = 2", 1)
    text += 'test = { count = 3, images = "test" }\n'
    (folder / "mine.toml").write_text(text.replace("warmup_steps = 2", "warmup_steps = 0"))
    (folder / "grid.toml").write_text(GRID)
    (tmp_path / ".gitignore").write_text((ROOT / ".gitignore").read_text())
    git(tmp_path, "add", "."), git(tmp_path, "commit", "-qm", "Begin")
    (tmp_path / "staged.txt").write_text("mine"), git(tmp_path, "add", "staged.txt")
    (tmp_path / "loose.txt").write_text("mine")
    return tmp_path


ONE = "\nseeds = [7]\n[[boards]]\ntrack = 'mine.toml'\n"


def run(repository, *arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "deepnets_bench", "grid", arguments[0], str(GRID_FILE), *arguments[1:]]
    return subprocess.run(command, cwd=repository, capture_output=True, text=True)


def test_jobs_go_seed_by_seed(repository):
    first, second = load_grid(repository / GRID_FILE)
    names = [job.name for job in jobs_of(first)]
    assert names == ["mlp seed 100", "gcn seed 100", "mlp seed 101", "gcn seed 101"]
    assert [job.name for job in jobs_of(second)] == ["gat layers=1 seed 100"]
    assert first.out == second.out == repository / "leaderboards/pilot/scratch"


def test_the_queue_runs_what_is_missing_and_commits_each_jobs_rows_alone(repository, tmp_path_factory):
    data = str(tmp_path_factory.getbasetemp() / "data-of-queue")
    options = ("--data", data, "--device", "cpu")
    done = run(repository, "run", *options, "--commit")
    assert done.returncode == 0, done.stderr
    log = git(repository, "log", "--format=%s").splitlines()
    assert log[-1] == "Begin"
    jobs = [job.name for board in load_grid(repository / GRID_FILE) for job in jobs_of(board)]
    assert log[0] == "Add results of gat layers=1 seed 100 on mine v1"
    assert {*log[:-1]} <= {f"Add results of {name} on mine v1" for name in jobs}  # two at once may share one
    committed = set(git(repository, "log", "--name-only", "--format=").split())
    folder = "leaderboards/pilot/scratch"
    assert {Path(name).name for name in committed if "/runs/" in name} == {"curve.csv", "embeddings.npz"}
    assert sum(name.endswith("embeddings.npz") for name in committed) == 4, "of the board that asks for them"
    assert sum("/scores/" in name for name in committed) == 5
    assert f"{folder}/results.csv" in committed
    assert git(repository, "status", "--porcelain") == "A  staged.txt\n?? loose.txt\n"  # as they were
    results = repository / folder / "results.csv"
    assert {row.status for row in read_rows(results)} == {"ok"}

    assert run(repository, "show", *options[:2]).stdout == (
        "scratch: 4 of 4 jobs finished\nscratch: 1 of 1 jobs finished\n"
    )
    before = results.read_bytes()
    again = run(repository, "run", *options, "--commit")
    assert (again.returncode, results.read_bytes()) == (0, before)

    lines = before.splitlines(keepends=True)  # as on a machine that has the rows of some jobs only
    results.write_bytes(b"".join(line for line in lines if b"gcn" not in line))
    board = load_grid(repository / GRID_FILE)[0]
    todo = unfinished(jobs_of(board), dataset_of(board, Path(data), None, 1), board.out)
    assert [job.name for job in todo] == ["gcn seed 100", "gcn seed 101"]
    results.write_bytes(before)

    report = run(repository, "report")
    assert report.returncode == 0, report.stderr
    assert "| scratch | 2 × 2 |" in report.stdout
    assert "## Each GNN" in report.stdout


def test_a_refusal_of_git_is_told_and_the_next_commit_takes_what_was_left(repository):
    folder = repository / "leaderboards" / "pilot" / "scratch"
    folder.mkdir()
    (folder / "results.csv").write_text("a\n")
    lock = repository / ".git" / "index.lock"
    lock.touch()
    assert "index.lock" in commit_folder(folder, "First")
    lock.unlink()
    (folder / "more.csv").write_text("b\n")
    assert commit_folder(folder, "Second") == ""
    assert git(repository, "show", "--name-only", "--format=%s").split() == [
        "Second", "leaderboards/pilot/scratch/more.csv", "leaderboards/pilot/scratch/results.csv",
    ]  # fmt: skip
    assert commit_folder(folder, "Third") == ""
    assert "Third" not in git(repository, "log", "--format=%s")


def test_all_that_is_wrong_with_a_grid_is_said_before_anything_runs(tmp_path):
    (tmp_path / "mine.toml").write_text(to_toml("", "none.safetensors"))
    for text, error, message in (
        ("gnns = 3", BadInput, "gnns: input should be"),
        ("gnns = [", BadInput, "is not valid TOML"),
        ("seeds = [0]", BadInput, "boards: field required"),
        ("[[boards]]\ntrack = 'mine.toml'", BadInput, "board mine has no gnns, and nor has the grid"),
        (f"gnns = [{{gnn = 'mlp', option = {{}}}}]{ONE}", BadInput, "GNNEntry.option: extra inputs are not"),
        (f"gnns = ['mlp', 'mlp']{ONE}", BadInput, "board mine lists GNN mlp twice"),
        (f"gnns = ['mlp']{ONE}".replace("[7]", "[0, 0]"), BadInput, "board mine lists seed 0 twice"),
        (
            f"gnns = ['mlp']{ONE}out = '../x'",
            BadInput,
            r"folder ../x of a board lies outside that of the grid",
        ),
        (
            "gnns = ['mlp']\nseeds = [-1]\n[[boards]]\ntrack = 'mine.toml'",
            BadInput,
            "seed of board mine is -1",
        ),
        ("gnns = ['mlp']\nseeds = [0]\n[[boards]]\ntrack = 'digts'", UnknownName, "Did you mean 'digits'"),
        ("gnns = ['mlpp']\nseeds = [0]\n[[boards]]\ntrack = 'digits'", UnknownName, "Unknown GNN 'mlpp'"),
        ("gnns = ['mlp']\nseeds = [0]\n[[boards]]\ntrack = 'mine.toml'", BadInput, "has no digest"),
    ):
        (tmp_path / "grid.toml").write_text(text)
        with pytest.raises(error, match=message) as caught:
            [jobs_of(board) for board in load_grid(tmp_path / "grid.toml")]
        assert "\n" not in str(caught.value)
    (tmp_path / "grid.toml").write_text("gnns = ['mlp']\nseeds = [0]\n[[boards]]\ntrack = 'digits'")
    with pytest.raises(UnknownName, match="Unknown board 'digit' of"):
        load_grid(tmp_path / "grid.toml", "digit")
    with pytest.raises(BadInput, match="Cannot read"):
        load_grid(tmp_path / "none.toml")


TEN = ["mlp", "ghn1", "ghn2", "gat", "gcn", "graphsage", "gin", "pna", "transformer", "gatedgraph"]
SAME = ("images", "networks", "ghn", "evaluation", "dataset_version")


def committed(grid: str):
    boards = load_grid(ROOT / "leaderboards" / grid)
    full = load_track("digits-full").identity()
    for board in boards:
        found = board.track.identity()
        assert {key: found[key] for key in SAME} == {key: full[key] for key in SAME}
        assert board.seeds == board.track.seeds
        assert all(frame.seed >= 300 for frame in board.track.frames)
    return {board.name: board for board in boards}


def test_the_committed_grid_of_the_first_pilot():
    pilot = committed("pilot/grid.toml")
    assert [*pilot] == ["half", "quarter", "scratch", "one-frame", "frame-a-seed", "mean", "twice"]
    for board in pilot.values():
        assert [entry.gnn for entry in board.gnns] == TEN
        assert board.seeds == (100, 101, 102)
        assert not board.bias
    tracks = {name: board.track for name, board in pilot.items()}
    assert len(tracks["frame-a-seed"].frames) == 3
    assert {track.training.steps for track in tracks.values()} == {1000, 2000, 4000, 8000}
    assert tracks["mean"].selection.mean_steps == 1000
    bias = committed("pilot/bias.toml")
    assert [board.shapers for board in bias.values()] == [{"mlp"}, {"ghn2"}, {"gat"}]
    for board in bias.values():
        assert board.bias
        assert board.track.training == tracks["half"].training


def test_the_committed_grids_of_the_second_pilot():
    first, pilot = committed("pilot/grid.toml"), committed("second-pilot/grid.toml")
    for name, as_in_first in (("full", "half"), ("short", "quarter")):
        board = pilot[name]
        assert [entry.gnn for entry in board.gnns] == TEN
        assert board.seeds == (103, 104, 105)
        assert board.track.training == first[as_in_first].track.training
        assert board.shapers == first[as_in_first].shapers
        one, other = committed(f"second-pilot/bias-{name}.toml").values()
        assert (one.track, one.out) == (board.track, board.out)
        assert one.bias
        assert other.track.training == board.track.training
        assert len(one.shapers) == len(other.shapers) == 4
        assert {entry.gnn for entry in other.gnns} == one.shapers | other.shapers
        assert one.shapers.isdisjoint(other.shapers)
        steps = {frame.steps for each in (one, other) for frame in each.track.frames}
        assert steps == {16000}


def test_the_frozen_track_is_the_candidate_that_was_chosen():
    candidate = committed("second-pilot/grid.toml")["full"].track
    names = {"name": "", "version": 1, "label": "", "description": "", "seeds": (0,)}
    frozen = load_track("digits-full").model_copy(update=names)
    assert frozen.fingerprint() == candidate.model_copy(update=names).fingerprint()


def test_a_track_from_scratch_is_the_training_of_the_paper_and_shapes_frames():
    scratch = load_track("digits-scratch")
    assert scratch.training == committed("pilot/grid.toml")["scratch"].track.training
    assert not scratch.frames


def test_the_grid_of_the_boards():
    boards = load_grid(ROOT / "leaderboards/grid.toml")
    assert {board.seeds for board in boards if board.name != "mnist"} == {(0, 1, 2, 3, 4)}
    first, (mnist,), (digits,) = (
        boards[0],
        [board for board in boards if board.name == "mnist"],
        [board for board in boards if board.name == "digits"],
    )
    assert len(mnist.gnns) >= 8
    assert all(entry in first.gnns for entry in mnist.gnns)
    assert mnist.seeds == mnist.track.seeds == (0, 1, 2)
    assert len(first.gnns) == 12
    assert len(digits.gnns) == 26
    full = [entry for board in boards if board.name == "digits-full" for entry in board.gnns]
    assert {entry.gnn for entry in digits.gnns} == {e.gnn for e in full if not e.gnn.startswith("control:")}


def test_the_command_is_listed():
    assert "grid" in {group.name or group.typer_instance.info.name for group in app.registered_groups}
