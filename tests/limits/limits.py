#!/usr/bin/env python3
"""limits.py BINARY [PART...]: what a node does at its limits, seen from outside. Each part starts its own node in its own folder.

Every part prints what it measured, and checks that what was acknowledged is there. Python's standard library and cc only.
"""
import os, re, resource, select, shutil, signal, socket, statistics, struct, subprocess, sys, tempfile, time, urllib.error, urllib.request

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "hostile"))
from kafka import Client, batch, fetch_body, packed, produce_body, record, string

BINARY, PARTS = sys.argv[1], sys.argv[2:]
ENVIRONMENT = {k: v for k, v in os.environ.items() if not k.startswith("VITALSQL")}
MIB = 1 << 20
FILES = 20_000
passed = failed = 0
nodes = []


def check(name, ok, detail=""):
    global passed, failed
    passed, failed = passed + bool(ok), failed + (not ok)
    print(f"{'ok  ' if ok else 'FAIL'} {name} {detail}".rstrip(), flush=True)
    return ok


def free_port():
    s = socket.socket()
    s.bind(("127.0.0.1", 0))
    port = s.getsockname()[1]
    s.close()
    return port


class Node:
    """A node, and how long it took until its log answered a Kafka client and until it said that it is ready."""

    def __init__(self, folder, settings="", environment=None, patience=60):
        self.kafka, self.http, self.folder = free_port(), free_port(), folder
        self.log = tempfile.NamedTemporaryFile("w+", prefix="vitalsql-limits-", suffix=".log")
        config = os.path.join(os.path.dirname(folder), "vitalsql.toml")
        open(config, "w").write(settings)
        command = [BINARY, "serve", "--data-dir", folder, "--config", config, "--kafka", f"127.0.0.1:{self.kafka}", "--http", f"127.0.0.1:{self.http}"]
        files = min(FILES, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
        few = lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))
        begun = time.perf_counter()
        self.p = subprocess.Popen(command, stderr=self.log, stdin=subprocess.DEVNULL, env={**ENVIRONMENT, **(environment or {})}, cwd=tempfile.gettempdir(), preexec_fn=few)
        nodes.append(self)
        self.ready = None
        while time.perf_counter() - begun < patience and self.p.poll() is None:
            try:
                with Client(self.kafka, timeout=patience) as c:
                    c.send(18, 0, b"")
                    c.answer()
                self.ready = time.perf_counter() - begun
                return
            except (OSError, struct.error):
                time.sleep(0.002)
        sys.exit("the node does not get ready:\n" + self.text()[-3000:])

    def text(self):
        return open(self.log.name, errors="replace").read()

    def get(self, path):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.http}{path}", timeout=20) as answer:
                return answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.read().decode()

    def memory(self, field="VmRSS"):
        return next(int(line.split()[1]) // 1024 for line in open(f"/proc/{self.p.pid}/status") if line.startswith(field))

    def ticks(self):
        stat = open(f"/proc/{self.p.pid}/stat").read().rsplit(")", 1)[1].split()
        return int(stat[11]) + int(stat[12])

    def open_files(self):
        return len(os.listdir(f"/proc/{self.p.pid}/fd"))

    def topic(self, name, partitions=1, *configs):
        more = [x for c in configs for x in ("--config", c)]
        done = subprocess.run([BINARY, "topic", "create", name, "--partitions", str(partitions), *more, "--kafka", f"127.0.0.1:{self.kafka}"], capture_output=True, text=True, env=ENVIRONMENT)
        if done.returncode:
            sys.exit(f"topic create {name}: {done.stderr}")

    def kill(self):
        self.p.kill()
        self.p.wait()

    def stop(self, patience=60):
        if self.p.poll() is None:
            self.p.send_signal(signal.SIGTERM)
        return self.p.wait(timeout=patience)


def idle_ticks(node, seconds=5):
    """Ticks of CPU that a node uses while nobody wants anything; what it had begun may end first."""
    for _ in range(6):
        before = node.ticks()
        time.sleep(seconds)
        used = node.ticks() - before
        if used <= 1:
            break
    return used


def ends(node, topic, partitions):
    """The end of each partition."""
    with Client(node.kafka, timeout=60) as c:
        c.send(2, 1, struct.pack(">i", -1) + struct.pack(">i", 1) + string(topic) + struct.pack(">i", len(partitions)) + b"".join(struct.pack(">iq", p, -1) for p in partitions))
        a = c.answer()
    at, found = 4 + 2 + len(topic) + 4, {}
    for _ in partitions:
        p, error, _, offset = struct.unpack_from(">ihqq", a, at)
        found[p] = offset if error == 0 else -error
        at += 22
    return found


def pump(node, frames, answers, window=64):
    """Sends frames, each with one answer, with so many on the way; hands each answer on."""
    with socket.create_connection(("127.0.0.1", node.kafka), timeout=120) as s:
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        waiting, stream = 0, s.makefile("rb", buffering=1 << 20)
        for frame in frames:
            s.sendall(frame)
            waiting += 1
            if waiting == window:
                answers(stream.read(struct.unpack(">i", stream.read(4))[0])[4:])
                waiting -= 1
        for _ in range(waiting):
            answers(stream.read(struct.unpack(">i", stream.read(4))[0])[4:])


def framed(key, version, body):
    head = struct.pack(">hhi", key, version, 7) + string("limits")
    return struct.pack(">i", len(head) + len(body)) + head + body


def produced(topic):
    """Reads the error and the offset of the one partition of a Produce answer."""
    at = 4 + 2 + len(topic) + 4 + 4
    return lambda a: struct.unpack_from(">hq", a, at)


# --- starts ------------------------------------------------------------------------------------------------------------------
def start(folder):
    times = []
    for n in range(9):
        node = Node(os.path.join(folder, f"empty-{n}"))
        times.append(node.ready * 1000)
        while "[+] serving" not in node.get("/readyz"):
            time.sleep(0.01)
        if node.stop():
            check("it stops well", False, node.text()[-500:])
    check("an empty node is there in under 100 ms", statistics.median(times) < 100, f"median {statistics.median(times):.0f} ms, {min(times):.0f} to {max(times):.0f} ms of 9 starts")


def recovery(folder):
    """A gigabyte goes through the WAL, and the node is killed: large batches, then small ones."""
    for name, value, count, total in (("large", b"x" * 1000, 1000, 1100), ("small", b"x" * 200, 1, 600_000)):
        data = os.path.join(folder, name)
        node = Node(data)
        partitions = 8
        node.topic("t", partitions)
        one = batch([value] * count)
        frames = [framed(0, 8, produce_body("t", one, p)) for p in range(partitions)]
        acked, read, begun = [0] * partitions, produced("t"), time.perf_counter()
        partition_at = 4 + 2 + 1 + 4

        def answer(a):
            error, offset = read(a)
            if error == 0:
                (p,) = struct.unpack_from(">i", a, partition_at)
                acked[p] = max(acked[p], offset + count)

        pump(node, (frames[n % partitions] for n in range(total)), answer, window=16 if count > 1 else 512)
        took = time.perf_counter() - begun
        node.kill()
        wal = sum(os.path.getsize(os.path.join(data, "wal", f)) for f in os.listdir(os.path.join(data, "wal")))
        # The machine may be busy: the same start three times.
        starts = []
        for n in range(3):
            again = data if n == 2 else f"{data}-{n}"
            if n < 2:
                subprocess.run(["cp", "-a", data, again], check=True)
            node = Node(again)
            starts.append((node.ready, node.ticks() / os.sysconf("SC_CLK_TCK")))
            found = ends(node, "t", range(partitions))
            if not all(found[p] >= acked[p] for p in range(partitions)):
                check("all that was acknowledged is there", False, f"{found} of {acked}")
            if n < 2:
                node.kill()
                shutil.rmtree(again)
        replayed = re.search(r'"replayed the WAL","bytes":(\d+)', node.text())
        check(
            f"killed after {len(one) * total // MIB} MiB in {name} batches, it is there in under 1 s, with all that was acknowledged",
            min(starts)[0] < 1 and sum(acked) == total * count,
            f"{', '.join(f'{s * 1000:.0f} ms ({cpu:.1f} s of CPU)' for s, cpu in starts)}; {sum(acked)} records in {took:.1f} s, {wal // MIB} MiB of WAL files, {int(replayed[1]) // MIB if replayed else '?'} MiB replayed, {node.memory()} MB",
        )
        with Client(node.kafka, timeout=60) as c:
            whole = sum(n for n, body in c.batches("t") if body == one[61:])
        check("and byte for byte", whole >= acked[0], f"{whole} of {acked[0]} records of partition 0")
        check("it stops well", node.stop() == 0)
        shutil.rmtree(data)


# --- many --------------------------------------------------------------------------------------------------------------------
def connections(folder):
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit[1] != resource.RLIM_INFINITY and limit[1] < 11_000:
        return print(f"SKIPPED, NOT PROVEN HERE: 10,000 connections; only {limit[1]} files may be open (ulimit -Hn)", flush=True)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(limit[1], FILES) if limit[1] != resource.RLIM_INFINITY else FILES, limit[1]))
    node, held = Node(os.path.join(folder, "data")), []
    node.topic("t")
    empty, begun, hello = node.memory(), time.perf_counter(), framed(18, 0, b"")
    try:
        for _ in range(10_000):
            s = socket.create_connection(("127.0.0.1", node.kafka), timeout=30)
            held.append(s)
            s.sendall(hello)
        answered = 0
        for s in held:
            try:
                answered += len(s.recv(4)) == 4
            except OSError:
                pass
        if not check("10,000 clients are connected and answered", answered == 10_000, f"{time.perf_counter() - begun:.1f} s, {answered} answered, {node.open_files()} of {FILES} files open"):
            return
        for s in held:
            s.settimeout(0)
            try:
                while s.recv(65536):
                    pass
            except BlockingIOError:
                pass
            s.settimeout(30)
        check("they take little memory", node.memory() - empty < 400, f"{empty} MB without them, {node.memory()} MB with them: {(node.memory() - empty) * 1024 / 10_000:.1f} KB each")
        used = idle_ticks(node)
        check("and no CPU while they are silent", used <= 2, f"{used} ticks in 5 s")
        try:
            with Client(node.kafka, timeout=5) as c:
                turned_away = c.is_closed()
        except OSError:
            turned_away = True
        check("the next one is turned away, and the log says by which setting", turned_away and "kafka.max_connections" in node.text())
        one, begun, errors, read = framed(0, 8, produce_body("t", batch([b"x"]))), time.perf_counter(), 0, produced("t")
        for s in held:
            s.sendall(one)
        for s in held:
            length = struct.unpack(">i", s.recv(4, socket.MSG_WAITALL))[0]
            errors += read(s.recv(length, socket.MSG_WAITALL)[4:])[0] != 0
        took = time.perf_counter() - begun
        check("each writes a record", errors == 0 and ends(node_free(node, held), "t", [0])[0] == 10_000, f"{took:.1f} s, {node.memory()} MB")
    finally:
        for s in held:
            s.close()
    until = time.time() + 20
    while node.open_files() > 300 and time.time() < until:
        time.sleep(0.2)
    check("when they leave, what they had is given back", node.open_files() < 300, f"{node.open_files()} files open, {node.memory()} MB")
    check("it stops well", node.stop() == 0)


