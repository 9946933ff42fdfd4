"""Find the person in a folder or bucket of photos with Ray Data, on one machine or a cluster.

pip install . "ray[data]"
python examples/many_photos.py photos/ masks/
ray job submit --working-dir . -- python examples/many_photos.py s3://bucket/photos s3://bucket/masks

The Parquet files have a row for each photo: path, mask (a PNG of 0 and 255), person (fraction of
the pixels), error (a sentence, and then neither mask nor person). The same command again continues.
"""

import argparse
import math
import os
import sys

import cv2
import pyarrow as pa
import ray
from pyarrow import fs, parquet

from portraitnet import Predictor, decode_image, encode_image, mask_of
from portraitnet.images import SUFFIXES

ROWS = 256  # photos in a file: what is lost when everything stops
SCHEMA = pa.schema(
    {"path": pa.string(), "mask": pa.binary(), "person": pa.float32(), "error": pa.string()}
)


class Worker:
    """One network on one core."""

    def __init__(self, filesystem):
        cv2.setNumThreads(1)
        self.filesystem, self.predictor = filesystem, Predictor(backend="onnx", threads=1)

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Rows with the column path -> rows of SCHEMA."""
        return pa.Table.from_pylist([self.row(path.as_py()) for path in batch["path"]], SCHEMA)

    def row(self, path):
        try:
            with self.filesystem.open_input_stream(path) as file:
                image = decode_image(file.read(), path)
            mask = mask_of(self.predictor.probability(image))
        except (OSError, ValueError, MemoryError, cv2.error) as error:  # the others continue
            return {"path": path, "error": str(error)}
        return {"path": path, "mask": encode_image("mask.png", 255 * mask), "person": mask.mean()}


def files(address, suffixes):
    """The file system of a folder or bucket, its path there, and its files with these endings."""
    address = address if "://" in address else os.path.abspath(address)
    filesystem, folder = fs.FileSystem.from_uri(address)
    found = filesystem.get_file_info(fs.FileSelector(folder, allow_not_found=True, recursive=True))
    paths = [each.path for each in found if each.path.lower().endswith(suffixes)]
    return filesystem, folder, sorted(paths)


def rows_written(filesystem, paths):
    """The photos of earlier runs; a file that a kill cut short has none."""
    for path in paths:
        try:
            rows = parquet.read_table(path, columns=["path"], filesystem=filesystem)
            yield from rows["path"].to_pylist()
        except pa.ArrowInvalid:
            print(f"{path} is incomplete: its photos are done again; delete it.", file=sys.stderr)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("photos", help="folder, or address such as s3://bucket/photos")
    parser.add_argument("output", help="folder or address of the Parquet files")
    parser.add_argument("--workers", type=int, help="processes (default: one a core)")
    args = parser.parse_args()
    source, _, photos = files(args.photos, SUFFIXES)
    target, folder, written = files(args.output, (".parquet",))
    done = set(rows_written(target, written))
    todo = [photo for photo in photos if photo not in done]
    print(f"{len(done)} of {len(photos)} photos are done.", flush=True)
    if not todo:
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # Ray would report to its makers
    # `ray job submit` names its cluster; otherwise one is started on this machine.
    ray.init(num_cpus=None if "RAY_ADDRESS" in os.environ else args.workers)
    workers = args.workers or int(ray.cluster_resources()["CPU"])
    blocks = max(4 * workers, math.ceil(len(todo) / ROWS))  # so that all end at about one time
    dataset = ray.data.from_items([{"path": path} for path in todo], override_num_blocks=blocks)
    pool = ray.data.ActorPoolStrategy(size=workers)
    dataset = dataset.map_batches(
        Worker,
        fn_constructor_args=(source,),
        batch_format="pyarrow",
        batch_size=None,
        compute=pool,
        num_cpus=1,
    )
    # Writing takes no core from the workers.
    dataset.write_parquet(folder, filesystem=target, ray_remote_args={"num_cpus": 0})


if __name__ == "__main__":
    main()
