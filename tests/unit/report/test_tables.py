import re

import pytest
from fixtures.records import (
    bundle_evaluation,
    comparison,
    latency,
    profile,
    run,
    run_evaluation,
    sampled,
    subject,
    trace,
)

from floats_edge.artifacts.records import Peaks, Profile, Reading
from floats_edge.recipe import Attack
from floats_edge.report.profile_tables import (
    comparison_table,
    condition_table,
    energy_tables,
    estimate_tables,
    latency_table,
    layer_tables,
    mark_table,
    memory_table,
    record_tables,
    sampled_table,
    unread_table,
)
from floats_edge.report.tables import (
    accuracy_table,
    distance,
    duration,
    effective_step,
    label_records,
    layer_label,
    number,
    reading,
    subject_table,
)


def labels(records) -> list[str]:
    content = label_records(records)
    return [label for label, _ in (*content.evaluations, *content.profiles)]


def test_checkpoint_and_bundle_are_told_apart() -> None:
    assert labels([run_evaluation(), bundle_evaluation(), profile()]) == [
        "checkpoint fp32",
        "bundle bound fp32",
        "bundle bound fp32",
    ]


@pytest.mark.parametrize(
    "difference",
    [{"precision": "fp16"}, {"mode": "fixed"}, {"name": "other"}, {"path": "elsewhere"}, {"sha256": "f" * 64}],
)
def test_bundles_are_told_apart_by_whatever_differs(difference: dict[str, str]) -> None:
    first, second = labels([profile(), profile(subject=subject(**difference))])
    assert first != second


def test_second_record_of_one_subject_is_numbered() -> None:
    assert labels([profile(), profile()]) == ["bundle bound fp32", "bundle bound fp32 (2)"]


def test_a_run_and_its_bundle_are_shown_once_where_they_give_the_same_answers() -> None:
    deployed = bundle_evaluation()
    apart = label_records([run_evaluation(), deployed])
    together = label_records([run_evaluation(results=deployed.results), deployed])
    assert [label for label, _ in apart.distinct] == ["checkpoint fp32", "bundle bound fp32"]
    assert [label for label, _ in together.distinct] == ["checkpoint fp32 = bundle bound fp32"]
    assert len(record_tables(together)) == len(record_tables(apart)) - 2, "classes and confusions"
    table = accuracy_table(together)
    assert table.title == "Accuracy · checkpoint fp32 = bundle bound fp32"
    assert len(table.rows) == len(accuracy_table(apart).rows) / 2
    assert [note.partition(":")[0] for note in table.notes[1:]] == ["checkpoint fp32", "bundle bound fp32"]
    assert len(subject_table(together).rows) == 2


def test_what_was_attacked_in_another_way_is_shown_by_itself() -> None:
    stronger = bundle_evaluation(attack=Attack(kind="pgd", epsilon=0.15, steps=50))
    assert len(label_records([bundle_evaluation(), stronger]).distinct) == 2


def test_robust_accuracy_is_an_upper_bound_with_its_interval_and_conditions() -> None:
    table = accuracy_table(label_records([bundle_evaluation()]))
    assert table.rows[-1] == ("1", "96.6 [94.6, 97.9]", "≤ 42.0 [37.8, 46.4]", "96.6", "≤ 42.0", "500")
    notes = " ".join(table.notes)
    for fact in ("PGD-20", "ε 0.15", "seed 3", "digits, test images", "upper bound", "twin", "torch 2.14.0"):
        assert fact in notes


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, "Attack: PGD-20, L∞ ε 0.15, step 0.0375, 1 restart, gradients"),
        ({"noise": "frozen"}, "Noise: the frozen draw, as deployed."),
        ({"noise": "resample", "eot": 10}, "Attack: EOT-10 PGD-20, L∞"),
        ({"noise": "resample", "eot": 10}, "Noise: a fresh draw for every batch, which is not how it is deployed."),
        ({"attack": Attack(kind="pgd", epsilon=0.15, steps=20, loss="margin")}, "Attack: margin PGD-20, L∞ ε 0.15"),
        (
            {"attack": Attack.model_validate({"kind": "pgd", "epsilon": "8/255", "steps": 20})},
            "ε 8/255, step 2/255, 1 restart",
        ),
        ({"attack": Attack(kind="autoattack", epsilon=0.15)}, "Attack: AUTOATTACK, L∞ ε 0.15, gradients"),
    ],
)
def test_note_says_what_was_attacked_and_how(changes: dict[str, object], said: str) -> None:
    assert said in " ".join(accuracy_table(label_records([bundle_evaluation(**changes)])).notes)