def node_free(node, held):
    """One of them makes room for us."""
    held.pop().close()
    time.sleep(0.2)
    return node


def many_of(topic, partitions, records):
    """A Produce request with the same batch for many partitions."""
    body = struct.pack(">hhi", -1, -1, 30000) + struct.pack(">i", 1) + string(topic) + struct.pack(">i", len(partitions))
    return body + b"".join(struct.pack(">ii", p, len(records)) + records for p in partitions)


def partitions(folder):
    data, count, one = os.path.join(folder, "data"), 10_000, batch([b"x" * 100])
    node = Node(data)
    empty, begun = node.memory(), time.perf_counter()
    node.topic("t", count)
    made, rounds = time.perf_counter() - begun, 3

    def write(node):
        for first in range(0, count, 1000):
            with Client(node.kafka, timeout=120) as c:
                c.send(0, 3, many_of("t", range(first, first + 1000), one))
                a = c.answer()
            at = 4 + 2 + 1 + 4
            for _ in range(1000):
                p, error = struct.unpack_from(">ih", a, at)
                if error:
                    return f"partition {p}: error {error}"
                at += 4 + 2 + 8 + 8
        return ""

    begun = time.perf_counter()
    why = next((w for w in (write(node) for _ in range(rounds)) if w), "")
    check("10,000 partitions are made and written to", not why, f"made in {made:.1f} s; {rounds} rounds over all in {time.perf_counter() - begun:.1f} s {why}")
    check("files are opened on demand", node.open_files() < 1000, f"{node.open_files()} open")
    used = idle_ticks(node)
    check("no CPU while nothing is written, and little memory", used <= 2 and node.memory() < 300, f"{used} ticks in 5 s, {empty} MB empty, {node.memory()} MB now")
    begun = time.perf_counter()
    check("it stops well", node.stop() == 0, f"{time.perf_counter() - begun:.1f} s")
    node = Node(data)
    closed = node.ready
    everyone = lambda node, least: all(n >= least for first in range(0, count, 2000) for n in ends(node, "t", range(first, first + 2000)).values())
    check("after a stop it is there in under 2 s, with everything", closed < 2 and everyone(node, rounds), f"{closed * 1000:.0f} ms, {node.memory()} MB, {node.open_files()} files open")
    why = write(node)
    node.kill()
    node = Node(data)
    check("after a kill too", not why and node.ready < 3 and everyone(node, rounds + 1), f"{node.ready * 1000:.0f} ms {why}")
    begun = time.perf_counter()
    check("it stops well", node.stop() == 0, f"{time.perf_counter() - begun:.1f} s")


