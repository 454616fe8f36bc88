#!/usr/bin/env python3
"""Builds the published hypervisor Axvisor 0.5.8 with this crate as its `axdevice`, boots it in QEMU with its own
guests, and fails unless they print the text in `expected`, the hypervisor does not panic, and its shell starts."""
import argparse
import glob
import json
import os
import re
import selectors
import shutil
import subprocess
import sys
import time
import tomllib

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
WORK = os.path.join(os.path.abspath(os.environ.get('CARGO_TARGET_DIR', f'{ROOT}/target')), 'axvisor')
SOURCE = f'{WORK}/axvisor'

# Seconds that a boot may take.
LIMIT = 240
SHELL = 'Welcome to AxVisor Shell'
# On a loaded machine, two races in Axvisor end some boots before a guest runs. Such a boot is repeated.
BOOT_RACE = r'panicked at (\S*ax-lazyinit-|src/vmm/vcpus\.rs:214)'

ARCHITECTURES = {
    'aarch64': {
        'target': 'aarch64-unknown-none-softfloat',
        'features': 'ept-level-4,ax-std/bus-mmio,ax-std/plat-dyn',
        'flags': ['-Crelocation-model=pic', '-Clink-args=-pie', '-Clink-args=-znostart-stop-gc', '-Clink-args=-Taxplat.x'],
        'environment': {},
        'machine': ['-machine', 'virt,virtualization=on,gic-version=3', '-cpu', 'neoverse-n1'],
        'vms': ['aarch64-passthrough', 'aarch64-emulated'],
        'mailbox': 0x4010_0000,
    },
    'riscv64': {
        'target': 'riscv64gc-unknown-none-elf',
        'features': 'ept-level-4,sstc,ax-std/bus-mmio,ax-std/myplat',
        'flags': ['-Clink-arg=-Tlinker.x', '-Clink-arg=-no-pie', '-Clink-arg=-znostart-stop-gc'],
        'environment': {
            'SMP': '4',
            'AX_PLATFORM': 'riscv64-qemu-virt',
            'AX_CONFIG_PATH': f'{HERE}/axconfig-riscv64.toml',
        },
        'machine': ['-machine', 'virt', '-cpu', 'rv64', '-bios', 'default'],
        'vms': ['riscv64'],
        'mailbox': 0xb000_0000,
    },
}

# The number of accesses in a complete sweep: at each eighth offset a read and a write of each of four widths.
WHOLE = {'GICv2': 0x1_0000, 'GICD': 0x1_0000, 'GICR 0 and 1': 2 * 0x2_0000, 'PLIC': 0x21_0000}

# The faults of the sabotaged crate by number, with the machine and the text that shows each.
EVERYWHERE = ('aarch64', 'riscv64')
SABOTAGES = {
    1: ('a wrong value', EVERYWHERE, r'says "(GICv2 CTLR|PLIC priority)'),
    2: ('writes are lost', EVERYWHERE, r'says "(GICv2 CTLR|PLIC priority)'),
    3: ('an error where no device is', EVERYWHERE, r'get error .*NotFound'),
    4: ('a panic where no device is', EVERYWHERE, r'panicked at .*\n.*emu_device not found'),
    5: ('a wrong value now and then', EVERYWHERE, r'says "(GICD|PLIC): 20000 reads, [1-9]'),
    6: ('an error while another vCPU is in a device', EVERYWHERE, r'get error .*ResourceBusy'),
    7: ('an access in two halves', ('aarch64',), r'says "GICR 0: two vCPUs, 20000 accesses each, [1-9]'),
    8: ('no guard before a device', EVERYWHERE, r'panicked at .*(arm_vgic|riscv_vplic)'),
    9: ('values wider than the access', EVERYWHERE, r'says "(GICv2|PLIC): sweep, [1-9]'),
    10: ('no IVC channel', ('aarch64',), r'says "IVC: published -1'),
    11: ('a write through the thread pointer', EVERYWHERE, r'says "thread pointer: [1-9]|panicked at'),
    12: ('a wrong system register', ('aarch64',), r'says "CNTP_CTL_EL0'),
}


def fail(text):
    sys.exit(f'FAILED: {text}')


def output(*command, **how):
    return subprocess.run(command, check=True, text=True, stdout=subprocess.PIPE, **how).stdout.strip()


