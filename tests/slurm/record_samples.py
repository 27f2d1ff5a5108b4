"""Record what a real Slurm prints, for the tests that have none: `python tests/slurm/record_samples.py`.

Starts a cluster, writes one file an answer and `index.json` into tests/data/slurm. The names of the machine and of
the cluster's folder are replaced (`login1`, `/srv/slurm`); all else is as Slurm said it.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from cluster import LONGEST_ROOT, SlurmCluster
from machine import clean_environment, slurm_version, temporary_folder

SAMPLES = Path(__file__).parents[1] / "data/slurm"
SACCT_FIELDS = "JobID,JobName,State,ExitCode,NodeList,Start,End,Comment"

# Asked while jobs 1 to 6 are completed, failed, cancelled, running, pending, and a pending array.
WITH_JOBS = {
    "sbatch": "sbatch --job-name=train-1 --comment=key-1 --output=/dev/null --hold {folder}/job.sh",
    "sbatch_parsable": "sbatch --parsable --output=/dev/null --hold {folder}/job.sh",
    "sbatch_test_only": "sbatch --test-only {folder}/job.sh",
    "sbatch_refused_partition": "sbatch --partition=nope {folder}/job.sh",
    "sbatch_refused_account": "sbatch --account=nope {folder}/job.sh",
    "sbatch_refused_qos": "sbatch --qos=nope {folder}/job.sh",
    "sbatch_refused_nodes": "sbatch --nodes=3 {folder}/job.sh",
    "sbatch_refused_gres": "sbatch --gres=gpu:v100:1 {folder}/job.sh",
    "sbatch_refused_gres_word": "sbatch --gres=gpus:1 {folder}/job.sh",
    "sbatch_refused_time": "sbatch --time=2-0 {folder}/job.sh",
    "sbatch_refused_array": "sbatch --array=4-1 {folder}/job.sh",
    "sbatch_refused_limit": "sbatch --qos=short --time=10 {folder}/job.sh",
    "sbatch_refused_file": "sbatch /no/such/file",
    "sbatch_refused_script": "sbatch /etc/hostname",
    "sbatch_refused_option": "sbatch --no-such-option {folder}/job.sh",
    "sbatch_test_only_refused": "sbatch --test-only --partition=nope {folder}/job.sh",
    "squeue": "squeue",
    "squeue_format": "squeue -h -o %i|%T|%j|%r|%S",
    "squeue_format_header": "squeue --me -o %i|%T|%j|%r|%S",
    "squeue_long_format": "squeue -h -j 4,5 -O JobID:20,Name:30,State:12,Comment:20,Reason",
    "squeue_by_name": "squeue -h --me --name=train-4 -o %i",
    "squeue_ended_job": "squeue -h -j 1 -t all -o %i|%T",
    "squeue_unknown_job": "squeue -h -j 999999",
    "sacct": f"sacct -X -n -P -j 1,2,3,4,5,6 -o {SACCT_FIELDS}",
    "sacct_header": f"sacct -X -P -j 1 -o {SACCT_FIELDS}",
    "sacct_steps": "sacct -P -j 1,2 -o JobID,State,NodeList",
    "sacct_columns": "sacct -X -j 1,2,3,4,5 -o JobID,JobName%20,State,ExitCode",
    "sacct_by_name": "sacct -X -n -P --name=train-2 -o JobID,State",
    "sacct_unknown_job": "sacct -X -n -P -j 999999 -o JobID,State",
    "sacct_unknown_field": "sacct -X -n -P -o JobID,Restarts2",
    "sinfo": "sinfo",
    "sinfo_format": "sinfo -h -o %P|%a|%l|%D|%T|%G|%N",
    "sinfo_nodes": "sinfo -h -N -o %N|%T|%c|%m|%G",
    "scontrol_ping": "scontrol ping",
    "scontrol_show_config": "scontrol show config",
    "scontrol_show_hostnames": "scontrol show hostnames node[1-2,7]",
    "scontrol_show_job": "scontrol show job 4",
    "scontrol_show_job_unknown": "scontrol show job 999999",
    "scontrol_requeue_unknown": "scontrol requeue 999999",
    "scancel_unknown_job": "scancel 999999",
    "version": "sinfo --version",
}
JOBS_FIELDS = "%i|%T|%r|%S|%e|%V|%N|%j"
ATTEMPT_FIELDS = "JobID,State,ExitCode,Start,End,Submit,NodeList,JobName"
_SQUEUE = f"squeue --noheader --states=all '--format={JOBS_FIELDS}' --jobs="
_SACCT = f"sacct --noheader --parsable2 --allocations --duplicates --format={ATTEMPT_FIELDS} --jobs="

# Asked about a job that was requeued, an array of which one task was cancelled, a cancelled, a dependent and a held
# ragged array, and then about the array when all of it was cancelled.
OF_ARRAYS = {"jobs_in_squeue": _SQUEUE + "{all}", "attempts_in_sacct": _SACCT + "{all}"}
OF_A_CANCELLED_ARRAY = {
    "cancelled_array_in_squeue": _SQUEUE + "{array}",
    "cancelled_array_in_sacct": _SACCT + "{array}",
}
ASKING_THE_CONTROLLER = {
    "sbatch": "sbatch {folder}/job.sh",
    "squeue": "squeue -h",
    "sinfo": "sinfo -h",
    "scancel": "scancel 4",
    "srun": "srun -N1 true",
    "scontrol_ping": "scontrol ping",
    "scontrol_requeue": "scontrol requeue 4",
    "scontrol_show_config": "scontrol show config",
    "scontrol_show_job": "scontrol show job 4",
}
CONTROLLER_HALTED = {f"{name}_timed_out": command for name, command in ASKING_THE_CONTROLLER.items()}
CONTROLLER_DOWN = {f"{name}_no_controller": command for name, command in ASKING_THE_CONTROLLER.items()}
ACCOUNTING_DOWN = {"sacct_no_accounting": "sacct -X -n -P -j 1 -o JobID,State"}
ACCOUNTING_OFF = {"sacct_accounting_disabled": "sacct -X -n -P -j 1 -o JobID,State"}


def record_arrays(
    call: Callable[[str], subprocess.CompletedProcess[str]], record: Callable[[tuple[str, str]], None]
) -> None:
    """The samples about arrays and a requeued job; the jobs before them are cancelled."""
    call("scancel --me")
    time.sleep(5)
    common = "sbatch --parsable --output=/dev/null"
    requeued = call(f"{common} --job-name='größe|x.k3f9x2m1qa' {{folder}}/job.sh").stdout.strip()
    array = call(f"{common} --job-name=sweep.s7d2k9p4ax --array=0-9%2 {{folder}}/job.sh").stdout.strip()
    held = call(f"{common} --job-name=held.h2j5n8q1zr --hold {{folder}}/job.sh").stdout.strip()
    dependency = f"--dependency=afterok:{requeued}"
    after = call(f"{common} --job-name=after.a4m6w3e9ub {dependency} {{folder}}/job.sh").stdout.strip()
    tasks = ",".join(str(n) for n in [*range(0, 41, 2), 41, 43, 90])
    ragged = call(f"{common} --job-name=ragged.r1t8y6o3ic --hold --array={tasks} {{folder}}/job.sh").stdout.strip()
    time.sleep(7)
    call(f"scontrol requeue {requeued}")
    call(f"scancel {array}_7 {held}")
    time.sleep(8)
    ids = ",".join([requeued, array, held, after, ragged])
    for name, command in OF_ARRAYS.items():
        record((name, command.replace("{all}", ids)))
    call(f"scancel {array}")
    time.sleep(8)
    for name, command in OF_A_CANCELLED_ARRAY.items():
        record((name, command.replace("{array}", array)))


def main() -> None:
    """Record everything; about a minute and a half."""
    cluster = SlurmCluster(Path(tempfile.mkdtemp(prefix="hpcft-", dir=temporary_folder(LONGEST_ROOT - 20))))
    # Lists of tasks whole, as our own calls ask for them.
    environment = clean_environment() | cluster.env() | {"SLURM_BITSTR_LEN": "0"}
    index: dict[str, dict[str, object]] = {}

    def call(command: str) -> subprocess.CompletedProcess[str]:
        words = shlex.split(command.format(folder=cluster.root))
        return subprocess.run(words, env=environment, capture_output=True, text=True, check=False, cwd="/")

    def record(item: tuple[str, str]) -> None:
        name, command = item
        answer = call(command)
        stream = "stdout" if answer.stdout else "stderr"
        text = (answer.stdout or answer.stderr).replace(str(cluster.root), "/srv/slurm")
        text = re.sub(rf"\b{re.escape(socket.gethostname().split('.')[0])}\b", "login1", text)
        (SAMPLES / f"{name}.txt").write_text(text)
        shown = command.format(folder="/srv/slurm")
        index[name] = {"command": shown, "exit_code": answer.returncode, "stream": stream}

    def record_together(commands: dict[str, str]) -> None:
        with ThreadPoolExecutor() as pool:
            list(pool.map(record, commands.items()))

    cluster.start()
    try:
        (cluster.root / "job.sh").write_text("#!/bin/bash\nexec sleep 300\n")
        call("sbatch -J train-1 --comment=key-1 --output=/dev/null --wrap true")
        call("sbatch -J train-2 --comment=key-2 --output=/dev/null --wrap 'exit 75'")
        call("sbatch -J train-3 --comment=key-3 --output=/dev/null {folder}/job.sh")
        time.sleep(3)
        call("scancel 3")
        cluster.wait_idle()
        call("sbatch -J train-4 --comment=key-4 --output=/dev/null -p gpu -N2 --exclusive {folder}/job.sh")
        time.sleep(1)
        call("sbatch -J train-5 --comment=key-5 --output=/dev/null {folder}/job.sh")
        call("sbatch -J sweep --output=/dev/null --array=0-9%2 {folder}/job.sh")
        time.sleep(
            12
        )  # sacct lags: a running job shows as such after up to 5 s, and reasons come with a scheduler pass
        for item in WITH_JOBS.items():
            record(item)
        record_arrays(call, record)
        controller, accounting = (cluster.pid(daemon) for daemon in ("slurmctld", "slurmdbd"))
        if not controller or not accounting:
            sys.exit("slurmctld or slurmdbd has ended")
        os.kill(controller, signal.SIGSTOP)
        record_together(CONTROLLER_HALTED)
        os.kill(controller, signal.SIGKILL)
        os.kill(accounting, signal.SIGKILL)
        record_together(CONTROLLER_DOWN)
        record_together(ACCOUNTING_DOWN)
        conf = cluster.root / "etc/slurm.conf"
        conf.write_text(re.sub(r"^AccountingStorage.*\n", "", conf.read_text(), flags=re.MULTILINE))
        record_together(ACCOUNTING_OFF)
        cluster.start()  # so that stop can cancel the jobs
    finally:
        cluster.stop()
    described = {"slurm": "{}.{:02d}".format(*slurm_version()), "samples": dict(sorted(index.items()))}
    (SAMPLES / "index.json").write_text(json.dumps(described, indent=1) + "\n")


if __name__ == "__main__":
    main()
