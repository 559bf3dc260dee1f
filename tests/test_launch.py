"""The launchers, with stand-ins of gcloud, kubectl and SLURM on PATH that record how they are called."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from commands import ROOT
from forked import LIMIT
from messages import assert_says

LAUNCH = ROOT / "launch"
STAND_INS = Path(__file__).parent / "stand_ins"
FLAGS = [
    "--config=configs/dapt.py",
    '--config.data.train=a b/it\'s "here" $HOME `x` \\ *.txt',
    "--config.data.text=본문",
]


def script(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)


class Pod:
    """A slice of two workers, which are directories; what launch/tpu_pod.sh asked gcloud; what ran on the workers."""

    def __init__(self, here: Path):
        self.here, self.bin = here / "stand-in", here / "bin"
        for name, stands_for in (("gcloud", "gcloud"), ("python3", "python")):
            script(self.bin / name, f"#!{sys.executable} -IS\n" + (STAND_INS / stands_for).read_text())
        for worker in range(2):
            (self.here / f"worker{worker}").mkdir(parents=True)
        self.collected = here / "collected"

    def prepare(self, state: str = "MISSING", statuses: tuple = ((0, 0),), **plan: list[str]) -> None:
        (self.here / "state").write_text(state)
        (self.here / "plan.json").write_text(json.dumps(plan))
        (self.here / "statuses.json").write_text(json.dumps(statuses))

    def start(self, *flags: str, **variables: str) -> subprocess.Popen[str]:
        environment = (
            os.environ
            | {
                "PATH": f"{self.bin}:{os.environ['PATH']}",
                "STAND_IN": str(self.here),
                "TPU": "t",
                "ZONE": "z",
                "PAUSE": "0.1",
                "COLLECT": str(self.collected),
            }
            | variables
        )
        return subprocess.Popen(
            ["bash", "launch/tpu_pod.sh", *flags],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *flags: str, **variables: str) -> tuple[int, str, str]:
        process = self.start(*flags, **variables)
        out, err = process.communicate(timeout=LIMIT)
        return process.returncode, out, err

    def calls(self) -> list[list[str]]:
        path = self.here / "calls.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def steps(self) -> list[str]:
        """What was asked for, in one word per call."""
        words = {
            "kill -0": "running?",
            "pip install": "install",
            "setsid": "start",
            "tail --pid": "follow",
            "tar czf": "pack",
        }
        found = []
        for call in self.calls():
            command = next((argument for argument in call if argument.startswith("--command=")), "")
            name = [*(argument for argument in call if not argument.startswith("-")), ""][3 if "compute" in call else 0]
            asked = [word for part, word in words.items() if part in command]
            found.append(asked[-1] if asked else name)
        return found

    def started(self, worker: int) -> list[list[str]]:
        return [json.loads(line) for line in (self.here / f"started-worker{worker}.jsonl").read_text().splitlines()]


@pytest.fixture
def pod(tmp_path) -> Pod:
    return Pod(tmp_path)


WHOLE = ["scp", "install", "start", "follow"]


@pytest.mark.slow
def test_a_slice_is_created_used_and_deleted(pod):
    """Every worker gets the flags as they were given, with blanks and quotes. Log and results are here at the end."""
    pod.prepare()
    status, out, err = pod.run(
        *FLAGS, "--workdir=gs://bucket/a run", TYPE="v5litepod-16", SPOT="1", CREATE="--network=n --labels=a=b"
    )
    assert status == 0, err
    assert pod.steps() == ["describe", "create", "describe", "running?", *WHOLE, "storage", "describe", "delete"]
    create = next(call for call in pod.calls() if "create" in call)
    assert {
        "t",
        "--zone=z",
        "--accelerator-type=v5litepod-16",
        "--spot",
        "--quiet",
        "--network=n",
        "--labels=a=b",
    } <= set(create)
    assert any(argument.startswith("--version=") for argument in create)
    for call in pod.calls():
        if "ssh" in call or "scp" in call:
            assert {"--worker=all", "--zone=z"} <= set(call)
    for worker in range(2):
        assert pod.started(worker) == [["auto", "-m", "jaxplm.main", *FLAGS, "--workdir=gs://bucket/a run"]]
        assert f"log of worker{worker}, start 1" in out
    assert (pod.collected / "run-1.log").read_text().count("log of worker") == 2
    collected = next(call for call in pod.calls() if "rsync" in call)
    assert collected[-2:] == ["gs://bucket/a run", str(pod.collected)]
    assert (pod.here / "state").read_text() == "MISSING"


@pytest.mark.slow
@pytest.mark.parametrize(("statuses", "expected"), [((0, 3), 3), ((2, 0), 2)])
def test_the_status_of_a_worker_that_fails_is_passed_on(pod, statuses, expected):
    """Its log is kept, the results are collected, and the slice is deleted."""
    pod.prepare(statuses=(statuses,))
    status, _, err = pod.run(*FLAGS, "--workdir=gs://bucket/run", TYPE="v5litepod-16")
    assert status == expected
    assert_says(err, f"status {expected}", str(pod.collected))
    assert pod.steps() == [
        "describe",
        "create",
        "describe",
        "running?",
        *WHOLE,
        "describe",
        "storage",
        "describe",
        "delete",
    ]
    assert "--spot" not in next(call for call in pod.calls() if "create" in call)


@pytest.mark.slow
def test_a_preempted_slice_is_recreated_and_the_run_resumes(pod):
    """It is the same command that resumes. The zone has no capacity at first."""
    pod.prepare(
        statuses=((143, 143), (0, 0)),
        follow=["pre-empted", "ok"],
        create=["ok", 'There is no more capacity in the zone "z"', "ok"],
    )
    status, out, err = pod.run(*FLAGS, "--workdir=gs://bucket/run", TYPE="v5litepod-16", SPOT="1")
    assert status == 0, err
    assert pod.steps() == [
        "describe",
        "create",
        "describe",
        "running?",
        *WHOLE,
        "describe",
        "describe",
        "delete",
        "describe",
        "create",
        "describe",
        "create",
        "describe",
        "running?",
        *WHOLE,
        "storage",
        "describe",
        "delete",
    ]
    assert_says(err, "t is PREEMPTED", "resumes", "no capacity")
    for worker in range(2):
        first, second = pod.started(worker)
        assert first == second
        assert f"log of worker{worker}, start 2" in out


@pytest.mark.slow
def test_a_lost_connection_starts_no_second_run(pod):
    pod.prepare(state="READY", follow=["lost", "lost", "ok"])
    status, out, err = pod.run(*FLAGS, "--workdir=/shared/run")
    assert status == 0, err
    assert [step for step in pod.steps() if step not in ("describe", "scp")] == [
        "running?",
        "install",
        "start",
        *["follow"] * 3,
        "pack",
    ]
    assert len(pod.started(0)) == 1
    assert "log of worker1, start 1" in out
    assert "delete" not in pod.steps()  # no TYPE: the slice is not the script's


@pytest.mark.slow
def test_results_on_a_disk_are_collected_without_checkpoints(pod):
    workdir = pod.here / "on worker 0"
    for name in ("export/config.json", "checkpoints/1/data"):
        (workdir / name).parent.mkdir(parents=True)
        (workdir / name).write_text("x")
    pod.prepare(state="READY")
    status, _, err = pod.run(*FLAGS, "--workdir", str(workdir))
    assert status == 0, err
    assert (pod.collected / "export" / "config.json").exists()
    assert not (pod.collected / "checkpoints").exists()


@pytest.mark.slow
def test_who_ends_the_script_does_not_end_the_run(pod):
    """SIGTERM in the middle of following: the slice stays. The same command then follows the run that is there."""
    pod.prepare(statuses=((0, 0),))
    hold = pod.here / "hold"
    hold.touch()
    process = pod.start(*FLAGS, "--workdir=gs://bucket/run", TYPE="v5litepod-16")
    try:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("log of worker")
        process.terminate()
        _, err = process.communicate(timeout=LIMIT)
    finally:
        process.kill()
    assert process.returncode == 128 + signal.SIGTERM
    assert_says(err, "t stays", "same command")
    assert "delete" not in pod.steps()
    process = pod.start(*FLAGS, "--workdir=gs://bucket/run", TYPE="v5litepod-16", KEEP="1")
    try:
        assert process.stdout is not None
        out = process.stdout.readline()
        hold.unlink()
        more, err = process.communicate(timeout=LIMIT)
    finally:
        hold.unlink(missing_ok=True)
        process.kill()
    assert process.returncode == 0, err
    out += more
    assert pod.steps()[-4:] == ["describe", "running?", "follow", "storage"]
    assert len(pod.started(0)) == 1
    assert "log of worker0, start 1" in out


@pytest.mark.slow
def test_what_gcloud_refuses_ends_the_script_with_its_words(pod):
    pod.prepare(create=["PERMISSION_DENIED: not allowed"])
    status, _, err = pod.run(*FLAGS, "--workdir=gs://bucket/run", TYPE="v5litepod-16")
    assert status == 1
    assert_says(err, "PERMISSION_DENIED")
    assert pod.steps() == ["describe", "create", "describe"]  # nothing to delete
    pod.prepare(describe=["UNAUTHENTICATED: no account"] * 5)
    status, _, err = pod.run(*FLAGS, "--workdir=gs://bucket/run", TYPE="v5litepod-16", PATIENCE="2", KEEP="1")
    assert status == 1
    assert_says(err, "UNAUTHENTICATED", "the state of t cannot be read")


@pytest.mark.parametrize(
    ("flags", "variables", "says"),
    [
        ([], {}, ["usage"]),
        (["--config=dapt"], {}, ["--workdir"]),
        (["--config=dapt", "--workdir=runs/x"], {"SPOT": "1"}, ["SPOT=1", "--workdir=runs/x", "gs://", "/mnt/"]),
        (["--config=dapt", "--workdir=/mnt/x"], {}, ["t in z is MISSING", "TYPE"]),
    ],
)
def test_mistakes_of_the_pod_script_cost_nothing(pod, flags, variables, says):
    pod.prepare()
    status, _, err = pod.run(*flags, **variables)
    assert status == 2
    assert_says(err, *says)
    assert "create" not in pod.steps()


# --- SLURM

# Options of sbatch: name → form of the value, None where there is none.
SBATCH_OPTIONS = {
    "account": ".+", "array": r"[\d,:%-]+", "begin": ".+", "chdir": ".+", "comment": ".+", "constraint": ".+",
    "contiguous": None, "cpus-per-gpu": r"\d+", "cpus-per-task": r"\d+", "deadline": ".+", "dependency": ".+",
    "distribution": ".+", "error": ".+", "exclude": ".+", "exclusive": None, "export": ".+", "gpus": r"(\w+:)?\d+",
    "gpus-per-node": r"(\w+:)?\d+", "gpus-per-task": r"(\w+:)?\d+", "gres": ".+", "hint": ".+", "hold": None,
    "input": ".+", "job-name": r"\S+", "mail-type": ".+", "mail-user": ".+", "mem": r"\d+[KMGT]?",
    "mem-per-cpu": r"\d+[KMGT]?", "mem-per-gpu": r"\d+[KMGT]?", "nice": r"-?\d+", "no-requeue": None,
    "nodelist": ".+", "nodes": r"\d+(-\d+)?", "ntasks": r"\d+", "ntasks-per-node": r"\d+",
    "open-mode": "append|truncate", "output": r"\S+", "overcommit": None, "partition": ".+", "qos": ".+",
    "requeue": None, "reservation": ".+", "signal": r"([RB]+:)?[A-Z0-9]+(@\d+)?", "switches": ".+",
    "time": r"(\d+-)?\d+(:\d+){0,2}", "time-min": ".+", "tmp": r"\d+[KMGT]?", "wait-all-nodes": "[01]",
    "wckey": ".+",
}


def sbatch_options(text: str) -> dict[str, str | None]:
    """Parse the lines as sbatch does: up to the first line that is neither blank nor a comment."""
    options: dict[str, str | None] = {}
    for line in text.splitlines()[1:]:
        if line and not line.startswith("#"):
            break
        if not line.startswith("#SBATCH"):
            continue
        [option] = shlex.split(line.removeprefix("#SBATCH"), comments=True)
        name, equals, value = option.removeprefix("--").partition("=")
        assert option.startswith("--") and name in SBATCH_OPTIONS, line
        form = SBATCH_OPTIONS[name]
        assert bool(equals) == (form is not None) and (form is None or re.fullmatch(form, value)), line
        options[name] = value if equals else None
    return options


def test_the_options_of_the_slurm_script():
    text = (LAUNCH / "slurm.sbatch").read_text()
    options = sbatch_options(text)
    assert len(options) == text.count("\n#SBATCH")  # all are above the first command
    assert options["signal"] == "B:TERM@120"
    assert options["requeue"] is None
    assert options["open-mode"] == "append"  # a requeued job does not lose its log
    assert options["ntasks-per-node"] == options["gpus-per-node"]  # a process per GPU
    with pytest.raises(AssertionError):
        sbatch_options("#!/bin/bash\n#SBATCH --gpu-per-node=8\n")


@pytest.fixture
def slurm(tmp_path):
    """Start the batch script as SLURM does. The stand-in of srun waits for a signal, or ends with a status."""
    calls = tmp_path / "calls"
    record = f'printf "%s" "$(basename "$0")" >>"{calls}"; printf " <%s>" "$@" >>"{calls}"; echo >>"{calls}"\n'
    script(
        tmp_path / "bin" / "srun",
        f"#!/usr/bin/env bash\n{record}"
        'if [[ $SRUN_STATUS ]]; then exit "$SRUN_STATUS"; fi\ntrap "sleep 0.3; exit $AFTER" USR1\n'
        f'echo $$ >"{tmp_path}/pid"\n'
        "for ((i = 0; i < 600; i++)); do sleep 0.1; done\n",
    )
    script(tmp_path / "bin" / "scancel", f'#!/usr/bin/env bash\n{record}kill -USR1 "$(cat "{tmp_path}/pid")"\n')
    script(tmp_path / "bin" / "scontrol", f"#!/usr/bin/env bash\n{record}")

    def start(status: str = "", after: int = 143) -> subprocess.Popen[bytes]:
        environment = os.environ | {
            "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
            "SLURM_JOB_ID": "77",
            "PYTHON": "py",
            "SRUN_STATUS": status,
            "AFTER": str(after),
        }
        return subprocess.Popen(["bash", LAUNCH / "slurm.sbatch", *FLAGS], env=environment)

    return start, lambda: calls.read_text().splitlines(), tmp_path / "pid"


STEP = "srun <--kill-on-bad-exit=1> <py> <-m> <jaxplm.main> " + " ".join(f"<{flag}>" for flag in FLAGS)


@pytest.mark.slow
@pytest.mark.parametrize(("after", "requeued"), [(143, True), (137, True), (0, False)])
def test_slurm_ends_a_job_ahead_of_time(slurm, after, requeued):
    """The processes get SIGTERM through scancel, and the job is requeued. A run that finished in time is not."""
    start, calls, pid = slurm
    job = start(after=after)
    try:
        while not pid.exists():
            time.sleep(0.05)
        job.send_signal(signal.SIGTERM)
        assert job.wait(LIMIT) == after
    finally:
        job.kill()
    assert calls() == [STEP, "scancel <--signal=TERM> <77.0>", *["scontrol <requeue> <77>"] * requeued]


@pytest.mark.slow
@pytest.mark.parametrize("status", [0, 2, 143])
def test_a_slurm_job_that_ends_by_itself_is_not_requeued(slurm, status):
    """143 too: where one process fails, srun ends the others by SIGTERM and reports the highest status."""
    start, calls, _ = slurm
    assert start(status=str(status)).wait(LIMIT) == status
    assert calls() == [STEP]


# --- Kubernetes


@pytest.mark.parametrize("name", ["gke_jobset.yaml", "gke_jobset_gpu.yaml"])
def test_the_jobsets_hang_together(name):
    jobset = yaml.safe_load((LAUNCH / name).read_text())
    assert (jobset["apiVersion"], jobset["kind"]) == ("jobset.x-k8s.io/v1alpha2", "JobSet")
    assert jobset["spec"]["failurePolicy"]["maxRestarts"] > 0  # a lost pod does not end the run
    [host] = jobset["spec"]["replicatedJobs"]
    job = host["template"]["spec"]
    assert job["parallelism"] == job["completions"]  # JAX waits for all
    assert (job["completionMode"], job["backoffLimit"]) == ("Indexed", 0)
    pod = job["template"]["spec"]
    assert pod["restartPolicy"] == "Never"
    assert pod["terminationGracePeriodSeconds"] >= 60  # time to save
    [container] = pod["containers"]
    [(device, count)] = container["resources"]["limits"].items()
    values = {variable["name"]: variable.get("value") for variable in container.get("env", [])}
    if device == "nvidia.com/gpu":
        assert (
            values["JAX_COORDINATOR_ADDRESS"]
            == f"{jobset['metadata']['name']}-{host['name']}-0-0.{jobset['metadata']['name']}:1234"
        )
        assert values["JAX_NUM_PROCESSES"] == str(job["completions"])
        assert "JAX_PROCESS_ID" in values
    else:  # GKE names the hosts
        assert device == "google.com/tpu" and not values
        topology = [int(side) for side in pod["nodeSelector"]["cloud.google.com/gke-tpu-topology"].split("x")]
        assert topology[0] * topology[1] == job["completions"] * count


KUBECTL = """#!/usr/bin/env bash
# In place of kubectl: records its arguments, and answers from files: one line of `ends` and of `pods` per question.
cd "$STAND_IN" || exit
printf '<%s>' "$@" >>calls; echo >>calls
case "$1 $2" in
  "apply "*) cat >applied ;;
  "get jobset") head -n 1 ends; sed -i 1d ends; [[ -z $FAILS ]] ;;
  "get pods") if [[ $* == *exitCode* ]]; then echo "$CODES"; else head -n 1 pods; sed -i 1d pods; fi ;;
  "logs "*) echo "log of ${*: -1}" ;;
