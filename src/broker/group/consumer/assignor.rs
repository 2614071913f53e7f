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
        spread.give_even_shares();
    } else {
        spread.hand_out(topics);
        spread.balance(topics);
    }
    spread.into_partitions()
}

/// How often all topics are gone through to even out members that read different ones.
const BALANCING_ROUNDS: usize = 16;

/// An assignment in the making.
struct Spread {
    /// Who subscribes to each topic.
    readers: BTreeMap<TopicId, Vec<usize>>,
    given: Vec<BTreeSet<(TopicId, i32)>>,
    free: BTreeSet<(TopicId, i32)>,
}

impl Spread {
    /// Everybody keeps what it had and still may have; the rest is free.
    fn keeping(members: &[Subscriber], topics: &BTreeMap<TopicId, i32>) -> Self {
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
        Self { readers, given, free }
    }

    /// Where all read the same, everybody gets its share, and keeps of what it had no more than that. Where the shares
    /// cannot be even, whoever has more keeps one more, and the last ones get what is left over. What is free is given
    /// out in runs of neighbours.
    fn give_even_shares(&mut self) {
        let members = self.given.len();
        let total = self.free.len() + self.given.iter().map(BTreeSet::len).sum::<usize>();
        let Some(share) = total.checked_div(members) else { return };
        let mut extra = total % members;
        let mut lacking = Vec::new();
        for (i, given) in self.given.iter_mut().enumerate() {
            let takes_one_more = extra > 0 && (given.len() > share || members - i <= extra);
            let quota = share + usize::from(takes_one_more);
            extra -= usize::from(takes_one_more);
            while given.len() > quota {
                self.free.extend(given.pop_last());
            }
            lacking.push(quota - given.len());
        }
        let mut free = std::mem::take(&mut self.free).into_iter();
        for (given, lacks) in self.given.iter_mut().zip(lacking) {
            given.extend(free.by_ref().take(lacks));
        }
        assert!(free.next().is_none(), "the shares are all there is");
    }

    /// The topics in the order in which they are given out and evened out: first those of which each reader has to take
    /// most, of these the ones that fewest read.
    fn topics(&self, counts: &BTreeMap<TopicId, i32>) -> Vec<TopicId> {
        let mut topics: Vec<_> = self.readers.keys().copied().collect();
        topics.sort_by(|a, b| {
            let (readers, count) = (|topic| self.readers[topic].len(), |topic| i64::from(counts[topic]));
            // The one share against the other, without fractions.
            let (one, other) = (count(a) * readers(b) as i64, count(b) * readers(a) as i64);
            other.cmp(&one).then(readers(a).cmp(&readers(b))).then(a.cmp(b))
        });
        topics
    }

    /// The readers of a topic, each with how much it has and its place among them by that. Who has as much as another
    /// stays in its place while they take and give in turns.
    fn queue(&self, topic: &TopicId) -> (Vec<usize>, BTreeSet<(usize, usize)>) {
        let mut readers = self.readers[topic].clone();
        readers.sort_by_key(|i| (self.given[*i].len(), *i));
        let queue = readers.iter().enumerate().map(|(place, i)| (self.given[*i].len(), place)).collect();
        (readers, queue)
    }

    /// Gives what is free to whoever reads it and has least.
    fn hand_out(&mut self, counts: &BTreeMap<TopicId, i32>) {
        let mut free: BTreeMap<TopicId, Vec<i32>> = BTreeMap::new();
        for (topic, partition) in std::mem::take(&mut self.free) {
            free.entry(topic).or_default().push(partition);
        }
        for topic in self.topics(counts) {
            let Some(partitions) = free.remove(&topic) else { continue };
            let (readers, mut queue) = self.queue(&topic);
            for partition in partitions {
                let (load, place) = queue.pop_first().expect("a topic is here because somebody reads it");
                self.given[readers[place]].insert((topic, partition));
                queue.insert((load + 1, place));
            }
        }
    }

    /// Moves partitions from who has more to who has less, topic by topic, until nothing moves in a whole round. Where
    /// readers overlap in chains that may take long for little, so the rounds are counted, as in Kafka.
    fn balance(&mut self, counts: &BTreeMap<TopicId, i32>) {
        let topics: Vec<_> = self.topics(counts).into_iter().filter(|topic| self.readers[topic].len() > 1).collect();
        for _ in 0..BALANCING_ROUNDS {
            let mut moved = 0;
            for topic in &topics {
                moved += self.balance_topic(topic);
            }
            if moved == 0 {
                return;
            }
        }
    }

    /// Evens out the readers of one topic with its partitions; answers how many were moved. Whoever has most gives its
    /// last one to whoever has least.
    fn balance_topic(&mut self, topic: &TopicId) -> usize {
        let (readers, mut queue) = self.queue(topic);
        let of_topic = |given: &BTreeSet<(TopicId, i32)>| given.range((*topic, i32::MIN)..=(*topic, i32::MAX)).next_back().copied();
        // Who has nothing of this topic left to give is passed over.
        let mut givers: BTreeSet<_> = queue.iter().copied().filter(|(_, place)| of_topic(&self.given[readers[*place]]).is_some()).collect();
        let mut moved = 0;
        while let (Some((least, to)), Some((most, from))) = (queue.first().copied(), givers.last().copied()) {
            if most <= least + 1 {
                break;
            }
            let partition = of_topic(&self.given[readers[from]]).expect("a giver has something to give");
            self.given[readers[from]].remove(&partition);
            self.given[readers[to]].insert(partition);
            for (before, after, place) in [(most, most - 1, from), (least, least + 1, to)] {
                queue.remove(&(before, place));
                queue.insert((after, place));
                if givers.remove(&(before, place)) && of_topic(&self.given[readers[place]]).is_some() {
                    givers.insert((after, place));
                }
            }
            moved += 1;
        }
        moved
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
        assert_eq!(sizes(&all), [4, 5]);
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
    fn uniform_gives_runs_of_neighbours_and_what_is_left_over_to_the_last() {
        let topics = BTreeMap::from([(topic(1), 5), (topic(2), 3)]);
        let members = [member("a", &[1, 2]), member("b", &[1, 2]), member("c", &[1, 2])];
        let all = assign("uniform", &members, &topics);
        assert_eq!(sizes(&all), [2, 3, 3]);
        assert_eq!(all[0], BTreeMap::from([(topic(1), BTreeSet::from([0, 1]))]));
        assert_eq!(all[1], BTreeMap::from([(topic(1), BTreeSet::from([2, 3, 4]))]));
        assert_eq!(all[2], BTreeMap::from([(topic(2), BTreeSet::from([0, 1, 2]))]));
    }

    #[test]
    fn uniform_evens_out_members_that_read_different_topics() {
        let members = vec![member("a", &[1, 2]), member("b", &[2])];
        let topics = BTreeMap::from([(topic(1), 3), (topic(2), 3)]);
        assert_eq!(sizes(&assign("uniform", &members, &topics)), [3, 3]);
        assert_eq!(sizes(&assign("uniform", &[member("a", &[3])], &topics)), [0], "a topic that is not there");
        // What a chain of readers has in the end hangs on what is given out first: those that have no choice.
        let members = vec![member("a", &[]), member("b", &[0]), member("c", &[0, 1]), member("d", &[0, 1])];
        let topics = BTreeMap::from([(topic(0), 8), (topic(1), 7)]);
        assert_eq!(sizes(&assign("uniform", &members, &topics)), [0, 5, 5, 5]);
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