def frames(folder):
    """One frame of 100 MiB on each of many connections, within a small budget."""
    budget = 256
    node = Node(os.path.join(folder, "data"), f"[kafka]\nrequest_memory = {budget * MIB}\n")
    node.topic("small")
    node.topic("large", 1, f"max.message.bytes={100 * MIB}")
    empty, value = node.memory(), os.urandom(1 << 20)
    one = packed(b"".join(record(value, i) for i in range(99)), 99)
    for topic, count, wanted in (("small", 24, 10), ("large", 12, 0)):
        frame, told, begun = framed(0, 8, produce_body(topic, one)), [], time.perf_counter()
        sockets = [socket.create_connection(("127.0.0.1", node.kafka), timeout=120) for _ in range(count)]
        left = {s: memoryview(frame) for s in sockets}
        for s in sockets:
            s.setblocking(False)
        heard = {s: b"" for s in sockets}
        until = time.time() + 180
        while len(told) < count and time.time() < until:
            readable, writable, _ = select.select(sockets, [s for s in sockets if left[s]], [], 5)
            for s in writable:
                left[s] = left[s][s.send(left[s][: 1 << 18]):]
            for s in readable:
                try:
                    heard[s] += s.recv(65536)
                except OSError:
                    heard[s] = b""
                if len(heard[s]) >= 4 and len(heard[s]) - 4 >= struct.unpack(">i", heard[s][:4])[0]:
                    told.append(produced(topic)(heard[s][8:])[0])
                    sockets.remove(s)
                elif not heard[s]:
                    told.append("closed")
                    sockets.remove(s)
        for s in heard:
            s.close()
        most = node.memory("VmHWM")
        check(f"{count} frames of 100 MiB at once, {'each refused' if wanted else 'each written'}", told == [wanted] * count, f"{time.perf_counter() - begun:.1f} s, {sorted(map(str, set(told)))}")
        # The requests' budget, and beside it what the log may hold on its way to the disk, in its cache and behind in the segments.
        cap = empty + budget + (0 if wanted == 10 else 128 + 128 + 256) + 128
        check("and memory stays within what is configured", most < cap, f"{most} MB at most of {cap}, {node.memory()} MB now")
    check("all of it is there", ends(node, "large", [0])[0] == 12 * 99)
    node.kill()
    node = Node(os.path.join(folder, "data"))
    check("after a kill too", ends(node, "large", [0])[0] == 12 * 99, f"there in {node.ready * 1000:.0f} ms")
    check("it stops well", node.stop() == 0)


