//! Which windows a time lies in: pure arithmetic on milliseconds.
//!
//! Windows are `[start, start + size)`, one every `slide`, their starts at `offset` modulo `slide`; a
//! tumbling window is one that slides by its size. Cumulating windows grow: within each stretch of `size`, one
//! window for each `step` from the stretch's start. A *pane* is the piece of time that lies in the same
//! windows throughout: its width is the greatest common divisor of size and slide, so a size need not be a
//! multiple of its slide. Always: the modulo is never negative, so times before 1970 and negative offsets
//! are right.

use crate::stream::StreamError;
use crate::time::{Span, Timestamp};

/// The longest window or slide: a hundred years.
const LONGEST_MS: i64 = 100 * 366 * 86_400_000;
/// One row may lie in this many windows, and one window hold this many panes.
const MOST_PANES: i64 = 100_000;
/// Times beyond this are no times: sums with window sizes would leave the range of an `i64`.
const FARTHEST_MS: i64 = 1 << 60;

/// How time is cut into windows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WindowRule {
    size: i64,
    slide: i64,
    offset: i64,
    pane: i64,
    /// Windows of one stretch have the same start, and end one step after the other.
    grows: bool,
}

impl WindowRule {
    /// TUMBLE: windows of `size_ms`, side by side.
    pub fn tumble(size_ms: i64, offset_ms: i64) -> Result<Self, StreamError> {
        Self::hop(size_ms, size_ms, offset_ms)
    }

    /// HOP: a window of `size_ms` every `slide_ms`.
    pub fn hop(slide_ms: i64, size_ms: i64, offset_ms: i64) -> Result<Self, StreamError> {
        let pane = checked(size_ms, "slide", slide_ms)?;
        Ok(Self { size: size_ms, slide: slide_ms, offset: offset_ms.rem_euclid(slide_ms), pane, grows: false })
    }

    /// CUMULATE: in each stretch of `size_ms` a window for every `step_ms`, from the stretch's start to the step's end.
    pub fn cumulate(step_ms: i64, size_ms: i64, offset_ms: i64) -> Result<Self, StreamError> {
        let pane = checked(size_ms, "step", step_ms)?;
        if pane != step_ms {
            return Err(StreamError::Limit(format!(
                "a cumulating window's size of {size_ms} ms is no multiple of its step of {step_ms} ms"
            )));
        }
        Ok(Self { size: size_ms, slide: step_ms, offset: offset_ms.rem_euclid(size_ms), pane, grows: true })
    }

    /// The start of the window that ends at `end`.
    #[must_use]
    pub const fn start_of(&self, end: i64) -> i64 {
        if self.grows { aligned(end - 1, self.size, self.offset) } else { end - self.size }
    }

    /// How long the longest window is, in milliseconds.
    #[must_use]
    pub const fn size_ms(&self) -> i64 {
        self.size
    }

    /// How far apart windows end, in milliseconds.
    #[must_use]
    pub const fn slide_ms(&self) -> i64 {
        self.slide
    }

    /// How wide a pane is, in milliseconds.
    #[must_use]
    pub const fn pane_ms(&self) -> i64 {
        self.pane
    }

    /// Whether `at` can be placed at all: not [`crate::stream::NO_TIME`], nor beyond any calendar.
    #[must_use]
    pub const fn places(&self, at: i64) -> bool {
        -FARTHEST_MS < at && at < FARTHEST_MS
    }

    /// The start of the pane that holds `at`.
    #[must_use]
    pub const fn pane_of(&self, at: i64) -> i64 {
        aligned(at, self.pane, self.offset)
    }

    /// Whether the pane lies in any window: with a slide longer than the size some time lies in none.
    #[must_use]
    pub const fn holds(&self, pane: i64) -> bool {
        self.last_end(pane) > pane
    }

    /// The end of the first window that holds the pane.
    #[must_use]
    pub const fn first_end(&self, pane: i64) -> i64 {
        if self.grows {
            return pane + self.pane;
        }
        // The least aligned start whose window reaches the pane's end.
        aligned(pane + self.pane - self.size + self.slide - 1, self.slide, self.offset) + self.size
    }

    /// The end of the last window that holds the pane.
    #[must_use]
    pub const fn last_end(&self, pane: i64) -> i64 {
        let every = if self.grows { self.size } else { self.slide };
        aligned(pane, every, self.offset) + self.size
    }

    /// The end of the first window that holds the pane and is still open at watermark `mark`; `None` where
    /// all of them are closed. A window `[s, e)` closes when the watermark reaches `e`.
    #[must_use]
    pub const fn first_open_end(&self, pane: i64, mark: i64) -> Option<i64> {
        let first = self.first_end(pane);
        if mark < first {
            return Some(first);
        }
        if mark >= self.last_end(pane) {
            return None;
        }
        if self.grows {
            return Some(aligned(mark, self.slide, self.offset) + self.slide);
        }
        Some(aligned(mark - self.size, self.slide, self.offset) + self.size + self.slide)
    }