def test_no_note_explains_a_column_that_a_console_leaves_out() -> None:
    tables = record_tables(label_records([bundle_evaluation(), profile(traces=(trace(),)), comparison()]))
    explained = [(table, column) for table in tables for column in table.details]
    assert len(explained) > 10
    for table, column in explained:
        name = column.rpartition(": ")[2].removesuffix(" %")
        assert not re.search(rf"\b{name}(:| are\b)", " ".join(table.notes), re.IGNORECASE), (table.title, column)


@pytest.mark.parametrize(
    ("pixels", "said"), [(8 / 255, "8/255"), (0.5 / 255, "0.001961"), (0.0314, "0.0314"), (0.2, "0.2"), (0.15, "0.15")]
)
def test_distances_are_written_as_people_write_them(pixels: float, said: str) -> None:
    assert distance(pixels) == said


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ({"backend": "ort-cpu", "attacked": "twin on torch-cpu"}, False),
        ({"backend": "ort-cpu", "attacked": "twin on torch-cuda"}, True),
        ({"backend": "torch-cuda:1", "attacked": "itself"}, True),
        ({"backend": "trt", "attacked": "twin on torch-cpu"}, True),
    ],
)
def test_note_says_what_float32_was_where_a_gpu_computed(where: dict[str, str], said: bool) -> None:
    notes = " ".join(accuracy_table(label_records([bundle_evaluation(**where)])).notes)
    assert ("float32 on GPUs: evaluated in ieee, trained in tf32." in notes) is said


def test_a_network_without_noise_has_no_word_on_it() -> None:
    assert "Noise" not in " ".join(accuracy_table(label_records([bundle_evaluation()])).notes)


def test_latency_row() -> None:
    table = latency_table(label_records([profile()]))
    assert table.title == "Latency · bundle bound fp32"
    shown = dict(zip(table.columns, table.rows[0], strict=True))
    assert (shown["p50 ms"], shown["p95 ms"], shown["p99 ms"], shown["max ms"]) == ("0.410", "0.570", "0.660", "1.20")
    assert (shown["std/mean"], shown["images/s"], shown["n"]) == ("12%", "2,326", "1,200")
    assert (shown["backend"], shown["batch"], shown["streams"], shown["threads"]) == ("ort-cpu", "1", "1", "1")
    assert "device p50 ms" not in table.columns


def test_times_on_the_device_stand_beside_the_others() -> None:
    table = latency_table(label_records([profile(runs=(run(1, device_ms=latency(0.5)), run(8)))]))
    assert [row[table.columns.index("device p50 ms")] for row in table.rows] == ["0.205", ""]


def test_doubts_are_told_by_run() -> None:
    doubtful = profile(
        runs=(run(1, marks=("throttled: power limit", "unstable: 12%")), run(8)), incomplete="interrupted"
    )
    content = label_records([doubtful])
    assert [row[-1] for row in mark_table(content).rows] == ["throttled: power limit", "unstable: 12%"]
    assert "incomplete, interrupted" in " ".join(latency_table(content).notes)
    assert mark_table(label_records([profile()])).rows == ()


def test_energy_and_conditions_of_runs() -> None:
    content = label_records([profile(runs=(run(1, conditions={"temperature tj": sampled(after=None)}),))])
    energy = ("energy per inference", "3.50 mJ", "(during - idle) × mean time")
    (table,) = energy_tables(content)
    assert table.rows == (energy,)
    shown = dict(zip(sampled_table(content).columns, sampled_table(content).rows[0], strict=True))
    assert (shown["condition"], shown["before"], shown["mean"], shown["after"]) == (
        "temperature tj, MHz",
        "1,020",
        "1,020",
        "unknown",
    )


def test_layers_with_what_they_achieve() -> None:
    (table,) = layer_tables(label_records([profile()]))
    shown = dict(zip(table.columns, table.rows[0], strict=True))
    assert (shown["layer"], shown["share"], shown["density"], shown["2:4 kernel"]) == (
        "blocks.0.conv1",
        "68.0%",
        "50%",
        "no",
    )
    assert (shown["GFLOP/s"], shown["GB/s"]) == ("34.7", "1.23")
    assert (shown["MMAC"], shown["KiB"]) == ("0.590", "41")
    assert (shown["of attainable"], shown["bound by"]) == ("35%", "arithmetic")
    assert "Attainable: arithmetic in fp32 100 GFLOP/s (measured: NumPy's BLAS)." in table.notes
    assert "Attainable: memory 10 GB/s (measured: a = b + c in NumPy)." in table.notes


def above_the_roof(device: str, bound: str) -> Profile:
    layers = tuple(
        layer.model_copy(update={"attainable_us": 2 * layer.time_us, "bound": bound}) for layer in trace().layers
    )
    return profile(traces=(trace().model_copy(update={"device": device, "layers": layers}),))