# --- what the machine does ---------------------------------------------------------------------------------------------------
def shim(folder):
    made = os.path.join(folder, "shim.so")
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", made, os.path.join(os.path.dirname(os.path.abspath(__file__)), "shim.c"), "-ldl"], check=True)
    return made


def write_some(node, topic, count, first=0):
    """Writes records that count up, one a request; answers how many were acknowledged, and the error that ended it."""
    with Client(node.kafka) as c:
        for n in range(first, first + count):
            try:
                error, _, why = c.produce(topic, batch([str(n).encode()]))
            except (OSError, struct.error) as broken:
                return n, -1, str(broken)
            if error:
                return n, error, why
    return first + count, 0, ""


def values(node, topic):
    found = []
    with Client(node.kafka) as c:
        for _, body in c.batches(topic):
            found += [int(n) for n in re.findall(rb"p[\x02-\x10](\d+)\x00", body)]
    return found


def failing_sync(folder):
    data, nosync = os.path.join(folder, "data"), os.path.join(folder, "nosync")
    node = Node(data, environment={"LD_PRELOAD": shim(folder), "NOSYNC": nosync})
    node.topic("t")
    acked, _, _ = write_some(node, "t", 200)
    open(nosync, "w").close()
    more, error, why = write_some(node, "t", 50, acked)
    check("where an fsync fails nothing more is acknowledged", more == acked == 200 and error, f"code {error}: {why}")
    try:
        code = node.p.wait(timeout=30)
    except subprocess.TimeoutExpired:
        code = "still running"
    last = [line for line in node.text().splitlines() if line.strip()][-1]
    check("the node ends, and says which file could not be synced", code == 1 and "sync" in last, f"exit {code}: {last}")
    node = Node(data)
    found = values(node, "t")
    check("the next start has all that was acknowledged, in order", found[:acked] == list(range(acked)) and found == sorted(found), f"{len(found)} of {acked}")
    check("and writes go on", write_some(node, "t", 5, 1000)[1] == 0 and node.stop() == 0)


