"""Indirect calls per I/O: executed instructions (callgrind) that are `call` through a register
or a table (objdump). Calls of libc through the linker's table are not counted: they are bound
once. Exits 1 if a function of the shard makes one per op."""

import re
import sys

code, profile, ios = sys.argv[1], sys.argv[2], int(sys.argv[3])

sites, function = {}, "?"
for line in open(code, errors="replace"):
    if match := re.match(r"[0-9a-f]+ <(.*)>:$", line):
        function = match[1]
    elif match := re.match(r"\s+([0-9a-f]+):\s+call\s+(\S.*)$", line):
        target = match[2]
        bound_by_linker = "[rip+" in target
        direct = re.match(r"[0-9a-f]+ <", target)
        if not direct and not bound_by_linker:
            sites[int(match[1], 16)] = function

executed, address, in_calls = {}, 0, False
for line in open(profile, errors="replace"):
    if line.startswith("calls="):
        in_calls = True
        continue
    match = re.match(r"(\+\d+|-\d+|\*|0x[0-9a-f]+)\s+\S+\s+(\d+)$", line)
    if not match:
        continue
    position = match[1]
    if position.startswith("0x"):
        address = int(position, 16)
    elif position != "*":
        address += int(position)
    if in_calls:
        in_calls = False  # the inclusive cost of the call, not an instruction
        continue
    executed[address] = executed.get(address, 0) + int(match[2])

# Position-independent code: callgrind's addresses are the file's plus the load base.
bases = {}
for address in executed:
    for site in sites:
        if (address - site) % 4096 == 0:
            bases[address - site] = bases.get(address - site, 0) + 1
base = max(bases, key=bases.get) if bases else 0
if base not in (0,) and bases.get(0, 0) >= bases[base]:
    base = 0

guilty = 0
for site, function in sorted(sites.items(), key=lambda item: -executed.get(item[0] + base, 0)):
    per_io = executed.get(site + base, 0) / ios
    if per_io < 0.01:
        break
    print(f"indirect call: {per_io:.2f} per I/O in {function}")
    if "mfio_engine" in function and per_io > 0.5:
        guilty += 1
print(f"{guilty} indirect calls per op in the shard")
sys.exit(1 if guilty else 0)