@pytest.mark.parametrize(
    ("device", "bound", "why"),
    [
        ("cpu", "arithmetic", "busier while the peak was measured"),
        ("gpu", "arithmetic", "or the published peak"),
        ("cpu", "memory", "came from a cache"),
        ("gpu", "memory", "came from a cache"),
    ],
)
def test_layers_above_the_roof_say_why(device: str, bound: str, why: str) -> None:
    (table,) = layer_tables(label_records([above_the_roof(device, bound)]))
    (note,) = (note for note in table.notes if note.startswith("More than 100 %"))
    assert f"where {bound} is the bound" in note
    assert why in note


def test_layers_that_share_a_kernel_stand_together_and_say_so() -> None:
    stem, head, rest = trace().layers
    shared = head.model_copy(update={"name": "a + b", "precision": None, "bytes": None, "attainable_us": None})
    told = layer_tables(label_records([profile(traces=(trace().model_copy(update={"layers": (shared,)}),))]))[0]
    alone = layer_tables(label_records([profile(traces=(trace().model_copy(update={"layers": (stem, rest)}),))]))[0]
    assert told.rows[0][told.columns.index("of attainable")] == "unknown"
    assert any("share kernels" in note for note in told.notes)
    assert not any("share kernels" in note for note in alone.notes)


@pytest.mark.parametrize(
    ("name", "label"), [("a", "a"), ("a + b + c", "a + b + c"), ("a + b + c + d + e", "a + b + 3 more")]
)
def test_many_layers_of_one_kernel_have_a_short_label(name: str, label: str) -> None:
    assert layer_label(trace().layers[0].model_copy(update={"name": name})) == label


def test_precision_stands_by_each_layer_and_peaks_of_one_source_in_one_note() -> None:
    board = "NVIDIA, data sheet"
    arithmetic = {name: Reading(value=v, unit="GFLOP/s", source=board) for name, v in (("int8", 400), ("fp32", 100))}
    peaks = Peaks(arithmetic=arithmetic, memory=Reading(value=10, unit="GB/s", source=board))
    stem, head, rest = trace().layers
    layers = (stem.model_copy(update={"precision": "int8"}), head, rest)
    mixed = trace().model_copy(update={"peaks": peaks, "layers": layers, "device": "gpu"})
    (table,) = layer_tables(label_records([profile(traces=(mixed,))]))
    assert [row[table.columns.index("dtype")] for row in table.rows] == ["int8", "fp32", ""]
    told = [note for note in table.notes if note.startswith("Attainable")]
    assert told == [
        f"Attainable: arithmetic in int8 400 GFLOP/s, arithmetic in fp32 100 GFLOP/s, memory 10 GB/s ({board})."
    ]
    assert not any("compute in float32" in note for note in table.notes)
    on_cpu = mixed.model_copy(update={"device": "cpu"})
    (table,) = layer_tables(label_records([profile(traces=(on_cpu,))]))
    assert any("compute in float32" in note for note in table.notes)


def test_estimates_are_called_so() -> None:
    (table,) = estimate_tables(label_records([profile()]))
    assert "Estimate" in table.title
    assert table.rows[0][-2] == "≥ 0.120 µs"
    assert "not measured" in table.notes[0]
    assert "NVIDIA, data sheet" in table.notes[1]


def test_the_note_on_conditions_names_no_column_that_a_console_leaves_out() -> None:
    table = sampled_table(label_records([profile()]))
    assert not any(re.search(rf"\b{column}\b", " ".join(table.notes), re.I) for column in ("lowest", "highest", "n"))


@pytest.mark.parametrize(("ms", "text"), [(9.14e-5, "0.0914 µs"), (0.0123, "12.3 µs"), (1.5, "1.50 ms")])
def test_times_have_a_unit_that_fits(ms: float, text: str) -> None:
    assert duration(ms) == text


def test_every_stream_has_its_own_network_and_the_report_says_so() -> None:
    def notes(streams: int) -> str:
        return " ".join(latency_table(label_records([profile(runs=(run(1, streams=streams),))])).notes)

    assert "loads the whole network for itself" in notes(2)
    assert "loads the whole network for itself" not in notes(1)


def test_ratio_is_told_only_where_its_interval_leaves_one_out() -> None:
    content = label_records([comparison()])
    assert comparison_table(content).rows[0][:4] == (
        "quickstart/sparse bound fp32",
        "quickstart/bundle bound fp32",
        "0.800 [0.750, 0.850]",
        "faster",
    )
    ratio = comparison().ratios[0].model_copy(update={"high": 1.01})
    assert comparison_table(label_records([comparison(ratios=(ratio,))])).rows[0][3] == "not told apart"
    apart = comparison(lambdas=(0.0, 0.5))
    assert comparison_table(label_records([apart])).rows[0][3] == "faster, at λ 0.5 against λ 0"


