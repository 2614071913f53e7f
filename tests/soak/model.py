"""What must come of the readings, worked out by hand: of each query its results and which rows are late for it.

A partition is a list of (offset, kind, device, seq, ts, hr, spo2) in order of offset. Its watermark is the greatest time of its readings less the delay; a
reading ahead of the clock does not move it, one of days ahead is nobody's. `aside` are rows that a query is known to have put aside though the
partition's own watermark did not ask for it: a partition that was silent had been left behind by the others, or by the clock."""
from ward import BAD, DELAY, FAR, MIN, NORMAL

def stamped(rows):
    """Each row that counts, with the watermark before it."""
    mark = -1 << 62
    for row in rows:
        offset, kind, device, seq, ts, hr, spo2 = row
        if kind == BAD: continue
        yield mark, row
        if kind == NORMAL: mark = max(mark, ts - DELAY)

def last_mark(rows): return max((row[4] - DELAY for row in rows if row[1] == NORMAL), default=-1 << 62)

def windows(partitions, size, slide, aside, keyed=True):
    """Windows of `size` every `slide`: {(device, start): (n, sum of hr, least spo2)}, and what is late for all of its windows."""
    found, late = {}, set()
    for p, rows in enumerate(partitions):
        for before, (offset, kind, device, seq, ts, hr, spo2) in stamped(rows):
            if kind == FAR: late.add((p, offset)); continue
            start, counted = ts // slide * slide, False
            while start + size > ts:
                if start + size > before:
                    counted = True
                    if (p, offset) not in aside:
                        key = (device if keyed else None, start)
                        n, s, low = found.get(key, (0, 0.0, None))
                        found[key] = (n + 1, s + hr, spo2 if low is None else min(low, spo2))
                start -= slide
            if not counted: late.add((p, offset))
    return found, late

def sessions(partitions, gap, aside):
    """{(device, first, end): n} of the closed ones, those that are open, and the late rows."""
    done, still, late = {}, {}, set()
    for p, rows in enumerate(partitions):
        open_ = {}
        def close(upto):
            for device, own in open_.items():
                for s in [s for s in own if s[1] + gap < upto]: done[(device, s[0], s[1] + gap)] = s[2]; own.remove(s)
        for before, (offset, kind, device, seq, ts, hr, spo2) in stamped(rows):
            if kind == FAR: late.add((p, offset)); continue
            own = open_.setdefault(device, [])
            for s in [s for s in own if s[1] + gap < before]: done[(device, s[0], s[1] + gap)] = s[2]; own.remove(s)
            if (p, offset) in aside: continue
            touched = [s for s in own if s[0] - gap <= ts <= s[1] + gap]
            if not touched and ts + gap < before: late.add((p, offset)); continue
            for s in touched: own.remove(s)
            own.append([min([ts] + [s[0] for s in touched]), max([ts] + [s[1] for s in touched]), 1 + sum(s[2] for s in touched)])
        close(last_mark(rows))
        still.update({(device, s[0], s[1] + gap): s[2] for device, own in open_.items() for s in own})
    return done, still, late

def firsts(partitions, aside):
    """{(device, seq): time and partition} of each reading once, and the late rows."""
    found, late = {}, set()
    for p, rows in enumerate(partitions):
        for before, (offset, kind, device, seq, ts, hr, spo2) in stamped(rows):
            if kind == FAR or ts < before: late.add((p, offset))
            elif (p, offset) not in aside: found.setdefault((device, seq), (ts, p))
    return found, late

def alerts(partitions):
    """The changes of each device's alert in order: (state, time). Nothing is said of devices whose clock is fast: theirs are always well."""
    changes, last, active = {}, {}, {}
    for rows in partitions:
        for _, (offset, kind, device, seq, ts, hr, spo2) in stamped(rows):
            if kind != NORMAL or ts <= last.get(device, -1 << 62): continue
            last[device] = ts
            if not active.get(device) and spo2 < 88: active[device] = True; changes.setdefault(device, []).append(("active", ts))
            elif active.get(device) and spo2 >= 90: active[device] = False; changes.setdefault(device, []).append(("resolved", ts))
    return changes

def pairs(vitals, labs, aside_v, aside_l):
    """Readings with the labs of the ten minutes before them: {(device, seq, ts, lab's ts, k): how often}, each with its partition; and the late rows of both."""
    found, late_v, late_l, of = {}, set(), set(), {}
    for p, rows in enumerate(labs):
        for before, (offset, kind, device, _, ts, k, _) in stamped(rows):
            if ts < before: late_l.add((p, offset))
            elif (p, offset) not in aside_l: of.setdefault(device, []).append((ts, k))
    for p, rows in enumerate(vitals):
        for before, (offset, kind, device, seq, ts, hr, spo2) in stamped(rows):
            if kind == FAR or ts < before: late_v.add((p, offset)); continue
            if (p, offset) in aside_v: continue
            for at, k in of.get(device, ()):
                if ts - 10 * MIN <= at <= ts:
                    n, _ = found.get((device, seq, ts, at, k), (0, p))
                    found[(device, seq, ts, at, k)] = (n + 1, p)
    return found, late_v, late_l
