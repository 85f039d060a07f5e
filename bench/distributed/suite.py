"""Suite `distributed`: see `EXPLANATION`."""

from __future__ import annotations

import tempfile
from typing import Any

from ..cli import Options
from ..common.tables import environment, seconds, table, write_json
from ..reports.workers import Workers
from .worker import process

EXPLANATION = """\
float32, compiled steps, gloo, one thread a process, all on this machine; every process has its own batch. The least
over blocks that all processes begin together, of the slowest process. alone: the step without the average.
efficiency: rows a second of all processes, by those of as many that exchange nothing: alone / averaged.
The model: gloo's ring passes n bytes in 2 (p - 1) messages of n / p, so t = 2 (p - 1) (latency + n / (p bandwidth)).
Latency and bandwidth are fitted to 2 processes; those of 3 are predicted by it, and measured."""

COUNTS = (1, 2, 3)
MACHINES = (2, 4, 8, 16, 32, 64)
# What a message between machines costs, seconds, and bytes a second: assumed, not measured here.
LINKS = {"1 Gbit/s, 50 us": (50e-6, 117e6), "10 Gbit/s, 20 us": (20e-6, 1.17e9), "100 Gbit/s, 5 us": (5e-6, 11.7e9)}


def run(options: Options) -> bool:
    """Print the tables; write distributed.json. True where gloo is missing."""
    import torch.distributed as dist

    if not dist.is_gloo_available():
        print("distributed: this torch has no gloo backend")
        return True
    machine = environment(1)
    print(", ".join(f"{name} {value}" for name, value in machine.items()))
    print(EXPLANATION, flush=True)
    measured = {p: measure(p, options.quick) for p in COUNTS}
    print("\n" + stepped(measured), flush=True)
    link = fitted(measured[2]["exchange"])
    print(f"\nfitted to 2 processes: latency {seconds(link[0])}, {link[1] / 1e9:.2f} GB/s\n" + checked(measured, link))
    print("\n" + paid(measured[1]["steps"]))
    write_json(
        options.out / "distributed.json",
        {"environment": machine, "processes": measured, "latency": link[0], "bandwidth": link[1]},
    )
    print(f"\nwritten to {options.out}: distributed.json")
    return False


def measure(processes: int, quick: bool) -> dict[str, Any]:
    """What `process` found, of the slowest process."""
    with tempfile.TemporaryDirectory() as folder, Workers(processes) as workers:
        jobs = [(rank, processes, folder, quick) for rank in range(processes)]
        found = workers.map(process, jobs, [0] * processes, f"{processes} processes")
    return {
        "steps": {name: [max(f["steps"][name][i] for f in found) for i in range(3)] for name in found[0]["steps"]},
        "exchange": [[n, max(f["exchange"][i][1] for f in found)] for i, (n, _) in enumerate(found[0]["exchange"])],
    }


def exchange(p: int, n: float, latency: float, bandwidth: float) -> float:
    """Seconds that the model gives to an average of n bytes over p processes."""
    return 2 * (p - 1) * (latency + n / (p * bandwidth))


def fitted(times: list[list[float]]) -> tuple[float, float]:
    """Latency and bandwidth of two processes: the line through the smallest buffer and the largest."""
    (few, short), (many, long) = times[0], times[-1]
    bandwidth = (many - few) / max(long - short, 1e-9)
    return max(short - few / bandwidth, 1e-9) / 2, bandwidth


def stepped(measured: dict[int, dict[str, Any]]) -> str:
    """Steps with and without the average."""
    columns = ["", "parameters", "processes", "alone", "averaged", "the average", "efficiency"]
    rows = []
    for name in measured[1]["steps"]:
        for p in COUNTS:
            alone, averaged, parameters = measured[p]["steps"][name]
            first = [name, f"{parameters:,}"] if p == 1 else ["", ""]
            times = [seconds(t) for t in (alone, averaged, max(averaged - alone, 0))]
            rows.append([*first, p, *times, f"{alone / averaged:.0%}"])
    return table(columns, rows)


def checked(measured: dict[int, dict[str, Any]], link: tuple[float, float]) -> str:
    """The exchange alone: measured beside the model."""
    columns = ["bytes", *(f"{p} {what}" for p in COUNTS[1:] for what in ("measured", "model"))]
    rows = []
    for i, (n, _) in enumerate(measured[2]["exchange"]):
        times = [(measured[p]["exchange"][i][1], exchange(p, n, *link)) for p in COUNTS[1:]]
        rows.append([f"{n:,}", *(seconds(t) for pair in times for t in pair)])
    return table(columns, rows)


def paid(steps: dict[str, list[float]]) -> str:
    """Efficiency by the model where every machine has the batch that one had, whose step was measured."""
    rows = [
        [
            name if i == 0 else "",
            link,
            *(f"{alone / (alone + exchange(p, 4 * parameters, *LINKS[link])):.0%}" for p in MACHINES),
        ]
        for name, (alone, _, parameters) in steps.items()
        for i, link in enumerate(LINKS)
    ]
    return "efficiency by the model, the same batch on every machine:\n" + table(
        ["", "link", *map(str, MACHINES)], rows
    )
