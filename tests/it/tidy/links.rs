//! Links in documents, and paths that documents and scripts name, exist.

use std::collections::BTreeSet;

use super::{GENERATED, Source, root};

/// Folders of the root by which a path of the project is recognised.
const FOLDERS: [&str; 10] = [
    ".ci/",
    ".github/",
    "bench/",
    "config/",
    "deploy/",
    "docs/",
    "examples/",
    "fuzz/",
    "src/",
    "tests/",
];

/// Returns the lines of a document that are not code.
fn prose(text: &str) -> impl Iterator<Item = &str> {
    let mut is_code = false;
    text.lines().filter(move |line| {
        let is_fence = line.trim_start().starts_with("```");
        is_code ^= is_fence;
        !is_code && !is_fence && !line.starts_with("    ")
    })
}

/// Splits a line into its text without code spans, and the code spans.
fn code_spans(line: &str) -> (String, Vec<&str>) {
    let parts: Vec<&str> = line.split('`').collect();
    let text = parts.iter().step_by(2).copied().collect::<Vec<_>>().join("``");
    (text, parts.into_iter().skip(1).step_by(2).collect())
}

/// Returns the targets of `[text](target)` and `[name]: target`.
fn targets(document: &str) -> Vec<String> {
    let mut targets = Vec::new();
    for line in prose(document) {
        let (line, _) = code_spans(line);
        for (at, _) in line.match_indices("](") {
            let rest = &line[at + 2..];
            targets.extend(rest.split([')', ' ']).next().map(str::to_owned));
        }
        if line.starts_with('[')
            && let Some((_, target)) = line.split_once("]: ")
        {
            targets.push(target.trim().to_owned());
        }
    }
    targets
}

/// Returns the anchors of a document's headings, as GitHub makes them.
fn anchors(document: &str) -> BTreeSet<String> {
    let mut anchors = BTreeSet::new();
    for heading in prose(document).filter(|line| line.starts_with('#')) {
        let heading = heading.trim_start_matches('#').trim().to_lowercase();
        let letters = heading.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
        let anchor: String = letters.map(|c| if c == ' ' { '-' } else { c }).collect();
        let numbered = (1..).map(|number| format!("{anchor}-{number}"));
        let mut names = std::iter::once(anchor.clone()).chain(numbered);
        anchors.extend(names.find(|name| !anchors.contains(name)));
    }
    anchors
}

#[test]
fn links_in_documents_resolve() {
    let mut seen = 0;
    for Source { path, text } in Source::all("", &["md"]) {
        let folder = root().join(&path).parent().unwrap().to_owned();
        for target in targets(&text) {
            if target.contains("://") || target.starts_with("mailto:") {
                continue;
            }
            seen += 1;
            let (file, anchor) = target.split_once('#').unwrap_or((&target, ""));
            let linked = if file.is_empty() { root().join(&path) } else { folder.join(file) };
            assert!(linked.exists(), "{path} links to {target}");
            if !anchor.is_empty() {
                let document = std::fs::read_to_string(&linked).unwrap();
                assert!(anchors(&document).contains(anchor), "{path} links to {target}");
            }
        }
    }
    assert!(seen > 5, "only {seen} links are seen");
}

/// Returns the words of a text that name a file or folder of the project.
fn named_paths(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| c.is_whitespace() || "\"'`(),;:=|<>".contains(c))
        .map(|word| word.trim_start_matches("./").trim_end_matches(['.', '/']))
        .filter(|word| FOLDERS.iter().any(|folder| word.starts_with(folder)))
        .filter(|word| !word.contains(['*', '$', '{', '…']))
        .filter(|word| !GENERATED.iter().any(|folder| word.starts_with(folder)))
}

#[test]
fn paths_in_documents_exist() {
    for Source { path, text } in Source::all("", &["md"]) {
        for line in prose(&text) {
            for span in code_spans(line).1 {
                for named in named_paths(span) {
                    assert!(root().join(named).exists(), "{path} names {named}");
                }
            }
        }
    }
}

#[test]
fn paths_in_commands_exist() {
    let mut sources = Source::all("", &["sh", "yaml"]);
    sources.extend(["Makefile", "Dockerfile", ".ci/run"].map(Source::read));
    sources.retain(|source| !source.path.starts_with("deploy/"));
    let mut seen = 0;
    for Source { path, text } in sources {
        for named in named_paths(&text) {
            seen += 1;
            assert!(root().join(named).exists(), "{path} names {named}");
        }
    }
    assert!(seen > 5, "only {seen} paths are seen");
}

#[test]
fn targets_of_make_in_documents_exist() {
    let makefile = Source::read("Makefile").text;
    let mut seen = 0;
    for Source { path, text } in Source::all("", &["md"]) {
        let spans = text.lines().flat_map(|line| code_spans(line).1);
        let commands = text.lines().filter_map(|line| line.strip_prefix("    "));
        for command in spans.chain(commands) {
            let Some(target) = command.strip_prefix("make ") else { continue };
            let target = target.split([' ', '…']).next().unwrap();
            seen += 1;
            assert!(makefile.contains(&format!("\n{target}: ")), "{path} names make {target}");
        }
    }
    assert!(seen > 10, "only {seen} are seen");
}

#[test]
fn anchors_are_those_of_github() {
    let document =
        "# On `Redis`, again\n\n```\n# no heading\n```\n## What's new?\n## What's new?\n";
    let expected = ["on-redis-again", "whats-new", "whats-new-1"];
    assert_eq!(anchors(document), expected.map(str::to_owned).into());
}

#[test]
fn links_are_read_outside_of_code() {
    let document = "See [a](b.md#c) and `[no](link)`.\n\n    [code](x)\n\n[d]: e.md\n";
    assert_eq!(targets(document), ["b.md#c", "e.md"]);
}
