"""What the worker processes of a test are told to do."""

import os
import time


def act(task):
    if task == "raise":
        raise ValueError("told to")
    if task == "hang":
        time.sleep(600)
    if task == "die":
        os._exit(3)
    return {"done": task}