def read_only(folder):
    """A file system of our own, which the kernel makes read-only as after a fault of the disk."""
    image, mount, loop = os.path.join(folder, "image"), os.path.join(folder, "mount"), None
    os.mkdir(mount)
    try:
        with open(image, "wb") as file:
            file.truncate(900 * MIB)
        subprocess.run(["mkfs.ext4", "-q", "-E", "lazy_itable_init=0", image], check=True, capture_output=True)
        subprocess.run(["mount", "-o", "loop,errors=remount-ro", image, mount], check=True, capture_output=True)
        loop = os.path.basename(subprocess.run(["findmnt", "-no", "SOURCE", mount], check=True, capture_output=True, text=True).stdout.strip())
        trigger = f"/sys/fs/ext4/{loop}/trigger_fs_error"
        if not os.access(trigger, os.W_OK):
            raise OSError("no trigger_fs_error")
    except (OSError, subprocess.CalledProcessError) as why:
        if loop:
            subprocess.run(["umount", "-l", mount])
        return print(f"SKIPPED, NOT PROVEN HERE: the read-only disk: {why}", flush=True)
    try:
        data = os.path.join(mount, "data")
        node = Node(data)
        node.topic("t")
        acked, _, _ = write_some(node, "t", 200)
        open(trigger, "w").write("x")
        more, error, why = write_some(node, "t", 50, acked)
        check("where the disk may suddenly only be read nothing more is acknowledged", more == acked == 200 and error, f"code {error}: {why}")
        time.sleep(1)
        lives = node.p.poll() is None
        if lives:
            found = values(node, "t")
            check("it lives, and what there is is read", found[:acked] == list(range(acked)), f"{len(found)} records")
            ready = node.get("/readyz")
            check("/readyz says so", "read" in ready, ready.replace("\n", " "))
            try:
                code = node.stop(20)
            except subprocess.TimeoutExpired:
                code = "still running"
            check("it stops", code in (0, 1), f"exit {code}")
        else:
            last = [line for line in node.text().splitlines() if line.strip()][-1]
            check("the node ends, and says why", node.p.returncode == 1 and "sync" in last, f"exit {node.p.returncode}: {last}")
        subprocess.run(["umount", mount], check=True)
        subprocess.run(["fsck.ext4", "-fy", image], capture_output=True)
        subprocess.run(["mount", "-o", "loop", image, mount], check=True)
        node = Node(data)
        found = values(node, "t")
        check("mounted again it starts with all that was acknowledged", found[:acked] == list(range(acked)) and found == sorted(found), f"{len(found)} of {acked}")
        check("and writes go on", write_some(node, "t", 5, 1000)[1] == 0 and node.stop() == 0)
    finally:
        end_all()
        subprocess.run(["umount", "-l", mount])


