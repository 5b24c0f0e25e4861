"""What is shown of a study."""

from pathlib import Path

from floats_edge.artifacts.accuracy import LambdaResult, Share
from floats_edge.artifacts.study import Budget, Complexity, Footing, Study, Timing, Trial
from floats_edge.recipe import Attack, Evaluate, Recipe, TrainingAttack
from floats_edge.report.footing import footing_table
from floats_edge.report.study import study_tables, write_study_png
from floats_edge.report.tables import Table

PGD = Attack(kind="pgd", epsilon=0.1, step=None, steps=20)


def trial(
    variant: str,
    seed: int,
    clean: int | tuple[int, ...],
    robust: int | tuple[int, ...],
    lambdas: tuple[float, ...] = (0.5,),
    **changes: object,
) -> Trial:
    """Of 100 images; accuracies by lambda."""
    pairs = zip(*(value if isinstance(value, tuple) else (value,) for value in (clean, robust)), strict=True)
    results = tuple(
        LambdaResult(lam=lam, clean=Share(count=one, total=100), robust=Share(count=other, total=100))
        for lam, (one, other) in zip(lambdas, pairs, strict=True)
    )
    fields = {
        "variant": variant,
        "method": "float",
        "sparsity": "dense",
        "train_attack": PGD,
        "seed": seed,
        "weights_sha256": "0" * 64,
        "evaluation": Evaluate(attack=PGD),
        "results": results,
        "complexity": Complexity(parameters=1, nonzeros=1, macs=1, nonzero_macs=1, bytes=1024),
        "steps": 10,
        "train_s": 2.0,
        "largest_alpha": None,
        "overfitted_epochs": 0,
    }
    return Trial.model_validate(fields | changes)


def budget(epochs: int = 3, timing: Timing | None = None) -> Budget:
    recipe = Recipe(name="a", attack=TrainingAttack(kind="pgd", epsilon=0.1, steps=7), evaluate=Evaluate(attack=PGD))
    return Budget(recipe=recipe, epochs=epochs, images=640, timing=timing)


def study(*trials: Trial, reference: str = "a", envelopes: dict[str, tuple[str, ...]] | None = None) -> Study:
    budgets = {trial.variant: budget() for trial in trials}
    return Study(
        name="s",
        dataset="digits",
        split="test",
        attack=PGD,
        reference=reference,
        envelopes=envelopes or {},
        footing=Footing(equal="epochs", reference=(reference,), budgets=budgets),
        trials=trials,
        conditions={"device": "cpu"},
    )


def shown(record: Study, title: str) -> Table:
    return next(table for table in study_tables(record) if title in table.title)


def test_ratios_are_paired_by_seed() -> None:
    """Each seed's ratio is 2, so that there is no spread, however much the seeds differ."""
    trials = [trial("a", seed, size, 20) for seed, size in ((0, 40), (1, 80))]
    trials += [trial("b", seed, size, 10) for seed, size in ((1, 80), (0, 40))]
    table = next(table for table in study_tables(study(*trials)) if "row over column" in table.title)
    assert table.rows[0] == ("a", "1.00 ± 0.00", "2.00 ± 0.00")


def test_differences_are_paired_by_seed_and_say_how_many_seeds_they_need() -> None:
    """4, 8 and 6 points: mean 6, deviation 2; 3 seeds give 6 ± 4.97, 2 would give 6 ± 18."""
    pairs = ((0, 40, 44), (1, 60, 68), (2, 50, 56))
    trials = [trial("a", seed, low, 20, (0,)) for seed, low, _ in pairs]
    trials += [trial("b", seed, high, 20, (0,)) for seed, _, high in reversed(pairs)]
    table = shown(study(*trials), "Difference to a")
    assert table.rows == (
        ("b", "hypervolume", "+120 ± 99", "3", "3"),
        ("b", "clean % at λ 0", "+6.0 ± 5.0", "3", "3"),
        ("b", "robust % at λ 1", "unknown", "0", "unknown"),
    )


def test_no_difference_needs_no_number_of_seeds_and_one_seed_tells_none() -> None:
    equal = [trial(name, seed, 50, 20, (0,)) for name in "ab" for seed in (0, 1)]
    assert shown(study(*equal), "Difference").rows[0] == ("b", "hypervolume", "+0 ± 0", "2", "none would do")
    one = [trial(name, 0, clean, 20, (0,)) for name, clean in (("a", 40), ("b", 50))]
    assert shown(study(*one), "Difference").rows[0] == ("b", "hypervolume", "+200", "1", "unknown: one seed")


