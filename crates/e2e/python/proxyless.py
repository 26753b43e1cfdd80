"""gRPC without a proxy, or with one that it knows nothing of: a server that says its name, and a client of such servers.

    proxyless.py server NAME      prints `listening ADDRESS` and serves until it is killed, on PORT if there is one
    proxyless.py client TARGET    for each line `COUNT` on its input makes that many calls, one after the other, and
                                  prints who answered: `{"v1": 92, "v2": 8}`; a call that fails counts as its status

A TARGET of xds:/// needs a bootstrap, the file that `GRPC_XDS_BOOTSTRAP` names. With `PROXYLESS_TUNNELS` in the environment the
client goes through the HTTP proxy that the environment names. Messages are plain bytes.
"""

import collections
import json
import os
import sys
from concurrent import futures

import grpc

METHOD = "/proxyless.Who/Is"
# A server that is not there yet is waited for: what is tried is where calls go, not how fast a channel comes up.
PATIENCE = 20.0


def serve(name):
    answer = grpc.unary_unary_rpc_method_handler(lambda request, context: name.encode())
    service = grpc.method_handlers_generic_handler("proxyless.Who", {"Is": answer})
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=4), handlers=(service,))
    port = server.add_insecure_port(f"127.0.0.1:{os.environ.get('PORT', 0)}")
    server.start()
    print(f"listening 127.0.0.1:{port}", flush=True)
    server.wait_for_termination()


def call(target):
    # A proxy that the environment names is used only where it is the one under test.
    tunnels = int("PROXYLESS_TUNNELS" in os.environ)
    with grpc.insecure_channel(target, options=[("grpc.enable_http_proxy", tunnels)]) as channel:
        who = channel.unary_unary(METHOD)
        for line in sys.stdin:
            answers = collections.Counter()
            for _ in range(int(line)):
                try:
                    answers[who(b"", timeout=PATIENCE, wait_for_ready=True).decode()] += 1
                except grpc.RpcError as error:
                    answers[f"{error.code().name}: {error.details()}"] += 1
            print(json.dumps(answers), flush=True)


if __name__ == "__main__":
    {"server": serve, "client": call}[sys.argv[1]](sys.argv[2])
