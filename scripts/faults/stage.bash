# What every case of scripts/faults stands on; sourced, not run.
#
# A case sets its stage, and runs engine/tests/faults against it. Whatever happens, what it has
# made is undone, and one line says how it ended: `PASS name`, `SKIP name: why` (exit 77) or
# `FAIL name: why` (exit 1).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

case_name=$(basename "$0")
scratch=$(mktemp -d "${TMPDIR:-/tmp}/mfio-$case_name-XXXXXX")
undo=("rm -rf '$scratch'")
why=

finish() {
  local code=$? at tries
  trap - EXIT
  # The last first. A device may still be closing when the program has ended.
  for ((at = ${#undo[@]} - 1; at >= 0; at--)); do
    for ((tries = 0; ; tries++)); do
      eval "${undo[at]}" >"$scratch.undo" 2>&1 && break
      if ((tries == 50)); then
        code=1 why="left behind: ${undo[at]}: $(tail -n 1 "$scratch.undo")"
        break
      fi
      sleep 0.1
    done
  done
  rm -f "$scratch.undo"
  case $code in
    0) echo "PASS $case_name" ;;
    77) echo "SKIP $case_name: $why" ;;
    *) echo "FAIL $case_name: ${why:-exit code $code}"; code=1 ;;
  esac
  exit "$code"
}
trap finish EXIT
trap 'why="interrupted"; exit 1' INT TERM HUP

# Said in the last line.
skip() { why=$*; exit 77; }

need_root() { [ "$(id -u)" = 0 ] || skip "needs root"; }

# need TOOL...
need() {
  local tool
  for tool; do command -v "$tool" >/dev/null || skip "needs $tool"; done
}

# loop_device [OPTION...] IMAGE: sets $device.
loop_device() {
  device=$(losetup --find --show "$@" 2>"$scratch/why") || skip "losetup: $(cat "$scratch/why")"
  undo+=("losetup --detach '$device'")
}

# mounted WHAT WHERE [OPTION...]
mounted() {
  local what=$1 where=$2
  shift 2
  mkdir -p "$where"
  mount "$@" "$what" "$where" 2>"$scratch/why" || skip "mount: $(cat "$scratch/why")"
  undo+=("umount '$where'")
}

# program PACKAGE TEST NAME: prints where the program NAME is, which TEST of PACKAGE needs or is.
program() {
  cargo test --quiet --locked -p "$1" --test "$2" --no-run --message-format=json 2>"$scratch/why" \
    | grep -o "\"name\":\"$3\".*\"executable\":\"[^\"]*\"" | sed 's/.*"executable":"//; s/"$//' \
    | grep . || { cat "$scratch/why" >&2; why="$1 does not build"; return 1; }
}

# told COMMAND...: runs it, shows what it says, and keeps why it skipped or failed.
told() {
  local code=0
  timeout --kill-after=5 60 "$@" >"$scratch/said" 2>&1 || code=$?
  sed 's/^/  /' "$scratch/said"
  [ "$code" = 0 ] && return
  why=$(sed -n -E 's/^(skip|fault): //p' "$scratch/said" | tail -n 1)
  [ "$code" != 124 ] || why="still not over after 60 s"
  [ -n "$why" ] || why="exit code $code of $*"
  exit "$code"
}

# faults [VARIABLE=VALUE...]: the program, told which case this is.
faults() { told env MFIO_FAULT="$case_name" "$@" "$faults_program"; }

faults_program=$(program mfio-engine faults faults) || { why="the faults program does not build"; exit 1; }