def test_a_comparison_shows_its_conditions_and_what_is_doubtful() -> None:
    mark = "clocks not locked: GPU clock 306 to 1020 MHz during the run"
    tables = {table.title: table for table in record_tables(label_records([comparison(marks=(mark,))]))}
    names = "quickstart/bundle bound fp32 against quickstart/sparse bound fp32"
    doubts, conditions = tables["Doubtful comparisons"], tables[f"Conditions · {names}"]
    assert doubts.rows == ((names, mark),)
    assert conditions.rows == (("CPU", "AMD EPYC", ""),)
    over = tables[f"Conditions over the runs · {names}"]
    assert over.rows[0][:7] == ("ort-cpu", "1", "1", "GPU clock, MHz", "1,020", "1,020", "1,020")


@pytest.mark.parametrize(
    ("attack", "step"),
    [
        (Attack(kind="pgd", epsilon=0.2, steps=5), 0.05),
        (Attack(kind="pgd", epsilon=0.2, steps=5, step=0.01), 0.01),
        (Attack(kind="fgsm-rs", epsilon=0.2), 0.25),
        (Attack(kind="n-fgsm", epsilon=0.2), 0.2),
    ],
)
def test_step_shown_is_the_step_taken(attack: Attack, step: float) -> None:
    torch = pytest.importorskip("torch")
    from floats_edge.attacks import attack as run_attack

    assert effective_step(attack) == pytest.approx(step)
    images, labels = torch.full((1, 1, 1, 1), 0.5), torch.zeros(1, dtype=torch.int64)
    slope = torch.tensor([[1.0, -1.0]])
    taken = [
        run_attack(
            lambda x: x.flatten(1) @ slope,
            images,
            labels,
            torch.Generator().manual_seed(0),
            kind=attack.kind,
            epsilon=attack.epsilon,
            step=given,
            steps=1,
        )
        for given in (attack.step, step)
    ]
    assert torch.equal(*taken)


def test_what_could_not_be_read_is_said_once_by_its_reason() -> None:
    memory = memory_table(label_records([profile()]))
    assert memory.columns == ("quantity", "ort-cpu, batch 1", "ort-cpu, batch 8", "source")
    assert memory.rows[0] == ("process peak", "84.2 MiB", "84.2 MiB", "VmHWM of /proc/self/status")
    assert "GPU increase" not in {row[0] for row in memory.rows}
    no_nvml = Reading(value=None, unit="", source="NVML: NVML Shared Library Not Found")
    runs = tuple(run(batch, energy={"energy per inference": no_nvml}) for batch in (1, 8))
    content = label_records([profile(runs=runs)])
    assert energy_tables(content) == []
    assert "power mode" not in {row[0] for row in condition_table(content).rows}
    assert unread_table(content).rows == (
        ("GPU increase (memory), energy per inference", no_nvml.source),
        ("power mode", "/var/lib/nvpmodel/status: No such file or directory"),
    )


def test_what_one_run_could_read_stays_in_the_table() -> None:
    told, unknown = Reading(value=3.5, unit="mJ", source="NVML"), Reading(value=None, unit="", source="no NVML")
    runs = run(1, energy={"energy per inference": told}), run(8, energy={"energy per inference": unknown})
    content = label_records([profile(runs=runs)])
    (table,) = energy_tables(content)
    assert table.rows == (("energy per inference", "3.50 mJ", "unknown", "NVML; no NVML"),)
    assert "energy per inference" not in str(unread_table(content).rows)


def test_several_profiles_share_a_table_with_a_column_for_the_subject() -> None:
    table = latency_table(label_records([profile(), profile(subject=subject(precision="fp16"))]))
    assert table.columns[0] == "subject"
    assert {row[0] for row in table.rows} == {"bundle bound fp32", "bundle bound fp16"}


def test_every_row_fits_its_columns() -> None:
    for table in record_tables(
        label_records([run_evaluation(), bundle_evaluation(), profile(), comparison(marks=("x: y",))])
    ):
        assert {len(row) for row in table.rows} == {len(table.columns)}
        assert table.figures <= set(table.columns)


def test_control_characters_do_not_pass() -> None:
    hostile = profile(skipped={"trt\x1b[2J": "line\nbreak \u202e bell\a"})
    text = str(record_tables(label_records([hostile])))
    assert not any(character in text for character in "\x1b\a\u202e")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (2, "2"),
        (0.412345, "0.412"),
        (12.345, "12.3"),
        (1234.5, "1,234"),
        (0.00631, "0.00631"),
        (2e-6, "2.00e-06"),
    ],
)
def test_numbers(value: float, text: str) -> None:
    assert number(value) == text


@pytest.mark.parametrize(("size", "text"), [(497, "0.485 KiB"), (315_392, "308 KiB"), (5_000_000, "4.77 MiB")])
def test_bytes(size: int, text: str) -> None:
    assert reading(Reading(value=size, unit="bytes", source="manifest.json")) == (text, "manifest.json")
