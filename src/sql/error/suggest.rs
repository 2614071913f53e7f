//! "Did you mean": the nearest of a list of names, by edit distance. Called wherever a name is not found.

/// A hint naming the nearest of `known`, where one is near enough to be a slip of the hand.
pub fn did_you_mean<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<String> {
    nearest(name, known).map(|found| format!("did you mean \"{found}\"?"))
}

/// The nearest of `known`: at most a third of the name's letters are wrong, and at least one is right.
/// Names that differ only in case, or only in `_`, `-` and `.`, count as nearest.
pub fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let wanted = plain(name);
    // A name of absurd length is not a slip, and the table of distances should stay small.
    if wanted.is_empty() || wanted.len() > 100 {
        return None;
    }
    let allowed = (wanted.len() / 3).max(1);
    let near = known.into_iter().filter_map(|candidate| {
        let letters = plain(candidate);
        if letters.len() > 100 || candidate == name {
            return None;
        }
        let distance = distance(&wanted, &letters);
        // A short name must keep most of its letters: "hr" is no slip for "rr".
        (distance <= allowed && distance < wanted.len().min(letters.len()) && (wanted.len() > 2 || distance == 0))
            .then_some((distance, candidate))
    });
    near.min_by_key(|(distance, _)| *distance).map(|(_, candidate)| candidate)
}

fn plain(name: &str) -> Vec<char> {
    name.chars().filter(|c| !matches!(c, '_' | '-' | '.' | ' ')).flat_map(char::to_lowercase).collect()
}

/// How many letters to insert, drop, replace or swap with their neighbour.
fn distance(a: &[char], b: &[char]) -> usize {
    let mut before = vec![0; b.len() + 1];
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut row = vec![i + 1; b.len() + 1];
        for (j, y) in b.iter().enumerate() {
            let replaced = last[j] + usize::from(x != y);
            row[j + 1] = replaced.min(last[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && *x == b[j - 1] && a[i - 1] == *y {
                row[j + 1] = row[j + 1].min(before[j - 1] + 1);
            }
        }
        before = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_hand_is_recognised_and_another_word_is_not() {
        let known = ["heart_rate", "resp_rate", "spo2", "bed", "watermark.idle-timeout", "hr"];
        for (typed, meant) in [
            ("hart_rate", Some("heart_rate")),
            ("heartRate", Some("heart_rate")),
            ("sp02", Some("spo2")),
            ("psO2", Some("spo2")),
            ("watermark.idle.timeout", Some("watermark.idle-timeout")),
            ("rr", None),
            ("xyz", None),
            ("", None),
            ("temperature", None),
        ] {
            assert_eq!(nearest(typed, known), meant, "{typed}");
        }
        assert_eq!(nearest(&"x".repeat(10_000), known), None);
    }
}
