"""The result: medians side by side, how many times better ours is, and what was asked for."""
from statistics import median

# What may be measured: how it is written, and whether more of it is better.
KINDS = {"rows/CPU s": ("{:,.0f}", True), "rows/s": ("{:,.0f}", True), "s": ("{:,.3f}", False), "CPU s": ("{:,.2f}", False), "MiB": ("{:,.0f}", False)}

class Table:
    def __init__(self): self.lines, self.missing = {}, []
    def pair(self, line, kind, ours, theirs, goal=None):
        """One more measurement of a line on both sides. Lines are printed in the order in which they came first."""
        mine, others, _ = self.lines.setdefault((line, kind), ([], [], goal))
        mine.append(ours)
        others.append(theirs)
    def markdown(self):
        rows = [["what", "unit", "VitalSQL", "the other", "ratio", "asked for", ""], ["---"] * 2 + ["---:"] * 4 + ["---"]]
        for (line, kind), (ours, theirs, goal) in self.lines.items():
            form, more = KINDS[kind]
            times = median(ours) / median(theirs) if more else median(theirs) / median(ours)
            asked = "" if goal is None else f"{goal:g}"
            rows.append([line, kind, cell(form, ours), cell(form, theirs), f"{times:.3g}", asked, "" if goal is None else "yes" if times >= goal else "**no**"])
        text = markdown(rows) + "\n"
        if self.missing: text += "\nNot measured:\n\n" + "\n".join(f"- {line}" for line in self.missing) + "\n"
        return text

def cell(form, values):
    if len(values) == 1: return form.format(values[0])
    return f"{form.format(median(values))} ({form.format(min(values))} to {form.format(max(values))})"

def markdown(rows): return "\n".join("| " + " | ".join(row) + " |" for row in rows)
