"""The rows of the tables of results/ that hold costs: times, sizes, memory, and what held of attacks."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

RESULTS = Path(__file__).parents[2] / "results"


def read(page, name):
    text = (RESULTS / page / name).read_text()
    return [json.loads(line) for line in text.splitlines()] if name.endswith("jsonl") else json.loads(text)


def benchmarks():
    found = read("2026-11-23-benchmarks", "benchmarks.json")

    def spread(values):
        return [values["median"], values["min"], values["max"]]

    one = found["teacher_embedding"]
    yield [
        [spread(one["images_per_second"][p]), spread(one[p]["ratio_to_plain"]), [one[p]["cosine_min"]],
         [100 * one["probe_accuracy_second_half"][p]]]
        for p in ("float32", "bfloat16")
    ]
    large, small = found["notebook_protocol_224"], found["notebook_protocol_32"]
    yield [
        *(
            [spread(large["images_per_second"][f"notebook {s}"]), spread(large["images_per_second"][f"ours {s}"]),
             spread(small["images_per_second"][f"ours {s}"])]
            for s in "SML"
        ),
        [[], spread(large["images_per_second"]["our teacher"]), spread(small["images_per_second"]["our teacher"])],
        [[large["nine_trials_seconds_an_image"]["notebook"]], [large["nine_trials_seconds_an_image"]["ours"]],
         [small["nine_trials_seconds_an_image"]["ours"]]],
        [[], [large["ratio"]], [small["ratio"], small["nine_trials_seconds_an_image"]["notebook"]]],
    ]
    step = found["student_step"]["students"]
    yield [
        [spread(step[s]["images_per_second"]["bare"]), spread(step[s]["images_per_second"]["ours"]),
         spread(step[s]["ours_over_bare"]), spread(step[s]["ours_over_pil"])]
        for s in "SML"
    ]
    yield [
        [
            [case[k]] if k in case else []
            for k in ("d", "product_seconds", "spectrum_seconds", "ratio", "spectrum_extra_mib", "audit_seconds",
                      "audit_extra_mib")
        ]
        for case in found["audit_scale"]["cases"]
    ]


def ship():
    yield from models_of_students("without VNNI")
    yield [None] * 3  # of fine-tuning, the files were not kept, as the page says
    rows = []
    for name, found in students("with VNNI").items():
        ratio = {(t["against"], t["name"], t["batch"]): [t["ratio"]] for t in found["timings"]}
        cosine = found["cosine_to_network"]["int8.onnx"]
        of_int8 = [ratio["onnx float32", f"{name}.int8.onnx", batch] for batch in (1, 32)]
        rows.append([ratio["torch", f"{name}.float32.onnx", 1], *of_int8, [cosine["mean"]], [cosine["worst"]]])
    yield rows
    yield from models_of_students("with VNNI")


def students(run):
    return read("2026-11-26-ship", "export_speed.json")[run]["students"]


def models_of_students(run):
    for found in students(run).values():
        of = {(t["name"], t["batch"]): t for t in found["timings"] if t["against"] == "torch"}
        rows = []
        for one in (t for (_, batch), t in of.items() if batch == 1):
            many = of.get((one["name"], 32))
            of_many = [[many["median_ms"]], [many["ratio"]]] if many else [[], []]
            rows.append([[one["median_ms"]], [one["p90_ms"]], [one["ratio"]], *of_many, [one["size_bytes"] / 1000],
                         [one["peak_mib"]]])
        yield rows


def chain():
    for found in read("2026-11-27-chain", "stages.json").values():
        rows = []
        for stage in found[1:]:
            value = stage["values"]
            shares = [[100 * value[key][end] for end in ("value", "low", "high")]
                      for key in ("accuracy_lost", "mapped_recall_at_1_lost", "negative_flips")]
            own = [100 * value["student_recall_at_1"]["value"]] if "student_recall_at_1" in value else []
            rows.append([[100 * value["accuracy"]["value"]], *shares, [value["mean_cosine"]["value"]],
                         [value["worst_cosine"]["value"]], own, [value["size_bytes"]["value"] / 1e6],
                         [value["latency_ms"]["value"]]])
        yield rows


def data_path():
    page = "2026-11-27-data-path"
    found = read(page, "epochs.json")
    times = {name: spread_of(kinds["processor"]) for name, kinds in found["ms an image"].items()}
    yield [[times[name], [times["plain"][0] / times[name][0]]] for name in ("plain", "first", "later", "memory")]
    found = read(page, "photos.json")
    times = {name: spread_of(kinds["processor"]) for name, kinds in found["ms an image"].items()}
    faster = {"plain": 1.0, **found["times as fast"]}
    yield [[times[name], [faster[name]]] for name in ("plain", "whole", "reduced")]
    found = read(page, "processes.json")
    ends, keys = ("median", "min", "max"), ("images_per_second", "processor_ms_an_image")
    of_worlds = [[[found[key][world][end] for end in ends] for key in keys] for world in "12"]
    yield [*of_worlds, [[found["ratio"][end] for end in ends], []]]


def many_images():
    page = "2026-11-27-many-images"
    for name, memory in (("one_process.json", ("main",)), ("with_a_worker.json", ("main", "worker", "together"))):
        columns = ("ms an image", *(f"{process} MiB" for process in memory))
        keys = [f"{command}, {column}" for command in ("embed", "distil") for column in columns]
        yield [[[row[key]] if key in row else [] for key in keys] for row in read(page, name)["rows"]]
    yield [[[row["predicted"]], [row["measured"]], [row["error, %"]]] for row in read(page, "model.json")["rows"]
           if row["count"] >= 10_000]
    plan = read(page, "plan.json")["rows"]
    keys = ("hours with one GPU", "GPU hours of the teacher", "core hours", "GPU hours of a student", "images, TB",
            "embeddings, TB", "student's images, TB")
    yield [[None, None, [row["first full"]], *([row[key]] for key in keys)] for row in plan]


def lightly():
    found = read("2026-11-27-lightly", "against_lightly.json")
    speeds = {side: found[side]["images a processor second"] for side in ("ours", "theirs")}
    yield [[[speeds[side]], [speeds[side] / speeds["theirs"]], [100 * found[side]["probe"]],
            [100 * found[side]["probe of its embeddings"]] if side == "ours" else []] for side in speeds] + [
                [[], [], [100 * found["untrained, probe"]], []]]


def cluster():
    held = {}
    for outcome in read("2026-11-27-cluster", "outcomes.jsonl"):
        held.setdefault(outcome["part"], []).append(not outcome["fault"])
    yield [[[sum(found)], [len(found)]] for found in (*held.values(), [one for found in held.values() for one in found])]
    yield [None] * 4  # what it found


def spread_of(values):
    return [float(np.median(values)), min(values), max(values)]


def audit_speed():
    found = read("2026-11-27-audit-speed", "audit_speed.json")
    yield [[[case["threads"]],
            *([case[side][f"{kind}_seconds"]["median"]] for kind in ("processor", "wall") for side in ("audit", "by hand")),
            [case["ratio_processor"]], [case["ratio_wall"]], [case["audit"]["wall_seconds"]["n"]]] for case in found["cases"]]
    yield [[[case["audit_processor_seconds"]], [case["audit_seconds"]], [case["audit_extra_mib"]]] for case in found["scale"]]
