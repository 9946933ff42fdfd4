"""Answer over HTTP: `python -m apps.server`.

The server is the library's, portraitnet/server/; here it also runs checkpoints with Paddle.
"""

import functools
import sys

from portraitnet.cli import command
from portraitnet.server import __main__ as server
from training.checkpoints import open_predictor

parse_args = functools.partial(server.parse_args, example="python -m apps.server --port 8000")
main = command("apps.server")(functools.partial(server.serve, open_predictor=open_predictor))

if __name__ == "__main__":
    sys.exit(main())
