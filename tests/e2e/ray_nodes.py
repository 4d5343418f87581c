"""Two machines of a Ray cluster, played by this one: prints its address, lives until standard input ends.

python ray_nodes.py < pipe
"""

import json
import os
import shutil
import sys
import tempfile
from pathlib import Path

OBJECT_STORE_BYTES = 100 * 2**20


def main() -> None:
    folder = Path(tempfile.mkdtemp(prefix="bw", dir="/tmp"))  # short: it begins the names of sockets
    (folder / "ray").mkdir()
    os.environ |= {"RAY_TMPDIR": str(folder), "RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0"}
    from ray.cluster_utils import Cluster

    node = {"num_cpus": 1, "object_store_memory": OBJECT_STORE_BYTES}
    try:
        cluster = Cluster(initialize_head=True, head_node_args={**node, "include_dashboard": False})
        try:
            nodes = [cluster.head_node, cluster.add_node(**node)]
            cluster.wait_for_nodes()
            raylets = [node.all_processes["raylet"][0].process.pid for node in nodes]
            print(json.dumps({"address": cluster.address, "raylets": raylets}), flush=True)
            sys.stdin.read()
        finally:
            cluster.shutdown()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