def two_networks(*seeds: int) -> Study:
    """A network with a knob, and two without, whose envelope goes from 70, 0 to 40, 30."""
    trials = []
    for seed in seeds:
        trials += [
            trial("clean", seed, 70, 0, (0,), method="standard", train_s=3),
            trial("hard", seed, 40, 30, (0,), method="pgd-at", train_s=5),
            trial("knob", seed, (66, 62, 42), (2, 10, 31), (0, 0.5, 1), train_s=8),
        ]
    return study(*trials, reference="both", envelopes={"both": ("clean", "hard")})


def test_of_an_envelope_the_best_network_is_the_reference() -> None:
    """Its hypervolume is that of both points, 40 * 30; the knob's 66 * 2 + 62 * 8 + 42 * 21."""
    assert shown(two_networks(0), "Difference to both").rows == (
        ("knob", "hypervolume", f"+{66 * 2 + 62 * 8 + 42 * 21 - 1200}", "1", "unknown: one seed"),
        ("knob", "clean % at λ 0", "-4.0", "1", "unknown: one seed"),
        ("knob", "robust % at λ 1", "+1.0", "1", "unknown: one seed"),
    )


def test_clean_accuracy_given_up_at_equal_robustness() -> None:
    table = shown(two_networks(0, 1), "given up against both")
    assert table.rows == (
        ("knob", "0", "≤ 2.0 ± 0.0", "66.0 ± 0.0", "+2.0 ± 0.0"),
        ("knob", "0.5", "≤ 10.0 ± 0.0", "62.0 ± 0.0", "-2.0 ± 0.0"),
        ("knob", "1", "≤ 31.0 ± 0.0", "42.0 ± 0.0", "beyond the envelope (2 of 2 seeds)"),
    )


def test_a_seed_beyond_the_envelope_is_not_left_out_of_the_mean() -> None:
    record = two_networks(0)
    other = (trial("clean", 1, 70, 0, (0,), method="standard"), trial("hard", 1, 40, 35, (0,), method="pgd-at"))
    knob = record.trials[-1].model_copy(update={"seed": 1})
    record = record.model_copy(update={"trials": (*record.trials, *other, knob)})
    assert shown(record, "given up").rows[-1][-1] == "beyond the envelope (1 of 2 seeds)"


def test_one_network_s_cost_stands_beside_the_envelope_s() -> None:
    table = shown(two_networks(0), "Beyond the best single network of both")
    area = 26 * 2 + 22 * 8 + 2 * 20 + 42 * 1
    row = dict(zip(table.columns, table.rows[0], strict=True))
    assert row == {
        "variant": "knob",
        "area beyond": str(area),
        "training s": "8.0",
        "training s of 2": "8.0",
        "KiB": "1",
        "KiB of 2": "2",
    }


def test_footing_says_what_was_timed_where() -> None:
    timing = Timing(median=2.0, low=1.9, high=2.25, steps=12, conditions={"device": "cpu"})
    table = footing_table(Footing(equal="seconds", reference=("a",), budgets={"a": budget(4, timing)}))
    assert table.rows == (("a", "4", "640", "2,560", "2 [1.90, 2.25]", "8"),)
    assert any("as many seconds as a," in note for note in table.notes)
    assert any("12 training steps" in note and "device cpu" in note for note in table.notes)
    assert "s per epoch" not in footing_table(study(trial("a", 0, 1, 1)).footing).columns


def test_one_seed_shows_no_interval_and_missing_alpha_is_no_zero() -> None:
    summary = study_tables(study(trial("a", 0, 50, 20)))[0]
    row = dict(zip(summary.columns, summary.rows[0], strict=True))
    assert row["hypervolume"] == "1,000"
    assert row["max |α|"] == "none"
    assert any("upper bound" in note for note in summary.notes)


def test_hostile_names_are_harmless(tmp_path: Path) -> None:
    record = study(trial("a\x1b[31m$x^", 0, 50, 20))
    assert "\x1b" not in study_tables(record)[0].rows[0][0]
    write_study_png(record, tmp_path / "study.png")
    assert (tmp_path / "study.png").stat().st_size > 1000
