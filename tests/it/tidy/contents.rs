//! The permitted contents and sizes of files.

use std::fs;

use super::{Source, project_files, root};

const MAX_LINES: usize = 500;
const MAX_COLUMNS: usize = 100;
const MAX_BYTES: u64 = 512 * 1024;

/// Files that a program has written or reads unchanged: they may be binary and large.
const DATA: [&str; 3] = ["tests/data/", "fuzz/corpus/", PICTURES];

/// The folder that `make screenshots` writes to.
const PICTURES: &str = "docs/pictures/";
const MAX_PICTURE_BYTES: usize = 150 << 10;
const MAX_PICTURES_BYTES: usize = 600 << 10;

/// Scripts that are included in others, and have no keys and arguments of their own.
const SCRIPT_LIBRARIES: [&str; 8] = [
    "frame.lua",
    "library.lua",
    "/known.lua",
    "reading.lua",
    "rollup.lua",
    "timeline.lua",
    "recording.lua",
    "incidents.lua",
];

#[test]
fn every_rust_file_says_what_it_is_for_and_is_not_too_long() {
    for Source { path, text } in Source::all("", &["rs"]) {
        assert!(text.starts_with("//! "), "{path}");
        let lines = text.lines().count();
        assert!(lines <= MAX_LINES, "{path} has {lines} lines");
    }
}

#[test]
fn every_script_has_a_header() {
    for Source { path, text } in Source::all("src/store/scripts", &["lua"]) {
        assert!(text.starts_with("-- "), "{path}");
        if SCRIPT_LIBRARIES.iter().any(|name| path.ends_with(name)) {
            continue;
        }
        for part in ["-- KEYS ", "-- ARGV ", "-- Returns ", "-- A script and not "] {
            assert!(text.contains(part), "{path} lacks {part:?}");
        }
    }
}

#[test]
fn lines_end_at_100_columns() {
    let mut sources = Source::all("", &["rs", "lua", "toml", "sh", "js", "css"]);
    sources.push(Source::read(".ci/run"));
    let mut too_long = Vec::new();
    for Source { path, text } in sources {
        for (number, line) in (1..).zip(text.lines()) {
            let columns = line.chars().count();
            if columns > MAX_COLUMNS && !is_unbreakable(line) {
                too_long.push(format!("{path}:{number}: {columns}"));
            }
        }
    }
    assert!(too_long.is_empty(), "{} lines:\n{}", too_long.len(), too_long.join("\n"));
}

/// Returns true if a line can't be broken at a blank: one word of it, such as a URL or JSON in a
/// raw string, takes more than three quarters of the columns.
fn is_unbreakable(line: &str) -> bool {
    line.split_whitespace().any(|word| word.chars().count() > MAX_COLUMNS * 3 / 4)
}

#[test]
fn nothing_is_binary_or_large() {
    for path in project_files() {
        if DATA.iter().any(|folder| path.starts_with(folder)) {
            continue;
        }
        let bytes = fs::read(root().join(&path)).unwrap();
        assert!(bytes.len() as u64 <= MAX_BYTES, "{path} has {} bytes", bytes.len());
        let is_text = !bytes.contains(&0) && std::str::from_utf8(&bytes).is_ok();
        assert!(is_text, "{path} is binary");
    }
}

#[test]
fn pictures_are_small() {
    let mut bytes = 0;
    for path in project_files().into_iter().filter(|path| path.starts_with(PICTURES)) {
        let size = fs::read(root().join(&path)).unwrap().len();
        assert!(size <= MAX_PICTURE_BYTES, "{path} has {size} bytes");
        bytes += size;
    }
    assert!(bytes > 0, "there are no pictures");
    assert!(bytes <= MAX_PICTURES_BYTES, "the pictures have {bytes} bytes");
}

#[test]
fn fred_is_used_in_the_redis_store_only() {
    must_be_within("fred::", &["src/store/redis/"]);
}

#[test]
fn status_codes_are_used_at_the_edges_only() {
    must_be_within("StatusCode", &["src/http/", "src/cli/"]);
}

/// Fails where sources of the service name something outside of these folders.
fn must_be_within(name: &str, folders: &[&str]) {
    let mut seen = 0;
    for Source { path, text } in Source::all("src/", &["rs"]) {
        if !text.contains(name) {
            continue;
        }
        seen += 1;
        let is_allowed = folders.iter().any(|folder| path.starts_with(folder));
        assert!(is_allowed, "{path} names {name}");
    }
    assert!(seen > 0, "{name} is nowhere");
}