esac
"""


@pytest.fixture
def jobset(tmp_path):
    """Run launch/gke_jobset.sh. `ends` and `pods`: the JobSet's state and the first pod, question by question."""
    script(tmp_path / "bin" / "kubectl", KUBECTL)

    def run(ends: list[str], pods: list[str], *flags: str, **variables: str):
        (tmp_path / "ends").write_text("".join(f"{end}\n" for end in ends))
        (tmp_path / "pods").write_text("".join(f"{pod}\n" for pod in pods))
        environment = (
            os.environ
            | {
                "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
                "STAND_IN": str(tmp_path),
                "PAUSE": "0",
                "PYTHON": sys.executable,
                "IMAGE": "registry/jaxplm:1",
                "CODES": "0 0",
                "FAILS": "",
            }
            | variables
        )
        done = subprocess.run(
            ["bash", "launch/gke_jobset.sh", *flags],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            timeout=LIMIT,
            check=False,
        )
        calls = tmp_path / "calls"
        return done, [call[1:-1].split("><") for call in calls.read_text().splitlines()] if calls.exists() else []

    return run, lambda: json.loads((tmp_path / "applied").read_text())


@pytest.mark.slow
def test_a_jobset_is_applied_followed_and_deleted(jobset):
    """A pod that is lost is followed under its new name."""
    run, applied = jobset
    done, calls = run(["", "", "", "Completed"], ["a Pending", "a Running", "b Running", "b Succeeded"], *FLAGS)
    assert done.returncode == 0, done.stderr
    assert [call[:2] for call in calls if call[0] != "get"] == [
        ["apply", "--filename=-"],
        ["logs", "--follow"],
        ["logs", "--follow"],
        ["delete", "jobset"],
    ]
    assert done.stdout == "log of a\nlog of b\n"
    container = applied()["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]["containers"][0]
    assert container["image"] == "registry/jaxplm:1"
    assert [argument.replace("$$", "$") for argument in container["args"]] == FLAGS  # as Kubernetes reads them
    assert "$$HOME" in container["args"][1]


@pytest.mark.slow
def test_the_status_of_a_failed_jobset(jobset):
    run, applied = jobset
    done, calls = run(
        ["Failed"],
        ["a Failed"],
        *FLAGS,
        FILE=str(LAUNCH / "gke_jobset_gpu.yaml"),
        NAME="mine",
        CODES="0 3 143",
        KEEP="1",
    )
    assert done.returncode == 3
    assert_says(done.stderr, "mine is Failed", "status 3")
    assert "delete" not in [call[0] for call in calls]
    container = applied()["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]["containers"][0]
    assert container["env"][0]["value"] == "mine-host-0-0.mine:1234"


@pytest.mark.slow
def test_a_cluster_that_does_not_answer_ends_following(jobset):
    run, _ = jobset
    done, calls = run([], [], *FLAGS, FAILS="1", PATIENCE="3")
    assert done.returncode == 1
    assert_says(done.stderr, "jaxplm cannot be read")
    assert [call[0] for call in calls] == ["apply", "get", "get", "get"]  # it is not deleted
    done, calls = run([], [])
    assert done.returncode == 2
    assert done.stderr.startswith("usage: IMAGE=")


# --- Image


def instructions(text: str) -> list[tuple[str, str]]:
    """The instructions of a Dockerfile: word and arguments."""
    joined = re.sub(r"\\\n", " ", "".join(line for line in text.splitlines(keepends=True) if not line.startswith("#")))
    return [(line.split(maxsplit=1)[0], line.split(maxsplit=1)[1]) for line in joined.splitlines() if line.strip()]


def test_the_image_has_what_the_wheel_is_built_from():
    """Each instruction is one of Docker's, and no file that the wheel needs is left out of the context."""
    lines = instructions((LAUNCH / "Dockerfile").read_text())
    assert {word for word, _ in lines} <= {"ARG", "FROM", "WORKDIR", "COPY", "RUN", "USER", "ENTRYPOINT"}
    assert json.loads(dict(lines)["ENTRYPOINT"]) == ["jaxplm"]
    assert dict(lines)["USER"] == "jaxplm"
    kept = {line[1:] for line in (LAUNCH / "Dockerfile.dockerignore").read_text().splitlines() if line.startswith("!")}
    assert kept == {"LICENSE", "README.md", "pyproject.toml", "configs", "jaxplm"}
    assert all((ROOT / name).exists() for name in kept)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("device", "installed"), [("cpu", "w.whl"), ("cuda", "w.whl[cuda]"), ("tpu", "w.whl[tpu]"), ("gpu", None)]
)
def test_the_image_installs_the_extra_of_its_device(tmp_path, device, installed):
    """The command of the Dockerfile, with a stand-in of pip."""
    [command] = [
        text for word, text in instructions((LAUNCH / "Dockerfile").read_text()) if word == "RUN" and "$DEVICE" in text
    ]
    script(tmp_path / "bin" / "pip", '#!/bin/sh\necho "$@"\n')
    (tmp_path / "wheels").mkdir()
    (tmp_path / "wheels" / "w.whl").touch()
    done = subprocess.run(
        ["sh", "-c", command.replace("/wheels", str(tmp_path / "wheels"))],
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "DEVICE": device},
    )
    assert done.returncode == (0 if installed else 2)
    if installed:
        assert done.stdout == f"install --no-cache-dir {tmp_path}/wheels/{installed}\n"
    else:
        assert_says(done.stderr, "DEVICE=gpu")
