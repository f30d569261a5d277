//! The files of the page at `/`. They are written by hand and are in the binary: there is no build
//! of them, and nothing is loaded from other sites. The types in them are checked by
//! `make page-types`.

use std::{fmt::Write as _, sync::LazyLock};

use axum::{
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use sha2::{Digest as _, Sha256};

/// The page loads its own files and calls its own service. Scripts can't create HTML from text, so
/// that a hostile name of an alert can't become a script.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
                                       connect-src 'self'; img-src 'self' data:; base-uri 'none'; \
                                       form-action 'none'; frame-ancestors 'none'; \
                                       require-trusted-types-for 'script'";

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const SVG: &str = "image/svg+xml";

/// The name, the content type and the source of each file. The first one is the document.
const SOURCES: [(&str, &str, &str); 12] = [
    ("index.html", HTML, include_str!("index.html")),
    ("page.css", CSS, include_str!("page.css")),
    ("icon.svg", SVG, include_str!("icon.svg")),
    ("main.js", SCRIPT, include_str!("main.js")),
    ("anomaly.js", SCRIPT, include_str!("anomaly.js")),
    ("api.js", SCRIPT, include_str!("api.js")),
    ("chart.js", SCRIPT, include_str!("chart.js")),
    ("dialogs.js", SCRIPT, include_str!("dialogs.js")),
    ("dom.js", SCRIPT, include_str!("dom.js")),
    ("format.js", SCRIPT, include_str!("format.js")),
    ("list.js", SCRIPT, include_str!("list.js")),
    ("parts.js", SCRIPT, include_str!("parts.js")),
];

/// The files as they are sent. Created at the first request for the page.
static PAGE: LazyLock<Page> = LazyLock::new(Page::new);

struct Page {
    files: Vec<PageFile>,
    /// The entity tag, which changes with any file: so a script of one version is never used with a
    /// style of another.
    tag: HeaderValue,
}

struct PageFile {
    name: &'static str,
    content_type: HeaderValue,
    content: Bytes,
}

impl Page {
    fn new() -> Self {
        let files = SOURCES.map(|(name, content_type, source)| PageFile {
            name,
            content_type: HeaderValue::from_static(content_type),
            content: match content_type {
                CSS => without_blanks(without_comments(source)).into(),
                _ => without_comments(source).into(),
            },
        });
        let mut digest = Sha256::new();
        for file in &files {
            digest.update(&file.content);
        }
        let mut tag = "\"".to_owned();
        for byte in &digest.finalize()[..8] {
            // Writing to a String can't fail.
            let _ = write!(tag, "{byte:02x}");
        }
        tag.push('"');
        let tag = HeaderValue::try_from(tag).unwrap_or(HeaderValue::from_static("\"\""));
        Self { files: files.into(), tag }
    }
}

/// Removes indentation, and comments on lines of their own, which are for those who change the
/// page.
fn without_comments(source: &str) -> String {
    let mut kept = String::with_capacity(source.len());
    let mut is_comment = false;
    for line in source.lines().map(str::trim) {
        is_comment |= line.starts_with("/*");
        if !is_comment && !line.starts_with("//") && !line.is_empty() {
            kept.push_str(line);
            kept.push('\n');
        }
        is_comment &= !line.ends_with("*/");
    }
    kept
}

/// Removes the meaningless blanks, line ends and semicolons of a style sheet. No string in it has
/// such a pair.
fn without_blanks(style: String) -> String {
    let pairs = [
        (": ", ":"),
        ("; ", ";"),
        (", ", ","),
        (" {", "{"),
        ("{ ", "{"),
        (" }", "}"),
        ("{\n", "{"),
        (";\n", ";"),
        (";}", "}"),
    ];
    pairs.into_iter().fold(style, |style, (wide, narrow)| style.replace(wide, narrow))
}

/// Answers with the document, or with 304 if the reader has it.
pub(super) fn document(request: &HeaderMap) -> Response {
    answer(&PAGE.files[0], request)
}

/// Answers with a file of the page; `None` if there is none with this name.
pub(super) fn file(name: &str, request: &HeaderMap) -> Option<Response> {
    let file = PAGE.files.iter().skip(1).find(|file| file.name == name)?;
    Some(answer(file, request))
}

fn answer(file: &PageFile, request: &HeaderMap) -> Response {
    let headers = [
        (header::ETAG, PAGE.tag.clone()),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
        (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(CONTENT_SECURITY_POLICY)),
        (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
        (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    ];
    let known = request.get_all(header::IF_NONE_MATCH);
    if known.iter().any(|known| known == PAGE.tag) {
        return (StatusCode::NOT_MODIFIED, headers).into_response();
    }
    let content_type = [(header::CONTENT_TYPE, file.content_type.clone())];
    (headers, content_type, file.content.clone()).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_on_lines_of_their_own_and_indentation_are_left_out() {
        let source = "// Why.\n\n/** What.\n * @param {string} a\n */\nconst a = 1; // kept\n  \
                      /* one line */\n  * { margin: 0; }\n  b(\"/* kept */\");\n";
        let kept = "const a = 1; // kept\n* { margin: 0; }\nb(\"/* kept */\");\n";
        assert_eq!(without_comments(source), kept);
    }

    #[test]
    fn blanks_of_a_style_sheet_that_mean_nothing_are_left_out() {
        let style = "a, b {\ncolor: red;\nwidth: calc(1px + 2px);\n}\n\
                     a :hover::after{ content: \" ▾\"; }\n";
        let kept = "a,b{color:red;width:calc(1px + 2px)}\na :hover::after{content:\" ▾\"}\n";
        assert_eq!(without_blanks(style.to_owned()), kept);
    }

    #[test]
    fn every_file_of_the_folder_is_sent() {
        let sent: Vec<&str> = SOURCES.iter().map(|(name, ..)| *name).collect();
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/http/page");
        for entry in std::fs::read_dir(folder).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            let is_for_developers = ["mod.rs", "types.d.ts", "tsconfig.json"].contains(&&*name);
            assert!(is_for_developers || sent.contains(&&*name), "{name}");
        }
    }
}
