//! Finds the paths of the crate that a source names.

/// The path of a module or an item: `["crate", "counter", "HealthState"]`.
pub(super) type ItemPath<'a> = Vec<&'a str>;

/// Returns all paths in a source that begin with `crate::`, `super::` or `self::`, with lists in
/// braces expanded. The unit tests at the end of a file are left out: `super` is the file itself
/// there.
pub(super) fn paths_in(source: &str) -> Vec<ItemPath<'_>> {
    let source = source.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
    let mut paths = Vec::new();
    for line_start in line_starts(source) {
        let line = source[line_start..].lines().next().unwrap_or_default();
        if line.trim_start().starts_with("//") {
            continue;
        }
        for root in ["crate::", "super::", "self::"] {
            for (at, _) in line.match_indices(root) {
                let before = line[..at].chars().next_back();
                let is_begin = before.is_none_or(|c| !c.is_alphanumeric() && c != '_' && c != ':');
                if is_begin {
                    tree(&source[line_start + at..], &mut Vec::new(), &mut paths);
                }
            }
        }
    }
    paths
}

fn line_starts(source: &str) -> impl Iterator<Item = usize> {
    let after_breaks = source.match_indices('\n').map(|(at, _)| at + 1);
    std::iter::once(0).chain(after_breaks).filter(|start| *start < source.len())
}

/// Reads `a::b::{c, d::e}`, and returns the number of bytes that it takes.
fn tree<'a>(text: &'a str, prefix: &mut ItemPath<'a>, paths: &mut Vec<ItemPath<'a>>) -> usize {
    let depth = prefix.len();
    let mut at = 0;
    loop {
        let rest = &text[at..];
        if rest.starts_with('{') {
            at += 1;
            while !text[at..].starts_with('}') {
                let blank = text[at..].find(|c: char| !c.is_whitespace() && c != ',').unwrap();
                at += blank;
                if !text[at..].starts_with('}') {
                    at += tree(&text[at..], prefix, paths);
                }
            }
            at += 1;
            break;
        }
        let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_' && c != '*');
        let end = end.unwrap_or(rest.len());
        prefix.push(&rest[..end]);
        at += end;
        if let Some(after) = text[at..].strip_prefix("::")
            && after.starts_with(|c: char| c.is_alphanumeric() || "_{*".contains(c))
        {
            at += 2;
            continue;
        }
        paths.push(prefix.clone());
        let renamed = text[at..].strip_prefix(" as ").map(|name| {
            " as ".len() + name.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap()
        });
        at += renamed.unwrap_or(0);
        break;
    }
    prefix.truncate(depth);
    at
}

#[test]
fn lists_in_braces_are_expanded() {
    let source = "use crate::{\n    counter::{A, b::C as D},\n    store::*,\n};\nuse super::x::Y;\n\
                  // crate::not::this\nfn f() { crate::http::g() }\n";
    let paths: Vec<String> = paths_in(source).iter().map(|path| path.join("::")).collect();
    assert_eq!(
        paths,
        [
            "crate::counter::A",
            "crate::counter::b::C",
            "crate::store::*",
            "super::x::Y",
            "crate::http::g"
        ]
    );
}
