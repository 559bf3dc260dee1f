"""A stage that computes nothing, for tests of what starts stages; that which FAILING_STAGE names fails."""

import os
import sys
from pathlib import Path

from jaxplm.recipes.adapt import state
from jaxplm.recipes.adapt.plan import read_plan

if __name__ == "__main__":
    workdir, name = Path(sys.argv[1]), sys.argv[2]
    plan = read_plan(workdir)
    stage = plan[name]
    place = workdir / stage.place
    place.mkdir(parents=True)
    (place / state.LOG).write_text(f"working\njaxplm: {name} cannot go on\n")
    with (workdir / "order.txt").open("a") as file:
        file.write(name + "\n")
    if name == os.environ.get("FAILING_STAGE"):
        sys.exit(2)
    state.write(place / state.ENDED, {"inputs": state.inputs_of(stage, plan, workdir), "seconds": 1.0})
