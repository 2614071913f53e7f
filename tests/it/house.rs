//! The shape of the house: rooms import one way, each large dependency has one home, files open with
//! what they are.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// The rooms, ground floor first. A room names only rooms before it.
const ROOMS: &[&str] = &[
    "time", "record", "wire", "clinical", "metrics", "log", "broker", "server", "bus", "registry", "format", "stream", "sql", "alerts",
    "ingest", "http", "config", "node", "cli",
];

/// A dependency and the rooms it may be named in.
const HOMES: &[(&str, &[&str])] = &[
    ("datafusion::", &["sql"]),
    ("rdkafka::", &["bus", "cli"]),
    ("axum::", &["http"]),
    ("kafka_protocol::", &[]),
    ("ureq::", &["cli", "node", "registry"]),
    ("protox::", &["format"]),
    ("clap::", &["cli"]),
];

fn sources() -> Vec<(PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    let mut todo = vec![root];
    while let Some(dir) = todo.pop() {
        for entry in fs::read_dir(&dir).expect("src can be read") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                todo.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let text = fs::read_to_string(&path).expect("a source file is text");
                found.push((path, text));
            }
        }
    }
    found.sort();
    found
}

/// The room a file stands in; `None` for `lib.rs` and `main.rs`.
fn room_of(path: &Path) -> Option<&'static str> {
    let inside = path.strip_prefix(Path::new(env!("CARGO_MANIFEST_DIR")).join("src")).expect("under src");
    let first = inside.components().next().expect("a name").as_os_str().to_string_lossy();
    let name = first.trim_end_matches(".rs");
    ROOMS.iter().find(|r| **r == name).copied()
}

/// Whether a file holds tests only: the oracles that they compare with may be named there.
fn is_test(path: &Path) -> bool {
    path.components().any(|c| matches!(c.as_os_str().to_str(), Some("tests" | "tests.rs" | "simulation.rs")))
}

/// The code of a file without its tests and without comments, where arrows do not count.
fn code(text: &str) -> String {
    let body = text.split("#[cfg(test)]\nmod ").next().expect("a first part");
    body.lines().filter(|l| !l.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

#[test]
fn rooms_import_one_way() {
    let rank: BTreeMap<&str, usize> = ROOMS.iter().enumerate().map(|(i, r)| (*r, i)).collect();
    let mut upward = Vec::new();
    for (path, text) in sources() {
        let Some(room) = room_of(&path) else { continue };
        for (at, _) in code(&text).match_indices("crate::") {
            let rest = &code(&text)[at + "crate::".len()..];
            let target: String = rest.chars().take_while(|c| c.is_ascii_lowercase() || *c == '_').collect();
            if let Some(to) = rank.get(target.as_str())
                && *to > rank[room]
            {
                upward.push(format!("{} -> {target}", path.display()));
            }
        }
    }
    assert!(upward.is_empty(), "arrows that run upwards:\n{}", upward.join("\n"));
}

#[test]
fn each_large_dependency_has_one_home() {
    let mut strays = Vec::new();
    for (path, text) in sources().into_iter().filter(|(path, _)| !is_test(path)) {
        let room = room_of(&path);
        for (name, homes) in HOMES {
            let home = room.is_some_and(|r| homes.contains(&r));
            let own_module = format!("crate::{name}");
            if !home && code(&text).replace(&own_module, "").lines().any(|l| l.contains(name)) {
                strays.push(format!("{} names {name}", path.display()));
            }
        }
    }
    assert!(strays.is_empty(), "dependencies away from home:\n{}", strays.join("\n"));
}

#[test]
fn every_file_opens_with_what_it_is() {
    let silent: Vec<_> = sources().into_iter().filter(|(_, text)| !text.starts_with("//!")).map(|(p, _)| p).collect();
    assert!(silent.is_empty(), "files without a header: {silent:?}");
}

#[test]
fn the_map_in_lib_names_every_room() {
    let lib = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/lib.rs")).expect("lib.rs");
    for room in ROOMS {
        assert!(lib.contains(&format!("[`{room}`]")), "lib.rs does not describe room {room}");
    }
}

/// The fuzzing targets take rooms in by path; a room that is one file and has files beside it cannot be taken
/// so, for the compiler then looks for those at another place.
#[test]
fn rooms_that_fuzzing_takes_in_hold_their_files_in_one_folder() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let here = root.join("tests/fuzz/src");
    let lib = fs::read_to_string(here.join("lib.rs")).expect("the fuzzing crate");
    let taken: Vec<_> = lib.lines().filter_map(|l| l.strip_prefix("#[path = \"")?.strip_suffix("\"]")).collect();
    assert!(taken.len() > 3, "the rooms that are taken in are read: {taken:?}");
    for name in taken {
        let text = fs::read_to_string(here.join(name)).unwrap_or_else(|e| panic!("tests/fuzz takes in {name}: {e}"));
        let holds_files = text.lines().any(|l| l.trim_start_matches("pub ").starts_with("mod ") && l.ends_with(';'));
        assert!(name.ends_with("/mod.rs") || !holds_files, "{name} has files beside it: make it a folder with a mod.rs");
    }
}