def put(path, data):
    """Writes a file only if it differs, because a new time would cause a new build."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    if not os.path.exists(path) or open(path, 'rb').read() != data:
        with open(path, 'wb') as file:
            file.write(data)


def edit(path, pattern, replacement):
    with open(path) as file:
        text, count = re.subn(pattern, replacement, file.read(), flags=re.M | re.S)
    if count != 1:
        fail(f'{path} has {count} places to edit, but should have one')
    with open(path, 'w') as file:
        file.write(text)


def packages(path):
    """The packages of a lock file: their text by name and version."""
    with open(path) as file:
        blocks = re.findall(r'^\[\[package\]\]\n.*?(?=^\[\[|\Z)', file.read(), re.M | re.S)
    return {tuple(tomllib.loads(block)['package'][0][key] for key in ('name', 'version')): block for block in blocks}


def unpack(crate):
    """Makes Axvisor's source, with `float-unmapped` switched on in its dependency, as README describes, and with a lock
    file that also has this crate's dependencies, in the versions of its own lock file."""
    unpacked = os.path.join(os.environ.get('CARGO_HOME', os.path.expanduser('~/.cargo')), 'registry/src/*/axvisor-0.5.8')
    if not glob.glob(unpacked):
        output('cargo', 'info', '--quiet', 'axvisor@0.5.8', cwd=WORK)
    shutil.rmtree(SOURCE, ignore_errors=True)
    shutil.copytree(glob.glob(unpacked)[0], SOURCE)
    # Its folder may be inside this workspace.
    with open(f'{SOURCE}/Cargo.toml', 'a') as file:
        file.write('\n[workspace]\n')
    lock = f'{SOURCE}/Cargo.lock'
    shutil.copy(lock, f'{WORK}/published.lock')
    if crate:
        edit(f'{SOURCE}/Cargo.toml', r'^(\[target\.[^\n]*\.dependencies\.axdevice\])$', r'\1\nfeatures = ["float-unmapped"]')
        edit(lock, r'^\[\[package\]\]\nname = "axdevice"\n.*?(?=^\[\[)', '')
        known = {'axdevice'} | {name for name, _ in packages(lock)}
        with open(lock, 'a') as file:
            for (name, _), block in packages(f'{ROOT}/Cargo.lock').items():
                if name not in known and 'source = ' in block:
                    file.write('\n' + block)


def nightly():
    """The toolchain of Axvisor, which uses features that the compiler of this crate lacks."""
    with open(f'{ROOT}/.ci/nightly-toolchain.sh') as file:
        return re.search(r'^nightly=(\S+)$', file.read(), re.M)[1]


def tool(name):
    sysroot, version = output('rustc', '--print', 'sysroot', cwd=ROOT), output('rustc', '-vV', cwd=ROOT)
    return f"{sysroot}/lib/rustlib/{re.search('host: (.*)', version)[1]}/bin/{name}"


def guest(arch):
    target = ARCHITECTURES[arch]['target']
    output('cargo', 'build', '--locked', '--quiet', '--release', '--target', target, '--target-dir', f'{WORK}/guest', cwd=f'{HERE}/guest')
    with open(f'{WORK}/guest/{target}/release/guest', 'rb') as file:
        put(f'{WORK}/{arch}/guest.bin', file.read())


def build(arch, crate, name):
    """The hypervisor with `crate` as its axdevice, or with the published one, as a flat image."""
    a, start = ARCHITECTURES[arch], time.monotonic()
    guest(arch)
    configs = []
    for vm in a['vms']:
        with open(f'{HERE}/vm/{vm}.toml', 'rb') as file:
            configs.append(f'{WORK}/{arch}/{vm}.toml')
            put(configs[-1], file.read())
    environment = {key: value for key, value in os.environ.items() if not key.startswith(('CARGO_PROFILE_', 'RUSTFLAGS'))} | {
        'RUSTUP_TOOLCHAIN': nightly(),
        # As in Axvisor's .cargo/config.toml.
        'CARGO_PROFILE_RELEASE_LTO': 'true',
        'AX_ARCH': arch,
        'AX_TARGET': a['target'],
        'AX_LOG': 'error',
        'AX_IP': '10.0.2.15',
        'AX_GW': '10.0.2.2',
        'AXVISOR_VM_CONFIGS': ':'.join(configs),
        'CARGO_TARGET_DIR': f'{WORK}/target',
    } | a['environment']
    # From a folder where cargo does not read Axvisor's .cargo/config.toml, which is for another build tool.
    command = ['cargo', 'build', '--quiet', '--manifest-path', f'{SOURCE}/Cargo.toml', '--release', '--bin', 'axvisor',
               '--target', a['target'], '--features', a['features'],
               '--config', f"target.{a['target']}.rustflags={json.dumps(a['flags'])}"]
    if crate:
        command += ['--config', f'patch.crates-io.axdevice.path={json.dumps(crate)}']
    built = subprocess.run(command, cwd=WORK, env=environment, text=True, stderr=subprocess.PIPE)
    if built.returncode:
        fail(f'{arch} does not build:\n{built.stderr}')
    check_lock(crate)
    image = f'{WORK}/{arch}/{name}.bin'
    output(tool('llvm-objcopy'), '--strip-all', '-O', 'binary', f"{WORK}/target/{a['target']}/release/axvisor", image)
    print(f'-- {arch}, {name}: built in {time.monotonic() - start:.0f} s', flush=True)
    return image


def check_lock(crate):
    """Every crate in Axvisor's published lock file keeps its version, except the replaced one, if any."""
    published, now = packages(f'{WORK}/published.lock'), packages(f'{SOURCE}/Cargo.lock')
    names = {name for name, _ in now}
    changed = {name for name, _ in published.keys() - now.keys() if name in names}
    local = any(name == 'axdevice' and 'source = ' not in block for (name, _), block in now.items())
    if changed != ({'axdevice'} if crate else set()) or local != bool(crate):
        fail(f'Axvisor should be built with {crate or "its published dependencies"}, but these have changed: {changed}')