    /// The end of the last window that is closed at watermark `mark`: where anything closes next, it is a window that ends behind it. A mark
    /// that is no time stays what it is.
    #[must_use]
    pub const fn last_closed(&self, mark: i64) -> i64 {
        if !self.places(mark) {
            return mark;
        }
        if self.grows { aligned(mark, self.slide, self.offset) } else { aligned(mark - self.size, self.slide, self.offset) + self.size }
    }

    /// The windows that hold `at`, the earliest first.
    pub fn spans(&self, at: i64) -> impl Iterator<Item = Span> + use<> {
        let (rule, slide) = (*self, self.slide);
        let (first, last) = (self.first_end(self.pane_of(at)), self.last_end(self.pane_of(at)));
        let count = if last > at { (last - first) / slide + 1 } else { 0 };
        (0..count).map(move |n| {
            let end = first + n * slide;
            Span { start: Timestamp(rule.start_of(end)), end: Timestamp(end) }
        })
    }
}

/// The width of a pane, where sizes are such as can be.
fn checked(size_ms: i64, other: &str, other_ms: i64) -> Result<i64, StreamError> {
    for (name, ms) in [("size", size_ms), (other, other_ms)] {
        if ms <= 0 || ms > LONGEST_MS {
            return Err(StreamError::Limit(format!("a window's {name} of {ms} ms is not between 1 ms and a hundred years")));
        }
    }
    let pane = gcd(size_ms, other_ms);
    if size_ms / pane > MOST_PANES {
        let why = format!("a window of {size_ms} ms every {other_ms} ms is made of more than {MOST_PANES} pieces of {pane} ms");
        return Err(StreamError::Limit(why));
    }
    Ok(pane)
}

/// The greatest value at or below `at` that is `offset` modulo `step`.
const fn aligned(at: i64, step: i64, offset: i64) -> i64 {
    at - (at - offset).rem_euclid(step)
}