def member(node, group, session_ms):
    """Joins a group alone and is given its generation: (connection, generation, member)."""
    c = Client(node.kafka, timeout=30)
    c.send(11, 0, string(group) + struct.pack(">i", session_ms) + string("") + string("consumer") + struct.pack(">i", 1) + string("range") + struct.pack(">i", 0))
    a = c.answer()
    error, generation = struct.unpack_from(">hi", a)
    at, words = 6, []
    for _ in range(3):
        (n,) = struct.unpack_from(">h", a, at)
        words.append(a[at + 2:at + 2 + n].decode())
        at += 2 + n
    c.send(14, 0, string(group) + struct.pack(">i", generation) + string(words[2]) + struct.pack(">i", 1) + string(words[2]) + struct.pack(">i", 0))
    return c, generation, words[2], error or struct.unpack_from(">h", c.answer())[0]


def heartbeat(c, group, generation, who):
    c.send(12, 0, string(group) + struct.pack(">i", generation) + string(who))
    return struct.unpack_from(">h", c.answer())[0]


def clock(folder):
    wrong = os.path.join(folder, "wrong")

    def set_clock(hours):
        open(wrong + ".new", "w").write(str(hours * 3600))
        os.rename(wrong + ".new", wrong)

    set_clock(0)
    node = Node(os.path.join(folder, "data"), environment={"LD_PRELOAD": shim(folder), "CLOCK": wrong})
    node.topic("hour", 1, "retention.ms=3600000", "segment.ms=1000", "message.timestamp.after.max.ms=9223372036854775807")
    acked, _, _ = write_some(node, "hour", 100)
    lives, generation, who, error = member(node, "g", 6000)
    check("a member joins", error == 0, f"code {error}")
    silent, silent_generation, silent_one, error = member(node, "silent", 6000)
    for hours in (5, -5, 300, 0):
        # Right after a sign of life, and then one only just in time: whoever looks in between looks at the clock that was set. In all
        # longer than a round of retention.
        beats = [heartbeat(lives, "g", generation, who)]
        set_clock(hours)
        for _ in range(3 if hours != -5 else 4):
            time.sleep(5)
            beats.append(heartbeat(lives, "g", generation, who))
        acked, error, why = write_some(node, "hour", 20, acked)
        found = values(node, "hour")
        fine = set(beats) == {0} and not error and found == list(range(acked))
        check(f"the clock set to {hours:+} h: who beats stays in its group, nothing of an hour's retention goes, writes go on", fine, f"beats {beats}, {len(found)} of {acked} records, {error} {why}")
        if hours != 5:
            continue
        code = heartbeat(silent, "silent", silent_generation, silent_one)
        check("who was silent has lost its place", code == 25, f"code {code}")
        silent, silent_generation, silent_one, error = member(node, "back", 6000)
    code = heartbeat(silent, "back", silent_generation, silent_one)
    check("the clock set back: who is silent still loses its place", error == 0 and code == 25, f"code {code}")
    check("the log tells of it", "clock was set" in node.text())
    check("it stops well", node.stop() == 0)


def end_all():
    for node in nodes:
        if node.p.poll() is None:
            node.kill()


def main():
    parts = [start, recovery, connections, partitions, frames, failing_sync, read_only, clock]
    unknown = set(PARTS) - {part.__name__ for part in parts}
    if unknown:
        sys.exit(f"no such part: {', '.join(sorted(unknown))}; there are {', '.join(part.__name__ for part in parts)}")
    for part in parts:
        if PARTS and part.__name__ not in PARTS:
            continue
        folder, begun = tempfile.mkdtemp(prefix="vitalsql-limits-"), time.time()
        try:
            print(f"-- {part.__name__}", flush=True)
            part(folder)
            check("nothing panicked", not any("panicked" in node.text() for node in nodes), f"{time.time() - begun:.0f} s")
        finally:
            end_all()
            nodes.clear()
            shutil.rmtree(folder, ignore_errors=True)


try:
    main()
finally:
    end_all()
    print(f"limits: {passed} passed, {failed} failed")
sys.exit(1 if failed or not passed else 0)