def expected(arch, whole):
    """The lines that the guests should print."""
    with open(f'{HERE}/expected/{arch}.txt') as file:
        text = file.read()
    if whole:
        text = re.sub(r'^(.*): sweep, .*', lambda of: f'{of[1]}: sweep, {WHOLE[of[1]]} accesses', text, flags=re.M)
    return text.splitlines()


def judge(text, should):
    """The fault of the console's text so far, or None."""
    panic = re.search(r'panicked at .*\n.*\n|.*get error .*\n', text)
    if panic:
        return panic[0]
    # A line of the hypervisor may interrupt a line of a guest.
    lines = re.findall(r'^GUEST: (.*)\n', re.sub(r'\[ *\d+\.\d{6} .*\n', '', text), re.M)
    for number, line in enumerate(lines):
        if number == len(should):
            return f'a guest says "{line}" and should have ended'
        if re.sub(r'\d+ ns', '… ns', line) != should[number]:
            return f'a guest says "{line}" and should say "{should[number]}"'
    if SHELL in text and len(lines) < len(should):
        return f'the guests have ended before they say "{should[len(lines)]}"'
    return None


def boot(arch, image, sabotage, whole):
    """The console's text until the shell starts or a fault is found, and the fault, if any."""
    a, should = ARCHITECTURES[arch], expected(arch, whole)
    command = [f'qemu-system-{arch}', *a['machine'], '-accel', 'tcg,thread=multi', '-smp', '4', '-m', '2G', '-display', 'none',
               '-monitor', 'none', '-serial', 'stdio', '-nic', 'none', '-no-reboot', '-kernel', image]
    for offset, word in enumerate([sabotage, whole]):
        command += ['-device', f"loader,addr={a['mailbox'] + 4 * offset:#x},data={int(word):#x},data-len=4"]
    printed, text, why, deadline = b'', '', None, time.monotonic() + LIMIT
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as qemu:
        try:
            selector = selectors.DefaultSelector()
            selector.register(qemu.stdout, selectors.EVENT_READ)
            while not why and SHELL not in text:
                more = os.read(qemu.stdout.fileno(), 65536) if selector.select(deadline - time.monotonic()) else b''
                if not more:
                    why = 'the shell does not come up'
                printed += more
                text = re.sub(r'\x1b\[[0-9;]*m', '', printed.decode(errors='replace')).replace('\r', '')
                why = judge(text, should) or why
        finally:
            qemu.kill()
    put(f'{WORK}/{arch}/console', text.encode())
    return text, why


def boot_past_races(*how):
    for _ in range(4):
        text, why = boot(*how)
        if 'GUEST: ' in text or not re.search(BOOT_RACE, text):
            break
    return text, why


def run(arch, image, load, whole):
    """Boots Axvisor beside busy processes, and fails unless it passes."""
    busy = [subprocess.Popen([sys.executable, '-c', 'while True: pass']) for _ in range(load)]
    start = time.monotonic()
    try:
        text, why = boot_past_races(arch, image, 0, whole)
    finally:
        for process in busy:
            process.kill()
            process.wait()
    if why:
        fail(f'{arch}: {why}\nThe console is in {WORK}/{arch}/console')
    print(f"OK: {arch} in {time.monotonic() - start:.0f} s; {re.search(r'[0-9]+ ns each', text)[0]} for a trapped read", flush=True)


def sabotage(arch, image):
    """Fails unless each planted fault is detected by its check."""
    for number, (what, architectures, verdict) in SABOTAGES.items():
        if arch in architectures:
            _, why = boot_past_races(arch, image, number, False)
            if not re.search(verdict, why or ''):
                fail(f'{arch}, sabotage "{what}": expected "{verdict}", and got "{why}"')
            print(f'-- {arch}, sabotage "{what}": {why.splitlines()[0]}', flush=True)


def main():
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument('architecture', nargs='*', default=list(ARCHITECTURES), help=f"of {', '.join(ARCHITECTURES)}")
    arguments.add_argument('--whole', action='store_true', help='make complete sweeps')
    arguments.add_argument('--load', type=int, default=0, metavar='N', help='boot beside N busy processes')
    what = arguments.add_mutually_exclusive_group()
    what.add_argument('--sabotage', action='store_true', help='show that each check sees what goes wrong')
    what.add_argument('--published', action='store_true', help='build with the published axdevice, and print the console')
    arguments = arguments.parse_args()
    os.makedirs(WORK, exist_ok=True)
    crate, name = ROOT, 'hypervisor'
    if arguments.sabotage:
        crate, name = f'{HERE}/sabotage', 'sabotaged'
    if arguments.published:
        crate, name = None, 'published'
    unpack(crate)
    for arch in arguments.architecture:
        image = build(arch, crate, name)
        if arguments.sabotage:
            sabotage(arch, image)
        elif arguments.published:
            print(*boot_past_races(arch, image, 0, False), sep='\n')
        else:
            run(arch, image, arguments.load, arguments.whole)


if __name__ == '__main__':
    main()
