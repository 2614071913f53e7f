//! How partitions are spread over members: `uniform` and `range`.
//!
//! Always: every partition of a topic that somebody subscribes to goes to exactly one of those who do; the same
//! input gives the same output. `uniform` spreads evenly and leaves with a member what it has where it can;
//! `range` gives each member a run of neighbouring partitions of every topic, so that members who read two
//! topics with as many partitions get the same numbers of both.

use std::collections::{BTreeMap, BTreeSet};

use crate::record::TopicId;

/// Partitions by topic.
pub(super) type Partitions = BTreeMap<TopicId, BTreeSet<i32>>;

/// A member as an assignor sees it.
#[derive(Clone, Debug, Default)]
pub(super) struct Subscriber {
    pub(super) id: String,
    pub(super) instance_id: Option<String>,
    pub(super) topics: BTreeSet<TopicId>,
    /// What it was to have so far.
    pub(super) had: Partitions,
}

/// Spreads the partitions of `topics`, each with its count, over the members. The answer is in their order.
pub(super) fn assign(assignor: &str, members: &[Subscriber], topics: &BTreeMap<TopicId, i32>) -> Vec<Partitions> {
    match assignor {
        "range" => range(members, topics),
        _ => uniform(members, topics),
    }
}

fn range(members: &[Subscriber], topics: &BTreeMap<TopicId, i32>) -> Vec<Partitions> {
    let mut order: Vec<usize> = (0..members.len()).collect();
    // Static members first and by their names, so that a restart changes nothing.
    order.sort_by_key(|i| {
        let member = &members[*i];
        (member.instance_id.is_none(), member.instance_id.as_ref().unwrap_or(&member.id))
    });
    let mut all = vec![Partitions::new(); members.len()];
    for (topic, count) in topics {
        let readers: Vec<usize> = order.iter().copied().filter(|i| members[*i].topics.contains(topic)).collect();
        let Some(share) = (*count as usize).checked_div(readers.len()) else { continue };
        let extra = *count as usize % readers.len();
        let mut from = 0;
        for (nth, reader) in readers.into_iter().enumerate() {
            let to = from + share + usize::from(nth < extra);
            if to > from {
                all[reader].insert(*topic, (from as i32..to as i32).collect());
            }
            from = to;
        }
    }
    all
}

fn uniform(members: &[Subscriber], topics: &BTreeMap<TopicId, i32>) -> Vec<Partitions> {
    let alike = members.windows(2).all(|pair| pair[0].topics == pair[1].topics);
    let mut spread = Spread::keeping(members, topics);
    if alike {
        spread.cut_to_even_shares();
        spread.hand_out();
    } else {
        spread.hand_out();
        spread.balance();
    }
    spread.into_partitions()
}

/// An assignment in the making.
struct Spread<'a> {
    members: &'a [Subscriber],
    /// Who subscribes to each topic.
    readers: BTreeMap<TopicId, Vec<usize>>,
    given: Vec<BTreeSet<(TopicId, i32)>>,
    free: BTreeSet<(TopicId, i32)>,
}

impl<'a> Spread<'a> {
    /// Everybody keeps what it had and still may have; the rest is free.
    fn keeping(members: &'a [Subscriber], topics: &BTreeMap<TopicId, i32>) -> Self {
        let mut readers: BTreeMap<TopicId, Vec<usize>> = BTreeMap::new();
        for (i, member) in members.iter().enumerate() {
            for topic in member.topics.iter().filter(|topic| topics.contains_key(topic)) {
                readers.entry(*topic).or_default().push(i);
            }
        }
        let mut free: BTreeSet<(TopicId, i32)> =
            readers.keys().flat_map(|topic| (0..topics[topic]).map(|partition| (*topic, partition))).collect();
        let mut given = vec![BTreeSet::new(); members.len()];
        for (member, given) in members.iter().zip(&mut given) {
            for (topic, of) in member.had.iter().filter(|(topic, _)| member.topics.contains(topic)) {
                given.extend(of.iter().map(|p| (*topic, *p)).filter(|place| free.remove(place)));
            }
        }
        Self { members, readers, given, free }
    }

    /// Where all read the same, nobody keeps more than its share; whoever has most keeps one more where the shares
    /// cannot be even.
    fn cut_to_even_shares(&mut self) {
        let total = self.free.len() + self.given.iter().map(BTreeSet::len).sum::<usize>();
        let Some(share) = total.checked_div(self.members.len()) else { return };
        let mut extra = total % self.members.len();
        for given in &mut self.given {
            let mut keeps = share;
            if given.len() > share && extra > 0 {
                keeps += 1;
                extra -= 1;
            }
            while given.len() > keeps {
                let last = given.pop_last().expect("it has more than it keeps");
                self.free.insert(last);
            }
        }
    }

    /// Gives what is free to whoever reads it and has least; first what fewest read.
    fn hand_out(&mut self) {
        let mut free: Vec<_> = std::mem::take(&mut self.free).into_iter().collect();
        free.sort_by_key(|(topic, partition)| (self.readers[topic].len(), *topic, *partition));
        // Members by how much they have; the ones that read a topic are found among them.
        let mut by_load: BTreeSet<(usize, usize)> = self.given.iter().enumerate().map(|(i, given)| (given.len(), i)).collect();
        for place in free {
            let least = by_load.iter().find(|(_, i)| self.members[*i].topics.contains(&place.0)).copied();
            let Some((load, i)) = least else { continue };
            by_load.remove(&(load, i));
            self.given[i].insert(place);
            by_load.insert((load + 1, i));
        }
    }

