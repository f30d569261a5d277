//! The house rules that a machine can keep: imports run one way, and every file says what it is.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// From left to right: a module imports only from its left.
const ORDER: [&str; 14] = [
    "domain",
    "telemetry",
    "tls",
    "traces",
    "redb_file",
    "store",
    "spool",
    "counter",
    "auth",
    "http",
    "logging",
    "config",
    "app",
    "cli",
];

const LONGEST_FILE_LINES: usize = 500;

fn rust_files(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The module of the root that a file belongs to.
fn room(file: &Path) -> String {
    let inside = file.strip_prefix(root().join("src")).unwrap();
    let first = inside.components().next().unwrap().as_os_str().to_str().unwrap();
    first.trim_end_matches(".rs").to_owned()
}

/// The rooms that a source names after `crate::`, also in nested `use crate::{…}` lists.
fn imported_rooms(source: &str) -> Vec<&'static str> {
    let mut rooms = Vec::new();
    for (start, _) in source.match_indices("crate::") {
        let rest = &source[start + "crate::".len()..];
        let list = match rest.strip_prefix('{') {
            Some(list) => &list[..list.find(";\n").unwrap()],
            None => rest,
        };
        let is_list = rest.starts_with('{');
        let mut depth = 0;
        let mut at_start = true;
        for (i, c) in list.char_indices() {
            if at_start && depth == 0 {
                rooms.extend(ORDER.into_iter().find(|room| {
                    list[i..].strip_prefix(room).is_some_and(|after| after.starts_with("::"))
                }));
            }
            match c {
                '{' => depth += 1,
                '}' => depth -= 1,
                _ => {}
            }
            at_start = is_list && (c == ',' || c.is_whitespace());
            if !is_list {
                break;
            }
        }
    }
    rooms
}

#[test]
fn imports_run_one_way() {
    let place = |room: &str| ORDER.iter().position(|other| *other == room);
    let mut seen = 0;
    for file in rust_files(&root().join("src")) {
        let room = room(&file);
        let Some(own) = place(&room) else {
            assert!(["lib", "main"].contains(&room.as_str()), "{room} has no place in ORDER");
            continue;
        };
        for imported in imported_rooms(&fs::read_to_string(&file).unwrap()) {
            seen += 1;
            assert!(place(imported).unwrap() <= own, "{} imports {imported}", file.display());
        }
    }
    assert!(seen > 20, "the test does not see the imports: {seen}");
}

#[test]
fn nested_imports_are_seen() {
    let source =
        "use crate::{\n    counter::{A, B},\n    store::C,\n};\nfn f() { crate::http::g() }\n";
    assert_eq!(imported_rooms(source), ["counter", "store", "http"]);
}

#[test]
fn every_file_opens_by_saying_what_it_is_for_and_is_not_too_long() {
    let mut files = rust_files(&root().join("src"));
    files.extend(rust_files(&root().join("tests")));
    files.extend(rust_files(&root().join("bench")));
    files.extend(rust_files(&root().join("fuzz/fuzz_targets")));
    for file in files {
        let source = fs::read_to_string(&file).unwrap();
        assert!(source.starts_with("//! "), "{}", file.display());
        let lines = source.lines().count();
        assert!(lines <= LONGEST_FILE_LINES, "{} has {lines} lines", file.display());
    }
}

#[test]
fn every_script_has_a_header() {
    for entry in fs::read_dir(root().join("src/store/scripts")).unwrap() {
        let path = entry.unwrap().path();
        let source = fs::read_to_string(&path).unwrap();
        assert!(source.starts_with("-- "), "{}", path.display());
        let is_included = ["library.lua", "rollup.lua"].iter().any(|name| path.ends_with(name));
        if !is_included {
            for part in ["-- KEYS ", "-- ARGV ", "-- Returns ", "-- A script and not "] {
                assert!(source.contains(part), "{} lacks {part:?}", path.display());
            }
        }
    }
}
