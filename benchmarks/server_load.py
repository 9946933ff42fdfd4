"""The server under load: requests a second and latencies, beside a bare loop of the same work.

`--soak 20000` sends that many requests instead and prints the memory of the server's processes.
"""

import argparse
import contextlib
import http.client
import itertools
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import numpy as np

from benchmarks.table import heading, row
from portraitnet.__main__ import decode, predict
from portraitnet.cli import command, float_range, int_range, make_parser
from portraitnet.effects import EFFECTS
from portraitnet.images import encode_image
from portraitnet.jobs import Task, find_photos
from portraitnet.parallel import become_worker, core_count
from portraitnet.predictor import Predictor
from portraitnet.server.__main__ import MAX_PIXELS
from portraitnet.server.answers import FORMATS, Request, open_answers, parse_parameters

BATCH = 8  # photos of the micro-batches
MODEL = (Predictor, "full", "auto", MAX_PIXELS)  # arguments of `open_answers`


def parse_args(argv=None):
    parser = make_parser(
        "Measure the server under load.", example="python -m benchmarks.server_load photos"
    )
    add = parser.add_argument
    add("photos", type=Path, help="folder of photos that the clients send in turn")
    add("--clients", type=int_range(1), nargs="+", default=[1, 8, 32, 128], help="clients at once")
    add("--seconds", type=float_range(above=0), default=15.0, help="time of each row, seconds")
    add("--mode", choices=EFFECTS, default="cutout", help="effect")
    add("--format", choices=FORMATS, default="png", help="format of the answers")
    add("--soak", type=int_range(1), help="requests in all, by the first number of clients")
    return parser.parse_args(argv)


def bare_loop(photos, args):
    """Photos a second of one process a core that calls the server's function in a loop."""
    context = multiprocessing.get_context("spawn")
    ready, counts, go = context.Queue(), context.Queue(), context.Event()
    processes = [
        context.Process(target=loop, args=(photos, args, ready, go, counts))
        for _ in range(core_count())
    ]
    for process in processes:
        process.start()
    for _ in processes:
        ready.get()
    go.set()
    return sum(counts.get() for _ in processes) / args.seconds


def loop(photos, args, ready, go, counts):
    become_worker()
    answer = open_answers(*MODEL)
    parameters, end, count = (("format", args.format),), 0, 0
    for photo in itertools.cycle(photos):
        if count == len(photos[:3]) and not end:  # it is warm
            ready.put(None)
            go.wait()
            end, count = time.perf_counter() + args.seconds, 0
        if end and time.perf_counter() > end:
            break
        answer(Request(args.mode, photo, "photo", parameters))
        count += 1
    counts.put(count)


def micro_batches(photos, args):
    """Photos a second of one process with batches of BATCH; threads read and write beside it."""
    predictor = Predictor(backend="onnx", threads=core_count())
    arguments, form = parse_parameters(args.mode, (("format", args.format),))
    arguments = argparse.Namespace(**vars(arguments) | {"batch_size": BATCH})

    def read(photo, max_pixels):
        return decode(photo, "photo", max_pixels)

    def write(name, picture):
        if form != "json":
            encode_image(name, picture)

    tasks = (Task(photo, [f"a.{form}"]) for photo in itertools.cycle(photos))
    begin = time.perf_counter()
    done = predict(tasks, predictor, arguments, read, write)
    with contextlib.closing(done):
        for count, outcome in enumerate(done):
            assert outcome.error is None, outcome.error
            if count == BATCH:  # it is warm
                begin = time.perf_counter()
            seconds = time.perf_counter() - begin
            if count > BATCH and seconds > args.seconds:
                break
    return (count - BATCH) / seconds


class Server:
    """The server in processes of its own."""

    def __init__(self, clients):
        flags = ["--port", "0", "--max_waiting", str(2 * clients), "--max_seconds", "120"]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "apps.server", *flags], stdout=subprocess.PIPE, text=True
        )
        self.port = int(re.search(r":(\d+)/docs", self.process.stdout.readline())[1])

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait()

    def memory(self):
        """Resident memory of the server and of all its processes, MB."""
        numbers = [self.process.pid]
        for path in Path("/proc").glob("[0-9]*/stat"):
            try:
                parent = int(path.read_text().rpartition(")")[2].split()[1])
            except OSError:  # it has ended
                continue
            if parent == self.process.pid:
                numbers.append(int(path.parent.name))
        page = os.sysconf("SC_PAGE_SIZE")
        pages = [int(Path(f"/proc/{number}/statm").read_text().split()[1]) for number in numbers]
        return sum(pages) * page / 1e6


def load(server, photos, args, clients, seconds=None, requests=None, progress=None):
    """Latencies of the answers and the time of all in seconds, and Counter of their statuses."""
    address = f"/v1/{args.mode}?format={args.format}"
    start = time.perf_counter()
    end = start + seconds if seconds else None
    numbers, latencies, statuses = itertools.count(), [], Counter()

    def client():
        connection = http.client.HTTPConnection("127.0.0.1", server.port)
        while (number := next(numbers)) < (requests or sys.maxsize):
            began = time.perf_counter()
            if end and began > end:
                return
            connection.request("POST", address, photos[number % len(photos)])
            response = connection.getresponse()
            response.read()
            latencies.append(time.perf_counter() - began)
            statuses[response.status] += 1
            if progress:
                progress(len(latencies))

    threads = [threading.Thread(target=client) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return latencies, time.perf_counter() - start, statuses


def soak(server, photos, args):
    """Print the memory while `args.soak` requests are answered."""
    step = max(1, args.soak // 20)
    print(heading(["requests", "memory of all processes, MB"]))

    def progress(count):
        if count == 200 or count % step == 0:  # 200: every process has seen most shapes
            print(row([f"{count:,}", f"{server.memory():.0f}"]), flush=True)

    latencies, _, statuses = load(
        server, photos, args, args.clients[0], requests=args.soak, progress=progress
    )
    print(f"{len(latencies):,} answers by status: {dict(statuses)}")


@command("benchmarks.server_load")
def main(argv=None):
    args = parse_args(argv)
    photos = [path.read_bytes() for path, _ in find_photos([args.photos])[0]]
    if not photos:
        raise FileNotFoundError(f"No photo in {args.photos}: give a folder of photos.")
    server = Server(max(args.clients))
    try:
        if args.soak:
            soak(server, photos, args)
            return 0
        load(server, photos, args, core_count() * 2, seconds=3)  # warm
        measured = {
            clients: load(server, photos, args, clients, seconds=args.seconds)
            for clients in args.clients
        }
    finally:
        server.stop()
    bare = bare_loop(photos, args)
    rows = [["bare loop, one process a core", f"{bare:.1f}", "1.00", "", "", "", ""]]
    batches = micro_batches(photos, args)
    name = f"one process, batches of {BATCH}"
    rows.append([name, f"{batches:.1f}", f"{batches / bare:.2f}", "", "", "", ""])
    for clients, (latencies, seconds, statuses) in measured.items():
        rate = statuses[200] / seconds
        times = [f"{1000 * each:.0f}" for each in np.percentile(latencies, [50, 95, 99])]
        others = sum(statuses.values()) - statuses[200]
        name = f"server, {clients} clients"
        rows.append([name, f"{rate:.1f}", f"{rate / bare:.2f}", *times, str(others)])
    head = ["what", "photos/s", "of the bare loop", "p50, ms", "p95, ms", "p99, ms", "not 200"]
    print(heading(head), *map(row, rows), sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