const fn gcd(a: i64, b: i64) -> i64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spans(rule: WindowRule, at: i64) -> Vec<(i64, i64)> {
        rule.spans(at).map(|s| (s.start.0, s.end.0)).collect()
    }

    #[test]
    fn a_tumbling_window_starts_at_the_time_less_its_never_negative_modulo() {
        let at = |size, offset, at| spans(WindowRule::tumble(size, offset).unwrap(), at);
        assert_eq!(at(10, 0, 0), [(0, 10)]);
        assert_eq!(at(10, 0, 9), [(0, 10)]);
        assert_eq!(at(10, 0, 10), [(10, 20)]);
        assert_eq!(at(10, 0, -1), [(-10, 0)]);
        assert_eq!(at(10, 0, -10), [(-10, 0)]);
        assert_eq!(at(10, 0, -11), [(-20, -10)]);
        assert_eq!(at(10, 3, 2), [(-7, 3)]);
        assert_eq!(at(10, 3, 3), [(3, 13)]);
        assert_eq!(at(10, -3, 7), [(7, 17)]);
        assert_eq!(at(10, -3, 6), [(-3, 7)]);
        assert_eq!(at(10, 23, -8), [(-17, -7)]);
        assert_eq!(at(10, -23, -8), [(-13, -3)]);
    }

    #[test]
    fn a_hopping_window_need_not_be_a_multiple_of_its_slide() {
        let at = |slide, size, offset, at| spans(WindowRule::hop(slide, size, offset).unwrap(), at);
        assert_eq!(at(5, 10, 0, 7), [(0, 10), (5, 15)]);
        assert_eq!(at(4, 10, 0, 0), [(-8, 2), (-4, 6), (0, 10)]);
        assert_eq!(at(4, 10, 0, 3), [(-4, 6), (0, 10)]);
        assert_eq!(at(4, 10, 0, -1), [(-8, 2), (-4, 6)]);
        assert_eq!(at(4, 10, 1, 0), [(-7, 3), (-3, 7)]);
        // A slide longer than the size leaves time that lies in no window.
        assert_eq!(at(10, 4, 0, 3), [(0, 4)]);
        assert_eq!(at(10, 4, 0, 4), []);
        assert_eq!(at(10, 4, 0, -7), [(-10, -6)]);
        assert_eq!(at(10, 4, 0, -6), []);
    }

    #[test]
    fn cumulating_windows_grow_from_a_common_start_and_agree_with_their_definition() {
        let at = |step, size, offset, at| spans(WindowRule::cumulate(step, size, offset).unwrap(), at);
        assert_eq!(at(5, 15, 0, 0), [(0, 5), (0, 10), (0, 15)]);
        assert_eq!(at(5, 15, 0, 7), [(0, 10), (0, 15)]);
        assert_eq!(at(5, 15, 2, 1), [(-13, 2)]);
        assert!(WindowRule::cumulate(4, 10, 0).is_err());
        for (step, size) in [(1, 1), (5, 15), (3, 12), (10, 10)] {
            for offset in -12..12 {
                let rule = WindowRule::cumulate(step, size, offset).unwrap();
                for at in -40..40 {
                    let start = (-100..=at).rev().find(|s| (s - offset).rem_euclid(size) == 0).unwrap();
                    let by_definition: Vec<(i64, i64)> =
                        (1..=size / step).map(|n| (start, start + n * step)).filter(|(_, e)| at < *e).collect();
                    assert_eq!(spans(rule, at), by_definition, "cumulate({step}, {size}, {offset}) at {at}");
                    let pane = rule.pane_of(at);
                    for mark in -60..60 {
                        let open = by_definition.iter().map(|(_, e)| *e).find(|e| mark < *e);
                        assert_eq!(rule.first_open_end(pane, mark), open, "cumulate({step}, {size}, {offset}) at {at}, mark {mark}");
                    }
                }
            }
        }
    }

    #[test]
    fn windows_agree_with_their_definition_everywhere() {
        for (slide, size) in [(1, 1), (5, 10), (4, 10), (10, 4), (6, 15), (7, 3), (10, 10)] {
            for offset in -12..12 {
                let rule = WindowRule::hop(slide, size, offset).unwrap();
                for at in -40..40 {
                    let by_definition: Vec<(i64, i64)> = (-100..100)
                        .filter(|s: &i64| (s - offset).rem_euclid(slide) == 0 && *s <= at && at < s + size)
                        .map(|s| (s, s + size))
                        .collect();
                    assert_eq!(spans(rule, at), by_definition, "hop({slide}, {size}, {offset}) at {at}");
                    let pane = rule.pane_of(at);
                    assert!(pane <= at && at < pane + rule.pane_ms());
                    assert_eq!(spans(rule, pane), by_definition, "a pane lies in the same windows throughout");
                    assert_eq!(rule.holds(pane), !by_definition.is_empty());
                    for mark in -60..60 {
                        let open = by_definition.iter().map(|(_, e)| *e).find(|e| mark < *e);
                        if rule.holds(pane) {
                            assert_eq!(rule.first_open_end(pane, mark), open, "hop({slide}, {size}, {offset}) at {at}, mark {mark}");
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn the_last_window_that_is_closed_is_the_last_whose_end_the_mark_has_reached() {
        let hops = [(1, 1), (5, 10), (4, 10), (10, 4), (7, 3)].map(|(slide, size)| (slide, size, false));
        for (slide, size, grows) in hops.into_iter().chain([(5, 15, true), (3, 12, true)]) {
            for offset in -12..12 {
                let rule = if grows { WindowRule::cumulate(slide, size, offset) } else { WindowRule::hop(slide, size, offset) }.unwrap();
                let ends: Vec<i64> = (-120..80).flat_map(|at| spans(rule, at)).map(|(_, end)| end).collect();
                for mark in -40..40 {
                    let last = ends.iter().copied().filter(|end| *end <= mark).max();
                    assert_eq!(Some(rule.last_closed(mark)), last, "{rule:?} at {mark}");
                }
            }
        }
        let rule = WindowRule::tumble(10, 3).unwrap();
        assert_eq!((rule.last_closed(i64::MIN), rule.last_closed(i64::MAX)), (i64::MIN, i64::MAX));
    }

    #[test]
    fn extreme_marks_and_times_do_not_overflow() {
        let rule = WindowRule::hop(4, 10, 1).unwrap();
        assert!(!rule.places(i64::MIN) && !rule.places(i64::MAX));
        let (early, late) = (rule.pane_of(-FARTHEST_MS + 1), rule.pane_of(FARTHEST_MS - 1));
        for pane in [early, 0, late] {
            assert_eq!(rule.first_open_end(pane, i64::MIN), Some(rule.first_end(pane)));
            assert_eq!(rule.first_open_end(pane, i64::MAX), None);
        }
    }

    #[test]
    fn sizes_that_cannot_be_are_refused() {
        for (slide, size) in [(0, 10), (10, 0), (-1, 10), (10, -1), (1, i64::MAX), (1, 200_000)] {
            assert!(WindowRule::hop(slide, size, 0).is_err(), "hop({slide}, {size})");
        }
        assert!(WindowRule::tumble(86_400_000, i64::MIN).is_ok());
    }
}
