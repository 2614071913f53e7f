"""The result: medians side by side, how many times better each is, and what is worse."""
import math, os
from statistics import median

# What may be measured: how it is written, and whether more of it is better.
KINDS = {
    "MB/s": ("{:,.1f}", True), "records/s": ("{:,.0f}", True), "ms": ("{:,.2f}", False), "CPU s/GB": ("{:,.2f}", False), "CPU us/record": ("{:,.1f}", False), "MiB": ("{:,.0f}", False), "s": ("{:,.3f}", False),
    "CPU ms/s": ("{:,.1f}", False),
}

class Table:
    def __init__(self, sides):
        self.sides, self.lines, self.clients, self.missing = sides, {}, {}, []
    def add(self, line, kind, side, value):
        """One more measurement of a line. Lines are printed in the order in which they came first."""
        self.lines.setdefault((line, kind), {}).setdefault(side, []).append(value)
    def client(self, line, side, took):
        """What the client took for it."""
        busiest = took["busiest"] or {"thread": "(over too soon)", "ran": 0, "wanted": 0}
        self.clients.setdefault(line, {}).setdefault(side, []).append(
            (took["client_cpu_s"] / took["gib"], (took["client_cpu_s"] + took["broker_cpu_s"]) / took["wall_s"], busiest["ran"], busiest["wanted"], ceiling(took), took.get("late_p999_ms", 0), busiest["thread"]))
    def failed(self, line, side, why):
        """What could not be measured."""
        self.missing.append(f"- {line}, {side}: {why}")
    def markdown(self):
        ours, *others = self.sides
        head = ["what", "unit", ours]
        for other in others: head += [other, "ratio"]
        rows, worse = [head, ["---"] * 2 + ["---:"] * (len(head) - 2)], []
        for (line, kind), sides in self.lines.items():
            form, more = KINDS[kind]
            row = [line, kind, cell(form, sides.get(ours))]
            for other in others:
                row.append(cell(form, sides.get(other)))
                times = ratio(sides.get(ours), sides.get(other), more)
                row.append("" if times is None else f"**{times:.2f}**" if times < 0.995 else f"{times:.2f}" if times < 10 else "all" if times == math.inf else f"{times:.0f}")
                # Records a second say what MB a second have said.
                if times is not None and times < 0.995 and not (kind == "records/s" and (line, "MB/s") in self.lines): worse.append(f"- {line} ({kind}), against {other}: {times:.2f}")
            rows.append(row)
        text = markdown(rows) + "\n\nWorse than Apache Kafka:\n\n" + ("\n".join(worse) or "- nothing that was measured") + "\n"
        if self.missing: text += "\nNot measured:\n\n" + "\n".join(self.missing) + "\n"
        if self.clients:
            rows = [["what", "side", "client CPU s/GB", "cores busy, client and broker", "the client's busiest thread", "ran", "ran or waited for a core", "the client could do, MB/s", "sent late by, p99.9"], ["---"] * 2 + ["---:"] * 2 + ["---"] + ["---:"] * 4]
            for line, sides in self.clients.items():
                for side, runs in sides.items():
                    middle = [median(column) for column in list(zip(*runs))[:6]]
                    rows.append([line, side, f"{middle[0]:.1f}", f"{middle[1]:.2f}", runs[-1][6], f"{middle[2]:.0%}", f"{middle[3]:.0%}", f"{middle[4]:.0f}" if middle[4] else "", f"{middle[5]:.2f} ms" if middle[5] else ""])
            text += "\nWhat the client took. Where one of its threads ran or waited for a core nearly all the time, the client set the pace and the broker could do more. "
            text += "'Could do' is what it would come to with a broker that costs no time, had it all cores and were that thread never idle:\n\n" + markdown(rows) + "\n"
        return text

def ceiling(took):
    """MB a second that the client would come to with a broker that takes neither time nor CPU: all cores are its own, and its busiest thread never
    waits. 0 where it ran too shortly to say."""
    busiest = took["busiest"]
    if "mb_per_s" not in took or not busiest: return 0
    return took["mb_per_s"] / max(busiest["ran"], busiest["cores"] / os.cpu_count())

def cell(form, values):
    if not values: return ""
    if len(values) == 1: return form.format(values[0])
    return f"{form.format(median(values))} ({form.format(min(values))} to {form.format(max(values))})"

def ratio(ours, theirs, more):
    """How many times better ours is, or None where that cannot be said."""
    if not ours or not theirs: return None
    ours, theirs = median(ours), median(theirs)
    if not more: ours, theirs = theirs, ours
    if not theirs: return math.inf if ours else None
    return ours / theirs

def markdown(rows): return "\n".join("| " + " | ".join(row) + " |" for row in rows)
