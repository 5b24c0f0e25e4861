"""Comparing on real digits: what is measured, and that it can be stopped and continued."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from floats_edge.artifacts.checkpoint import Epoch
from floats_edge.artifacts.study import STUDY, Footing, Study, Trial, load_study
from floats_edge.baselines.oat import OatNetwork
from floats_edge.baselines.spec import Oat
from floats_edge.cli.main import cli
from floats_edge.compare.complexity import layer_macs
from floats_edge.compare.plan import Plan, load_plan
from floats_edge.compare.run import compare
from floats_edge.errors import ArtifactError
from floats_edge.networks.build import build
from floats_edge.networks.spec import NetworkSpec
from floats_edge.training.loop import Observer
from floats_edge.training.stage import Unwatched

SMALL = (
    "data.dataset=digits",
    "data.preprocessing.size=8",
    "data.train_images=96",
    "data.crop=1",
    "train.epochs=1",
    "train.batch_size=32",
    "model.arguments.width=8",
    "model.arguments.stem_stride=1",
    "sparsity.multiple=2",
    "evaluate.images=20",
    "evaluate.attack.steps=2",
)


BOTH = ("compare-small", "compare-patterns")


class Watch:
    """Writes down what is trained; raises in the training of ``stop``."""

    def __init__(self, stop: str | None = None) -> None:
        self.stop = stop
        self.trained: list[str] = []
        self.finished: list[str] = []

    def on_footing(self, footing: Footing) -> None:
        self.footing = footing

    @contextmanager
    def training(self, name: str, epochs: int) -> Iterator[Observer]:
        watch = self

        class Steps(Unwatched):
            def on_step(self, step: int, steps: int, loss: float, images_per_s: float) -> None:
                if name == watch.stop:
                    raise KeyboardInterrupt

            def on_epoch(self, epoch: Epoch) -> None:
                watch.trained.append(name)

        yield Steps()

    def on_trial(self, trial: Trial) -> None:
        self.finished.append(trial.variant)


def small(*names: str, options: tuple[str, ...] = SMALL) -> Plan:
    """Some variants of both; the first one is the reference."""
    variants = load_plan(BOTH, options).variants
    return Plan({name: variants[name] for name in names}, names[0])


@pytest.fixture(scope="module")
def study_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("study") / "small"
    options = [word for option in SMALL for word in ("-o", option)]
    result = CliRunner().invoke(cli, ["compare", *BOTH, *options, "--out", str(folder), "--device", "cpu"])
    assert result.exit_code == 0, result.output
    return folder


@pytest.fixture(scope="module")
def study(study_folder: Path) -> Study:
    return load_study(study_folder / STUDY)


def test_every_variant_is_measured(study: Study, study_folder: Path) -> None:
    assert [trial.variant for trial in study.trials] == list(load_plan(BOTH).variants)
    for trial in study.trials:
        assert trial.results[0].clean.total == 20
        assert trial.train_s > 0
        assert trial.steps == 3
    assert (study_folder / "study.png").read_bytes().startswith(b"\x89PNG")
    assert "irregular-0.1" in (study_folder / "study.md").read_text()


def test_cost(study: Study) -> None:
    cost = {trial.variant: trial.complexity for trial in study.trials}
    plain, dense = cost["pgd-at"], cost["float"]
    assert plain.parameters < dense.parameters < cost["oat"].parameters
    assert dense.macs == plain.macs < cost["oat"].macs
    assert dense.nonzero_macs == dense.macs
    sparse = cost["irregular-0.1"]
    assert sparse.parameters == dense.parameters
    weights = sum(mask for mask in (dense.nonzeros,)) - sparse.nonzeros
    assert weights / dense.nonzeros == pytest.approx(0.9, abs=0.05)
    assert sparse.nonzero_macs < 0.35 * dense.macs
    assert cost["2-4"].nonzero_macs == pytest.approx(0.5 * dense.macs, rel=0.05)
    assert sparse.bytes < 0.4 * dense.bytes
    narrow = cost["channel-0.5"]
    assert narrow.parameters == narrow.nonzeros < 0.3 * dense.parameters
    assert narrow.macs == narrow.nonzero_macs < 0.3 * dense.macs
    assert narrow.bytes < 0.4 * dense.bytes, "of a network as small as this, the names of the tensors weigh too"
    assert plain.bytes < dense.bytes < 1.3 * plain.bytes


def test_finished_trials_are_used_again_and_seeds_can_be_added(study_folder: Path) -> None:
    plan = small("oat", "float")
    before = {path: path.read_bytes() for path in (study_folder / "float").rglob("*") if path.is_file()}
    watch = Watch(stop="float, seed 1")
    with pytest.raises(KeyboardInterrupt):
        compare(plan, 2, study_folder, watch)
    assert watch.trained == ["oat, seed 1"]
    assert watch.finished == ["oat", "float", "oat"]
    assert {path: path.read_bytes() for path in before} == before
    watch = Watch()
    study = compare(plan, 2, study_folder, watch)
    assert watch.trained == ["float, seed 1"]
    assert [(trial.variant, trial.seed) for trial in study.trials] == [
        ("oat", 0),
        ("float", 0),
        ("oat", 1),
        ("float", 1),
    ]


def test_a_trial_of_other_weights_is_evaluated_again(study_folder: Path, study: Study) -> None:
    trial_file = study_folder / "float" / "seed-0" / "test" / "trial.json"
    stale = json.loads(trial_file.read_text())
    trial_file.write_text(json.dumps({**stale, "weights_sha256": "0" * 64}))
    (trial,) = compare(small("float"), 1, study_folder, Watch()).trials
    assert trial.weights_sha256 == stale["weights_sha256"]
    assert trial.results == next(trial for trial in study.trials if trial.variant == "float").results


def test_another_evaluation_needs_no_other_training(study_folder: Path, study: Study) -> None:
    changed = (*SMALL, "evaluate.images=30", "evaluate.attack.steps=1", "evaluate.lambdas=[0,1]")
    watch = Watch()
    again = compare(small("float", options=changed), 1, study_folder, watch)
    assert (watch.trained, watch.finished) == ([], ["float"])
    before = next(trial for trial in study.trials if trial.variant == "float")
    (trial,) = again.trials
    assert trial.weights_sha256 == before.weights_sha256
    assert [(result.lam, result.clean.total) for result in trial.results] == [(0, 30), (1, 30)]
    assert trial.evaluation.attack == again.attack != study.attack


def test_an_older_study_is_refused_with_the_command_that_makes_it_anew(study_folder: Path, tmp_path: Path) -> None:
    older = {**json.loads((study_folder / STUDY).read_text()), "schema_version": 1}
    del older["footing"]
    (tmp_path / STUDY).write_text(json.dumps(older))
    watch = Watch()
    with pytest.raises(ArtifactError, match=r"study\.json is not valid") as caught:
        compare(small("float"), 1, tmp_path, watch)
    assert "floats-edge compare RECIPE --out DIR" in caught.value.fix
    assert watch.trained == []
    assert json.loads((tmp_path / STUDY).read_text()) == older


def test_a_trial_that_lacks_something_names_the_file_to_delete(study_folder: Path) -> None:
    trial_file = study_folder / "pgd-at" / "seed-0" / "test" / "trial.json"
    older = json.loads(trial_file.read_text())
    del older["evaluation"]
    trial_file.write_text(json.dumps(older))
    with pytest.raises(ArtifactError, match=r"pgd-at/seed-0/test/trial\.json is not valid: evaluation") as caught:
        compare(small("pgd-at"), 1, study_folder, Watch())
    assert "delete it and repeat" in caught.value.fix
    trial_file.unlink()
    watch = Watch()
    compare(small("pgd-at"), 1, study_folder, watch)
    assert (watch.trained, watch.finished) == ([], ["pgd-at"])


def test_one_network_for_the_time_of_two(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    options = [word for option in (*SMALL, "train.epochs=2") for word in ("-o", option)]
    words = ["compare", "compare-small", *options, "--equal", "seconds", "--seeds", "2", "--out", str(tmp_path)]
    result = CliRunner().invoke(cli, [*words, "--device", "cpu"])
    assert result.exit_code == 0, result.output
    assert result.stderr.startswith("Equal seconds")
    assert "as many seconds as standard + pgd-at" in " ".join(result.stderr.split())
    study = load_study(tmp_path / STUDY)
    assert (study.reference, study.envelopes) == ("two-networks", {"two-networks": ("standard", "pgd-at")})
    trained = {trial.variant: trial.steps // 3 for trial in study.trials}
    assert trained == {name: budget.epochs for name, budget in study.footing.budgets.items()}
    assert trained["standard"] == trained["pgd-at"] == 2
    text = (tmp_path / "study.md").read_text()
    for title in ("Difference to two-networks", "given up against two-networks", "best single network of two-networks"):
        assert title in text
    again = CliRunner().invoke(cli, [*words, "--device", "cpu"])
    assert again.exit_code == 0, again.output
    assert load_study(tmp_path / STUDY) == study
    other = CliRunner().invoke(cli, [*words, "--equal", "passes", "--device", "cpu"])
    assert other.exit_code == 1
    assert "was begun with --equal seconds" in other.stderr


def test_multiply_accumulates_by_hand() -> None:
    spec, images = NetworkSpec(name="resnet8", arguments={"width": 4}), torch.rand(2, 3, 8, 8)
    macs = layer_macs(build(spec, 5, 3), (3, 8, 8))
    assert macs["stem"] == 4 * 3 * 9 * 64
    assert macs["blocks.1.shortcut"] == 8 * 4 * 16
    assert macs["head"] == 16 * 5
    first = 2 * 4 * 4 * 9 * 64
    second = (8 * 4 * 9 + 8 * 8 * 9 + 8 * 4) * 16
    third = (16 * 8 * 9 + 16 * 16 * 9 + 16 * 8) * 4
    assert macs[""] == macs["stem"] + first + second + third + macs["head"]
    network = OatNetwork(build(spec, 5, 3), images, Oat(dimensions=8), 0)
    oat = layer_macs(lambda image: network(image, 0.0), (3, 8, 8))
    films = [4, 4, 4, 8, 8, 16, 16]
    assert oat[""] == macs[""] + sum(8 * 2 * c + 2 * c * 2 * c for c in films)
