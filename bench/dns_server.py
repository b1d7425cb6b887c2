"""How many questions a second the DNS server answers: one process, one core, 10,000 names.

Starts the server on a loopback address and drives it with dnsperf, first as fast as it goes,
then with one question at a time, for the latency.  Prints one JSON object.

    python bench/dns_server.py [--seconds 3] [--names 10000] [--runs 3]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import re
import resource
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from ipaddress import IPv4Address, IPv4Network
from multiprocessing.synchronize import Event
from pathlib import Path

from seaway.dns.answer import Directory, Member
from seaway.dns.forward import Forwarder
from seaway.dns.server import DnsServer

LOOPBACK = IPv4Address("127.0.0.1")
SUBNET = IPv4Network("10.10.0.0/16")


def directory(names: int) -> Directory:
    """Return one network of *names* containers; the benchmark asks as one of them."""
    made = Directory()
    made.set_subnets([SUBNET])
    for number in range(names):
        address = SUBNET[2 + number]
        member = Member(
            owner=f"box{number}",
            network="backend",
            names=(f"web{number}", f"{number:012x}"),
            v4=(address,),
            asks_from=(LOOPBACK if number == 0 else address,),
        )
        made.put(member.owner, [member])
    return made


def serve(port: int, names: int, ready: Event) -> None:
    """Run the server until this process is told to end."""

    async def run() -> None:
        server = DnsServer(directory(names), Forwarder(list))
        server.listen(LOOPBACK, port)
        asyncio.get_running_loop().call_soon(ready.set)
        await server.run()

    asyncio.run(run())


def free_port() -> int:
    """Return a UDP port nobody uses at the moment."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind((str(LOOPBACK), 0))
        return int(sock.getsockname()[1])


def cpu_seconds(pid: int) -> float:
    """Return the processor time that process *pid* has used (proc(5), stat fields 14 and 15)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def drive(port: int, pid: int, questions: Path, seconds: int) -> dict[str, float]:
    """Run dnsperf once.

    Latencies are in microseconds.  So is the server's processor time for a question, the one
    figure that other work on the machine hardly changes.
    """
    argv = ["dnsperf", "-s", str(LOOPBACK), "-p", str(port), "-d", str(questions)]
    argv += ["-l", str(seconds), "-c", "4", "-q", "32"]
    before = cpu_seconds(pid)
    text = subprocess.run(argv, check=True, capture_output=True, text=True).stdout
    used = cpu_seconds(pid) - before
    found = {
        "queries_per_second": r"Queries per second:\s+([\d.]+)",
        "completed": r"Queries completed:\s+(\d+)",
        "lost": r"Queries lost:\s+(\d+)",
        "mean_us": r"Average Latency \(s\):\s+([\d.]+)",
    }
    row = {key: float(match[1]) for key, form in found.items() if (match := re.search(form, text))}
    row["mean_us"] = round(row["mean_us"] * 1e6)
    row["server_cpu_us"] = round(used * 1e6 / row["completed"], 1)
    return row


def latency(port: int, count: int) -> dict[str, float]:
    """Ask one question after the other from a plain socket; microseconds."""
    times = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.connect((str(LOOPBACK), port))
        sock.settimeout(2)
        for number in range(count):
            name = f"web{number % 1000}".encode()
            question = bytes([len(name)]) + name + b"\7backend\0\0\1\0\1"
            message = number.to_bytes(2, "big") + b"\1\0\0\1\0\0\0\0\0\0" + question
            start = time.perf_counter()
            sock.send(message)
            sock.recv(1232)
            times.append((time.perf_counter() - start) * 1e6)
    cuts = statistics.quantiles(times, n=100)
    return {"p50_us": cuts[49], "p95_us": cuts[94], "p99_us": cuts[98]}


def measure(port: int, pid: int, args: argparse.Namespace) -> dict[str, object]:
    """Return the figures of the server on *port*, process *pid*."""
    result: dict[str, object] = {"one_at_a_time": latency(port, 5000)}
    if shutil.which("dnsperf") is None:
        return result | {"saturated": "dnsperf is not installed"}
    with tempfile.TemporaryDirectory() as folder:
        questions = Path(folder) / "questions"
        questions.write_text("".join(f"web{n}.backend A\n" for n in range(args.names)))
        rows = [drive(port, pid, questions, args.seconds) for _ in range(args.runs)]
    rates = sorted(row["queries_per_second"] for row in rows)
    return result | {"saturated": rows, "median_queries_per_second": statistics.median(rates)}


def main() -> int:
    """Print the figures; fail when the server does not start."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--names", type=int, default=10_000)
    parser.add_argument("--runs", type=int, default=3)
    args = parser.parse_args()
    port, ready = free_port(), multiprocessing.Event()
    server = multiprocessing.Process(target=serve, args=(port, args.names, ready))
    server.start()
    try:
        if not ready.wait(30):
            print("the server did not start", file=sys.stderr)
            return 1
        figures = measure(port, server.pid or 0, args)
    finally:
        server.terminate()
        server.join()
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024
    print(json.dumps(figures | {"names": args.names, "peak_memory_mib": peak}, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
