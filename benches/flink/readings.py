#!/usr/bin/env python3
"""readings.py FILE [--rows N] [--patients N] ..: readings of a ward as JSON, a line each; the same options give the same bytes.

One reading a second of every patient, in order of arrival. None comes more than `--disorder-ms` behind the latest event time before it,
but for the share `--late`, which comes up to `--late-ms` later still. Some minutes of a patient are without readings, some with a gap of exactly
30 s and of 31 s, some abnormal, some without any heart rate; single values are null or not there; and now and then there are two
readings of one patient and one time. Times lie on a grid of 10 ms.
"""
import argparse, random

START = 1735689600000  # 2025-01-01T00:00:00Z
WARDS = ["icu-1", "icu-2", "icu-3", "hdu-1", "hdu-2", "med-1", "med-2", "ed-1"]
# What a patient's minute is like, of 100.
STEADY, ABNORMAL, OFF, GAP_30, GAP_31, NO_HEART_RATE = range(6)
KINDS = [STEADY] * 84 + [ABNORMAL] * 3 + [OFF] * 5 + [GAP_30] * 4 + [GAP_31] * 3 + [NO_HEART_RATE]

def options(p):
    p.add_argument("--rows", type=int, default=600_000)
    p.add_argument("--patients", type=int, default=1000)
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--disorder-ms", type=int, default=3000)
    p.add_argument("--late", type=float, default=0, help="share of the readings that come late")
    p.add_argument("--late-ms", type=int, default=400_000, help="how much later they come at most")
    return p

def seconds(o):
    """Each second's readings as (arrival, line)."""
    chance = random.Random(o.seed)
    bits, late = chance.getrandbits, int(o.late * 65536)
    patients = [(n, f"p{n:06}", WARDS[n % len(WARDS)], chance.randrange(100) * 10, chance.randrange(600, 950), chance.randrange(120, 200), chance.randrange(96, 99), chance.randrange(105, 140),
                 chance.randrange(65, 85), chance.randrange(3640, 3720)) for n in range(o.patients)]
    second, kinds = 0, []
    while True:
        within = second % 60
        if not within: kinds = [KINDS[chance.randrange(100)] for _ in patients]
        found = []
        for n, name, ward, phase, hr, rr, ox, sys, dia, temp in patients:
            kind = kinds[n]
            if kind and (kind == OFF or (kind == GAP_30 and 0 < within < 30) or (kind == GAP_31 and 0 < within < 31)): continue
            r = bits(80)
            at = START + second * 1000 + phase
            arrival = at + (r & 0xFFFF) % (o.disorder_ms + 1)
            r >>= 16
            if late and r & 0xFFFF < late: arrival += (r >> 16) % (o.late_ms + 1)
            r >>= 16
            hr += r % 61 - 30; rr += (r >> 6) % 21 - 10; ox += (r >> 12) % 5 - 2; sys += (r >> 16) % 9 - 4; dia += (r >> 20) % 7 - 3; temp += (r >> 24) % 11 - 5
            if kind == ABNORMAL: hr += 350; rr += 100; ox -= 14; sys -= 30; dia -= 15; temp += 180
            mean = (sys + 2 * dia) * 10 // 3
            heart, spo2, pressure, twice = f"{hr // 10}.{hr % 10}", f"{ox}.0", f'"map":{mean // 10}.{mean % 10},', False
            odd = r >> 32 & 0xFF
            if odd < 5:
                if odd in (0, 3): heart = "null"
                if odd in (1, 3): spo2 = "null"
                if odd in (2, 3): pressure = ""
                twice = odd == 4
            if kind == NO_HEART_RATE: heart = "null"
            head, tail = f'{{"patient_id":"{name}","ward":"{ward}","ts":{at},"heart_rate":', f',"resp_rate":{rr // 10}.{rr % 10},"spo2":{spo2},"sbp":{sys}.0,"dbp":{dia}.0,{pressure}"temp_c":{temp // 100}.{temp % 100:02}}}\n'
            found.append((arrival, head + heart + tail))
            if twice: found.append((arrival, f"{head}{hr // 10 + 1}.{hr % 10}{tail}"))
        second += 1
        yield START + second * 1000, found

def write(o, to):
    """So many readings into a text file; tells how many bytes."""
    waiting, left, size = [], o.rows, 0
    for bound, found in seconds(o):
        waiting += found
        # What arrives before the next second cannot be overtaken any more. Sorting is stable: the same bytes everywhere.
        waiting.sort(key=lambda of: of[0])
        ready = next((n for n, of in enumerate(waiting) if of[0] >= bound), len(waiting))
        text = "".join(line for _, line in waiting[:min(ready, left)])
        size += len(text)
        to.write(text)
        left -= min(ready, left)
        del waiting[:ready]
        if not left: return size

if __name__ == "__main__":
    p = options(argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter))
    p.add_argument("file")
    o = p.parse_args()
    with open(o.file, "w") as to: write(o, to)
