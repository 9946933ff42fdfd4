"""Find the person in photos: `python predict.py photo.jpg` writes photo_overlay.png beside it.

The command is the library's, portraitnet/__main__.py; here it also runs checkpoints with Paddle.
"""

import sys

try:
    from portraitnet.__main__ import make_command
    from training.checkpoints import open_predictor
except ImportError as error:
    sys.exit(f"predict.py: {error}")

main = make_command("predict.py", open_predictor)

if __name__ == "__main__":
    sys.exit(main())
