//! Imports between the modules of the crate's root run one way.

use super::{Source, paths::paths_in};

/// From left to right: a module imports only from its left.
const ORDER: [&str; 19] = [
    "printable",
    "options",
    "domain",
    "telemetry",
    "rules",
    "tls",
    "traces",
    "redb_file",
    "commit_witness",
    "store",
    "spool",
    "catalogue",
    "counter",
    "auth",
    "http",
    "logging",
    "config",
    "app",
    "cli",
];

fn position(module: &str) -> Option<usize> {
    ORDER.iter().position(|other| *other == module)
}

#[test]
fn imports_between_root_modules_run_from_right_to_left() {
    let mut seen = 0;
    for Source { path, text } in Source::all("src/", &["rs"]) {
        let module = path["src/".len()..].split('/').next().unwrap().trim_end_matches(".rs");
        let Some(own) = position(module) else {
            assert!(["lib", "main"].contains(&module), "{module} is not in ORDER");
            continue;
        };
        for imported in paths_in(&text) {
            let ["crate", other, ..] = imported.as_slice() else { continue };
            seen += 1;
            let other_position = position(other).unwrap_or_else(|| panic!("{path}: {imported:?}"));
            assert!(other_position <= own, "{path} imports {}", imported.join("::"));
        }
    }
    assert!(seen > 100, "only {seen} imports are seen");
}