    /// Moves partitions from who has more to who has less, until no single move helps. Every move makes the
    /// spread more even, so this ends.
    fn balance(&mut self) {
        loop {
            let mut moved = false;
            for from in 0..self.given.len() {
                for place in self.given[from].clone() {
                    let least = self.readers[&place.0].iter().copied().min_by_key(|i| (self.given[*i].len(), *i));
                    if let Some(to) = least
                        && self.given[to].len() + 1 < self.given[from].len()
                    {
                        self.given[from].remove(&place);
                        self.given[to].insert(place);
                        moved = true;
                    }
                }
            }
            if !moved {
                return;
            }
        }
    }

    fn into_partitions(self) -> Vec<Partitions> {
        let of_one = |given: BTreeSet<(TopicId, i32)>| {
            let mut partitions = Partitions::new();
            for (topic, partition) in given {
                partitions.entry(topic).or_default().insert(partition);
            }
            partitions
        };
        self.given.into_iter().map(of_one).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};

    fn topic(n: u8) -> TopicId {
        TopicId([n; 16])
    }

    fn member(id: &str, topics: &[u8]) -> Subscriber {
        Subscriber { id: id.to_owned(), topics: topics.iter().map(|n| topic(*n)).collect(), ..Subscriber::default() }
    }

    fn sizes(all: &[Partitions]) -> Vec<usize> {
        all.iter().map(|one| one.values().map(BTreeSet::len).sum()).collect()
    }

    /// Says it back, as members that had it.
    fn again(members: &[Subscriber], all: Vec<Partitions>) -> Vec<Subscriber> {
        members.iter().cloned().zip(all).map(|(member, had)| Subscriber { had, ..member }).collect()
    }

    #[test]
    fn range_gives_neighbours_and_the_same_numbers_of_every_topic() {
        let mut members = vec![member("b", &[1, 2]), member("c", &[1, 2]), member("a", &[1])];
        members[1].instance_id = Some("z".to_owned());
        let all = assign("range", &members, &BTreeMap::from([(topic(1), 7), (topic(2), 4)]));
        assert_eq!(all[1][&topic(1)], BTreeSet::from([0, 1, 2]), "the static member comes first");
        assert_eq!(all[2][&topic(1)], BTreeSet::from([3, 4]));
        assert_eq!(all[0][&topic(1)], BTreeSet::from([5, 6]));
        assert_eq!(all[1][&topic(2)], BTreeSet::from([0, 1]));
        assert_eq!(all[0][&topic(2)], BTreeSet::from([2, 3]));
    }

    #[test]
    fn uniform_is_even_and_moves_no_more_than_it_must() {
        let topics = BTreeMap::from([(topic(1), 9)]);
        let two = vec![member("a", &[1]), member("b", &[1])];
        let all = assign("uniform", &two, &topics);
        assert_eq!(sizes(&all), [5, 4]);
        let mut three = again(&two, all.clone());
        three.push(member("c", &[1]));
        let more = assign("uniform", &three, &topics);
        assert_eq!(sizes(&more), [3, 3, 3]);
        assert!(more[0][&topic(1)].is_subset(&all[0][&topic(1)]));
        assert!(more[1][&topic(1)].is_subset(&all[1][&topic(1)]));
        let same = again(&three, more.clone());
        assert_eq!(assign("uniform", &same, &topics), more, "nothing moves without a reason");
    }

    #[test]
    fn uniform_evens_out_members_that_read_different_topics() {
        let members = vec![member("a", &[1, 2]), member("b", &[2])];
        let topics = BTreeMap::from([(topic(1), 3), (topic(2), 3)]);
        assert_eq!(sizes(&assign("uniform", &members, &topics)), [3, 3]);
        assert_eq!(sizes(&assign("uniform", &[member("a", &[3])], &topics)), [0], "a topic that is not there");
        assert!(assign("uniform", &[], &topics).is_empty());
    }

    #[test]
    fn whatever_the_subscriptions_every_partition_has_one_owner() {
        for seed in 0..300 {
            let mut rng = StdRng::seed_from_u64(seed);
            let topics: BTreeMap<_, _> = (0..rng.random_range(1..5)).map(|n| (topic(n), rng.random_range(0..12))).collect();
            let mut members: Vec<_> = (0..rng.random_range(1..8))
                .map(|i| member(&format!("m{i}"), &(0..5).filter(|_| rng.random_bool(0.6)).collect::<Vec<_>>()))
                .collect();
            for assignor in ["uniform", "range", "uniform"] {
                let all = assign(assignor, &members, &topics);
                let mut seen = BTreeSet::new();
                for (member, of) in members.iter().zip(&all) {
                    for (topic, partitions) in of {
                        assert!(member.topics.contains(topic), "seed {seed}");
                        for partition in partitions {
                            assert!(seen.insert((*topic, *partition)), "seed {seed}: twice");
                        }
                    }
                }
                let readable = topics.iter().filter(|(t, _)| members.iter().any(|m| m.topics.contains(t)));
                assert_eq!(seen.len(), readable.map(|(_, n)| *n as usize).sum::<usize>(), "seed {seed}: all");
                members = again(&members, all);
            }
        }
    }
}
