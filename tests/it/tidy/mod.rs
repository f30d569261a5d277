//! The rules of the code base that a machine can check. CONTRIBUTING.md has them in words.

mod contents;
mod folders;
mod imports;
mod links;
mod paths;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// Folders without sources, which are skipped if git can't list the tracked files.
const GENERATED: [&str; 7] =
    [".git", "target", "data", "bench/results", "fuzz/target", "fuzz/artifacts", "fuzz/grown"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A text file of the project, with its path from the root.
struct Source {
    path: String,
    text: String,
}

impl Source {
    fn read(path: &str) -> Self {
        let text = fs::read_to_string(root().join(path));
        Self { path: path.to_owned(), text: text.unwrap_or_else(|e| panic!("{path}: {e}")) }
    }

    /// Returns all project files with one of these extensions, under a folder or `""`.
    fn all(folder: &str, extensions: &[&str]) -> Vec<Self> {
        let mut paths = project_files();
        paths.retain(|path| {
            let extension = Path::new(path).extension().and_then(|extension| extension.to_str());
            path.starts_with(folder) && extension.is_some_and(|e| extensions.contains(&e))
        });
        paths.iter().map(|path| Self::read(path)).collect()
    }
}

/// Returns the paths of all files of the project: those that git tracks or, in a source archive
/// without git, all files.
fn project_files() -> Vec<String> {
    let files = tracked_files().unwrap_or_else(|| files_in(root()));
    assert!(files.len() > 100, "only {} files are seen", files.len());
    files
}

fn tracked_files() -> Option<Vec<String>> {
    if !root().join(".git").exists() {
        return None;
    }
    let output = Command::new("git").args(["ls-files", "-z"]).current_dir(root()).output().ok()?;
    if !output.status.success() {
        return None;
    }
    let names = String::from_utf8(output.stdout).unwrap();
    let names = names.split_terminator('\0').map(str::to_owned);
    // A deleted file is tracked until its deletion is committed.
    Some(names.filter(|name| root().join(name).exists()).collect())
}

fn files_in(folder: &Path) -> Vec<String> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path: PathBuf = entry.unwrap().path();
        let name = path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
        if path.is_dir() && !GENERATED.contains(&&*name) {
            files.extend(files_in(&path));
        } else if path.is_file() {
            files.push(name);
        }
    }
    files
}

#[test]
fn without_git_the_same_files_are_found() {
    let all = files_in(root());
    for tracked in project_files() {
        assert!(all.contains(&tracked), "{tracked}");
    }
}
