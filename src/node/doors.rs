//! How many connections each door takes, so that a crowd at the doors never takes the files that the log needs.
//!
//! Connections and files come out of one limit of the process. Always: half of it stays for files, or as many as the node ever opens:
//! the log keeps a few hundred open, however many partitions there are. Called by the node when it opens its doors.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Whoever needs more than this over HTTP wants a proxy in front.
const MOST_HTTP: usize = 1024;
/// More files than these the node does not open.
const MOST_FILES: usize = 4096;
/// Nobody needs to hear that there is room for no more than so many Kafka clients.
const PLENTY: usize = 2000;

/// How many connections each door takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Doors {
    pub(super) kafka: usize,
    pub(super) http: usize,
}

impl Doors {
    /// Raises the process's own limit as far as the system lets us, and shares it out; `kafka` is how many the settings allow.
    pub(super) fn open(kafka: usize) -> Self {
        let limit = getrlimit(Resource::Nofile);
        let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
        let files = if setrlimit(Resource::Nofile, raised).is_ok() { limit.maximum } else { limit.current };
        let doors = Self::share(files.map_or(usize::MAX, |files| usize::try_from(files).unwrap_or(usize::MAX)), kafka);
        if doors.kafka < kafka.min(PLENTY) {
            let (files, takes) = (files.unwrap_or(0), doors.kafka);
            tracing::warn!(files, takes, wanted = kafka, "few open files are allowed (ulimit -n): fewer connections are taken");
        }
        doors
    }

    /// Half of the limit stays for files, if they need so much; an eighth is HTTP's.
    fn share(files: usize, kafka: usize) -> Self {
        let http = MOST_HTTP.min(files / 8);
        Self { kafka: kafka.min(files - http - MOST_FILES.min(files / 2)), http }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_has_its_files_however_many_want_to_connect() {
        for (files, kafka, expected) in [
            (usize::MAX, 10_000, Doors { kafka: 10_000, http: 1024 }),
            (65_536, 10_000, Doors { kafka: 10_000, http: 1024 }),
            (20_000, 10_000, Doors { kafka: 10_000, http: 1024 }),
            (4096, 10_000, Doors { kafka: 1536, http: 512 }),
            (1024, 10_000, Doors { kafka: 384, http: 128 }),
            (1024, 100, Doors { kafka: 100, http: 128 }),
        ] {
            let doors = Doors::share(files, kafka);
            assert_eq!(doors, expected);
            assert!(files - doors.kafka - doors.http >= MOST_FILES.min(files / 2));
        }
    }
}
