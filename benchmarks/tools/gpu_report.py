# SPDX-License-Identifier: Apache-2.0
"""The figures of a run on a GPU as one Markdown page: how the rows of the benchmarks are read."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import exp, log
from typing import Any

Row = dict[str, Any]


def geometric_mean(values: Sequence[float]) -> float:
    return exp(sum(map(log, values)) / len(values))


def page(environment: Row, stages: dict[str, Row], rows: Sequence[Row]) -> str:
    """Everything that was measured; parts that have no rows are left out."""
    parts = [f"# {environment['card']}", "Made by `make gpu`; the JSON beside it has every figure."]
    if environment.get("smoke"):
        parts.append("**A smoke run: tiny sizes, one sample. No figure here says anything.**")
    parts.append(_table(("", ""), ((name, value) for name, value in environment.items())))
    parts.append(
        _table(
            ("stage", "result", "seconds"),
            ((name, s["result"], f"{s['seconds']:.0f}") for name, s in stages.items()),
        )
    )
    ceilings = next((r for r in rows if r["group"] == "ceilings"), None)
    if ceilings is not None:
        parts.append(
            f"Seen in this run: {ceilings['product_tflops']:.0f} TFLOP/s in an 8192 x 8192 x 8192 "
            f"bfloat16 product, {ceilings['copy_tbytes']:.2f} TB/s in a copy (read plus written)."
        )
    for group in dict.fromkeys(r["group"] for r in rows if r["group"].startswith("layers")):
        parts += ["## " + group, _layers([r for r in rows if r["group"] == group])]
    networks = [r for r in rows if r["group"] == "both networks"]
    if networks:
        parts += ["## Both networks, inference", _networks(networks, ceilings)]
    streams = [r for r in rows if r["group"] == "stream"]
    if streams:
        parts += ["## Streams, a frame at a time", _streams(streams)]
    for group in ("joint training step", "masked_l1, forward and backward"):
        found = [r for r in rows if r["group"] == group]
        if found:
            parts += ["## " + group.capitalize(), _others(found)]
    return "\n\n".join(parts) + "\n"


def _table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def _best_peer(row: Row) -> tuple[str, float]:
    """Name and milliseconds of the fastest peer."""
    peers = [name.removeprefix("times_") for name in row if name.startswith("times_")]
    best = min(peers, key=lambda name: row[f"{name}_ms"])
    return best, row[f"{best}_ms"]


def _layers(rows: Sequence[Row]) -> str:
    lines, ratios = [], []
    for row in rows:
        peer, theirs = _best_peer(row)
        ours = row["ours_ms"]
        ratios.append(theirs / ours)
        lines.append(
            (
                row["layer"],
                f"{1e3 * ours:.1f}",
                f"{1e3 * theirs:.1f}",
                peer,
                f"{theirs / ours:.2f} x",
                f"{row['goal']:.1f} x" + ("" if theirs / ours >= row["goal"] else ", missed"),
                f"{row['gflop'] / ours:.0f}",
                f"{row['live_gflop'] / ours:.0f}",
                f"{row['mbytes'] / ours:.0f}",
            )
        )
    head = (
        *("layer", "ours, µs", "torch, µs", "torch's best", "faster by", "goal"),
        *("TFLOP/s, nominal", "TFLOP/s, effective", "GB/s"),
    )
    worst = min(range(len(rows)), key=ratios.__getitem__)
    return (
        f"Geometric mean of {len(rows)} layers: {geometric_mean(ratios):.2f} x. Slowest against "
        f"torch: {rows[worst]['layer']}, {ratios[worst]:.2f} x. Effective: only the taps that touch "
        f"data are counted.\n\n{_table(head, lines)}"
    )


def _streams(rows: Sequence[Row]) -> str:
    return _table(
        ("size", "look-ahead", "frames/s", "p99 / median"),
        (
            (
                row["size"],
                row["lookahead"],
                f"{row['frames_per_second']:.0f}",
                f"{row['p99_times_median']:.2f}",
            )
            for row in rows
        ),
    )


def _networks(rows: Sequence[Row], ceilings: Row | None) -> str:
    lines = []
    for row in rows:
        names = [n.removesuffix("_ms") for n in row if n.endswith("_ms") and "_host" not in n]
        for name in names:
            ms = row[f"{name}_ms"]
            share = ""
            if ceilings is not None:
                share = f"{100 * row['gflop'] / ms / ceilings['product_tflops']:.0f} %"
            faster = f"{row[f'times_{name}']:.2f} x" if f"times_{name}" in row else ""
            lines.append((row["clip"], row["peer"], name, f"{ms:.2f}", faster, share))
    head = ("clip", "in turns with", "", "ms", "ours, as a graph, is faster by", "of the peak")
    return _table(head, lines)


def _others(rows: Sequence[Row]) -> str:
    lines = []
    for row in rows:
        names = [n.removesuffix("_ms") for n in row if n.endswith("_ms") and "_host" not in n]
        for name in names:
            mib = row.get(f"{name}_mib")
            faster = f"{row[f'times_{name}']:.2f} x" if f"times_{name}" in row else ""
            memory = "" if mib is None else f"{mib:.0f}"
            lines.append((row["clip"], name, f"{row[f'{name}_ms']:.3f}", faster, memory))
    return _table(("clip", "", "ms", "ours is faster by", "MiB a step needs"), lines)
